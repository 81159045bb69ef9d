# The image that every Kubeflow component names (components/__init__.py). It runs as a user without rights and
# on a file system that can only be read: /tmp is all that it writes to, beside the volume of the workspace.
#
#   docker build --build-arg COMMIT="$(git rev-parse HEAD)" -t diffse-python:0.1.0 .
#   docker build --build-arg COMMIT="$(git rev-parse HEAD)" --target cpu -t diffse-python:0.1.0-cpu .
#
# Packages are those of requirements.lock, in layers that change seldom and apart: a new version of one package
# does not send gigabytes of CUDA again.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS base
# DVC asks for git.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --without-pip /opt/venv \
    && useradd --no-create-home --home-dir /tmp --uid 1000 diffse \
    && install -d -o diffse /workspace
ENV PATH=/opt/venv/bin:$PATH VIRTUAL_ENV=/opt/venv

# What is only needed to install: uv, and the compiler for pesq.
FROM base AS tools
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir uv==0.13.8

# The lock without what only develops and tests diffse, in parts (nvidia-ml-py, of dvclive, is Python alone). A
# change of pyproject.toml that does not change these lists changes none of the layers behind them.
FROM tools AS lock
COPY requirements.lock pyproject.toml /lock/
RUN /opt/uv/bin/uv pip compile --no-cache --no-header --no-annotate --constraint /lock/requirements.lock \
        --extra train --extra metrics --extra demo --extra validate --extra report --extra pipelines \
        --extra dashboard --output-file /lock/all.txt /lock/pyproject.toml \
    && grep -E '^(nvidia-[^m]|cuda-|triton)' /lock/all.txt > /lock/cuda.txt \
    && grep -E '^torch(audio)?==' /lock/all.txt > /lock/torch.txt \
    && grep -vE '^(nvidia-[^m]|cuda-|triton|torch(audio)?==)' /lock/all.txt > /lock/rest.txt

FROM tools AS rest
COPY --from=lock /lock/rest.txt /lock/
RUN /opt/uv/bin/uv pip install --no-cache --no-deps --compile-bytecode -r /lock/rest.txt

FROM tools AS cuda-libraries
COPY --from=lock /lock/cuda.txt /lock/
RUN /opt/uv/bin/uv pip install --no-cache --no-deps -r /lock/cuda.txt

FROM tools AS torch-cuda
COPY --from=lock /lock/torch.txt /lock/
RUN /opt/uv/bin/uv pip install --no-cache --no-deps --compile-bytecode -r /lock/torch.txt

FROM tools AS torch-cpu
COPY --from=lock /lock/torch.txt /lock/
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN /opt/uv/bin/uv pip install --no-cache --no-deps --compile-bytecode --index-url ${TORCH_INDEX} -r /lock/torch.txt

FROM tools AS package
COPY pyproject.toml README.md LICENSE NOTICE /source/
COPY src /source/src
RUN /opt/uv/bin/uv pip install --no-cache --no-deps --compile-bytecode /source

# By number, so that a cluster can see that it is not root.
FROM base AS runtime
ENV HOME=/tmp DVC_SITE_CACHE_DIR=/tmp/dvc PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 GX_ANALYTICS_ENABLED=false \
    DVC_NO_ANALYTICS=1
USER 1000
WORKDIR /workspace
ENTRYPOINT ["diffse"]
CMD ["--help"]

# COMMIT: which code this is, for the run records. An image has no git folder to ask.
FROM runtime AS cpu
COPY --from=torch-cpu /opt/venv /opt/venv
COPY --from=rest /opt/venv /opt/venv
COPY --from=package /opt/venv /opt/venv
ARG COMMIT=""
ENV DIFFSE_COMMIT=${COMMIT}

FROM runtime AS cuda
COPY --from=cuda-libraries /opt/venv /opt/venv
COPY --from=torch-cuda /opt/venv /opt/venv
COPY --from=rest /opt/venv /opt/venv
COPY --from=package /opt/venv /opt/venv
ARG COMMIT=""
ENV DIFFSE_COMMIT=${COMMIT}
