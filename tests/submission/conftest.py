"""Fixtures of submissions: a pipeline, a project and a server that speaks Kubeflow's API."""

from pathlib import Path

import pytest
import small_project
import submitting
from kfp_server import Server
from submitting import PARAMS

from pipelines import api, submission


@pytest.fixture(scope="session")
def built() -> submission.Built:
    return submitting.built()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A project folder of its own, so that what a start leaves there is seen."""
    small_project.write_params(tmp_path, PARAMS)
    return tmp_path


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """Nobody waits in a test; the seconds that would have passed."""
    waited: list[float] = []
    for variable in submitting.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    patience = api.Patience(answer=20.0, settle=(1.0, 1.0), sleep=waited.append)
    monkeypatch.setattr(submission, "PATIENCE", patience)
    return waited
