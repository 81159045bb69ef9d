"""Fixtures shared by all tests."""

import gc
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
# Files that take longest: begun last, they would run alone at the end.
LONG = [
    "test_dvc.py", "test_pipelines_local.py", "test_training.py", "test_training_nodes.py", "test_winograd.py",
    "test_faults_of_data_steps.py", "test_pipelines_placement.py", "test_pipelines.py", "test_mixture_gate.py",
    "test_objectives_learn.py", "test_workspaces.py",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first (xdist must not sort them again: --no-loadscope-reorder)."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


def pytest_collection_finish() -> None:
    """What the tests import stays to the end: without it every full collection walks a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _call_stacks_of_names() -> Iterator[None]:
    """kfp asks for the call stack at each setting of a task, and `inspect` searches all modules of the process
    for its source lines: milliseconds in a script, minutes in a process that has run a thousand tests."""
    stack = inspect.stack
    with mock.patch.object(inspect, "stack", lambda context=1: stack(0)):
        yield


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden numbers; tests that need it are skipped where it is absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the golden numbers (../shared/golden) are not here")
    return folder


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Folder of real recordings; tests that need it are skipped where it is absent."""
    folder = SHARED / "corpus"
    if not folder.is_dir():
        pytest.skip("the real recordings (../shared/corpus) are not here")
    return folder


@pytest.fixture(scope="session")
def _store_server() -> Iterator[str]:
    """Address of an S3-compatible server of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(_store_server, monkeypatch, tmp_path_factory) -> str:
    """`s3://bucket` of an empty S3-compatible store; the standard variables lead to it."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": _store_server,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = tmp_path_factory.mktemp("bucket").name
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory) -> Path:
    """No test reads or writes the user's cache of scores and weights, nor does what it starts."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["DIFFSE_CACHE"] = str(folder)
    return folder
