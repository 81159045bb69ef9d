"""pipelines/full.py: what it compiles to, and that it runs the same commands as dvc.yaml."""

import os
import re
import subprocess
import sys
from pathlib import Path

import compiled
import pytest
import small_project
import yaml

FULL = str(small_project.PROJECT / "pipelines" / "full.py")
PARAMS = small_project.PARAMS | small_project.MORE
# What may be used without a gate: numbers of a few kilobytes, and scores that only the report shows.
NOT_JUDGED = ("estimate", "sweep", "swap")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = small_project.create(tmp_path_factory.mktemp("pipeline"))
    small_project.write_params(folder, PARAMS)
    return folder


@pytest.fixture(scope="module")
def text(folder) -> str:
    return compiled.compile_here(folder)


@pytest.fixture(scope="module")
def documents(text) -> list[dict]:
    return compiled.documents_of(text)


def test_the_script_compiles_to_the_same_bytes(folder, text):
    target = folder / "again.yaml"
    command = [sys.executable, FULL, "--compile", target, "--params", folder / "params.yaml"]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert target.read_text() == text


def test_the_graph_is_that_of_dvc(documents):
    """One task per stage, each named by its command, each behind the gates of what it uses."""
    tasks = compiled.tasks(documents)
    assert sorted(f"diffse {name}" for name in tasks) == sorted(dvc_commands(PARAMS))
    verbs = {task.name: name.split()[0] for name, task in tasks.items()}
    for name, task in tasks.items():
        for needed in task.spec.get("dependentTasks", []):
            if verbs[needed] not in NOT_JUDGED:
                assert (verbs[needed] == "check") != (verbs[task.name] == "check"), name


def test_the_end_is_recorded_whatever_happens(documents):
    root = documents[0]["root"]["dag"]["tasks"]
    assert set(root) == {"conclude", "exit-handler-1"}
    assert root["conclude"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_what_kubeflow_shows_of_each_step(documents):
    """Every step hands on a description as an artifact, and no data."""
    shown = {}
    for name, component in documents[0]["components"].items():
        if "executorLabel" not in component:
            continue
        outputs = component["outputDefinitions"]
        kinds = {key: entry["artifactType"]["schemaTitle"] for key, entry in outputs["artifacts"].items()}
        shown[re.sub(r"-\d+$", "", name.removeprefix("comp-"))] = kinds
        references = outputs.get("parameters", {})
        assert len(references) == (name != "comp-conclude"), name
        assert {entry["parameterType"] for entry in references.values()} <= {"STRING"}
    dataset = {"product": "system.Dataset", "facts": "system.Metrics"}
    assert shown == {
        "prepare": dataset,
        "cache": dataset,
        "estimate": dataset,
        "enhance": dataset,
        "enhance-external": dataset,
        "train": {"model": "system.Model", "progress": "system.Metrics"},
        "check": {"verdict": "system.Markdown"},
        "evaluate": {"scores": "system.Metrics"},
        "sweep": {"scores": "system.Metrics", "table": "system.Markdown"},
        "swap": {"scores": "system.Metrics", "table": "system.Markdown"},
        "report": {"page": "system.HTML"},
        "conclude": {"outcome": "system.Markdown"},
    }


def dvc_commands(params: dict) -> list[str]:
    """Every command of dvc.yaml, from its text: an independent reading of `foreach` and `matrix`."""
    import itertools

    commands = []
    for stage in yaml.safe_load((small_project.PROJECT / "dvc.yaml").read_text())["stages"].values():
        axes = stage.get("matrix") or ({"": stage["foreach"]} if "foreach" in stage else {})
        lists = [params[values.strip("${}")] for values in axes.values()]
        for values in itertools.product(*lists):
            command = stage.get("do", stage)["cmd"].replace(
                "${key}", "${item}"
            )  # all that is used of a mapping
            for axis, value in zip(axes, values, strict=True):
                command = command.replace(f"${{item.{axis}}}" if axis else "${item}", value)
            commands.append(command)
    return commands


def test_what_judges_is_never_answered_from_a_cache(folder, documents):
    for name, task in compiled.tasks(documents).items():
        verb, *names = name.split()
        known = verb in ("cache", "estimate", "train", "enhance", "sweep", "swap") and names[0] != "theirs"
        assert task.spec["cachingOptions"].get("enableCache", False) == known
    never = compiled.documents_of(compiled.compile_here(folder, "full", "--no-cache"))
    for task in compiled.tasks(never).values():
        assert not task.spec["cachingOptions"].get("enableCache")


def test_a_sweep_of_what_is_not_trained_is_one_line(tmp_path):
    folder = small_project.create(tmp_path)
    small_project.write_params(folder, PARAMS | {"recipes": ["bridge"]})
    done = subprocess.run(
        [sys.executable, FULL, "--compile", folder / "x.yaml", "--params", folder / "params.yaml"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "sweeps.fine.system 'score.near' is no system that is trained" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--placement", "{folder}/wrong.yaml"], "unknown setting 'gpu'"),
        (["--params", "{folder}/none.yaml"], "no such file"),
    ],
)
def test_mistakes_are_one_line(folder, options, message):
    (folder / "wrong.yaml").write_text("gpu: 4\n")
    options = [option.format(folder=folder) for option in options]
    if "--params" not in options:
        options += ["--params", str(folder / "params.yaml")]
    done = subprocess.run(
        [sys.executable, FULL, "--compile", str(folder / "x.yaml"), *options], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "x.yaml").exists()


def test_submitting_needs_a_host():
    done = subprocess.run([sys.executable, FULL, "--submit"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--submit needs --host" in done.stderr


def test_the_image_is_built_under_the_name_that_components_use():
    from components import IMAGE
    from diffse import __version__

    assert f"diffse-python:{__version__}" == IMAGE
    for file in ("Makefile", "Dockerfile"):
        assert f"-t {IMAGE} ." in (small_project.PROJECT / file).read_text()
