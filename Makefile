# `make` lists what there is. DIFFSE_VENV=<folder> puts the environment elsewhere than .venv.

SHELL := bash
VENV := $(abspath $(or $(DIFFSE_VENV),.venv))
export PATH := $(VENV)/bin:$(PATH)
# Tests run in one process per core; more threads in each would only get in each other's way.
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
SOURCES := src tests components pipelines benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow lint image clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## check what is needed and create the environment (.venv)
	@DIFFSE_VENV="$(VENV)" tools/setup.sh

demo: setup ## run the whole chain on the built-in corpus and show the report
	@tools/demo.sh

test: setup ## run the tests
	$(THREADS) python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

slow: setup ## run the tests that need minutes
	python -m pytest -m slow

lint: setup ## check style and formatting
	ruff check $(SOURCES)
	ruff format --check $(SOURCES)

image: ## build the image that the Kubeflow components name
	docker build --build-arg COMMIT="$$(git rev-parse HEAD)" -t diffse-python:0.1.0 .

clean: ## remove what the chain has produced; recordings, settings and environment stay
	rm -rf data models enhanced results gates report runs .dvc/cache .dvc/tmp
