# The image that every Kubeflow component names (components/__init__.py).
# docker build --build-arg COMMIT="$(git rev-parse HEAD)" -t diffse-python:0.1.0 .
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}

# The locked packages first: they change seldom, and with them the large layer. The compiler is for pesq alone
# and goes again. git stays: DVC asks for it.
COPY requirements.lock /opt/diffse/
ENV PATH=/opt/venv/bin:$PATH
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev git \
    && python3 -m venv /opt/venv \
    && pip install --no-cache-dir uv==0.13.8 \
    && VIRTUAL_ENV=/opt/venv uv pip install --no-cache --compile-bytecode -r /opt/diffse/requirements.lock \
    && apt-get purge -y --auto-remove gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md LICENSE NOTICE /opt/diffse/
COPY src /opt/diffse/src
RUN VIRTUAL_ENV=/opt/venv uv pip install --no-cache --no-deps --compile-bytecode /opt/diffse \
    && rm -rf /opt/diffse/build

# Which code this is, for the run records: an image has no git folder to ask.
ARG COMMIT=""
ENV DIFFSE_COMMIT=${COMMIT} PYTHONUNBUFFERED=1 GX_ANALYTICS_ENABLED=false DVC_NO_ANALYTICS=1

RUN useradd --create-home --uid 1000 diffse && mkdir /workspace && chown diffse /workspace
# By number, so that a cluster can see that it is not root.
USER 1000
WORKDIR /workspace
ENTRYPOINT ["diffse"]
CMD ["--help"]
