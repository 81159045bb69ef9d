"""A changed setting on a cluster: the same steps run again as with `dvc repro` (the tables of test_dvc.py).

Kubeflow answers a task from its cache when the component, the image and all inputs are those of an earlier one.
The inputs are settings and references, so that the compiled pipeline says what a change runs again.
"""

import copy
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import small_project
from google.protobuf import json_format
from test_dvc import COMPARED, TABLE, TABLE_OF_SYSTEMS, after_enhancing, change, one_system

from diffse import settings
from pipelines import full, graph, lint

SOURCES = {"theirs": {"folder": "sources/external/theirs"}}


def keys(folder: Path, params: dict) -> dict[str, str]:
    """Command -> the key under which Kubeflow would find its result, of the tasks that it may answer itself."""
    small_project.write_params(folder, params)
    file = folder / "params.yaml"
    project = graph.Project(settings.load(file), file, "/workspace/diffse")
    built = graph.build("diffse", "", lambda chain: full.add_tasks(chain, None), project)
    spec = json_format.MessageToDict(built.pipeline_spec)
    tasks = dict(lint.all_tasks(spec))
    known: dict[str, str] = {}
    found = {}
    for name, task in tasks.items():
        verb = task["componentRef"]["name"].removeprefix("comp-").split("-")[0]
        if verb not in ("exit", "conclude"):
            key = key_of(name, tasks, known)
            if task["cachingOptions"].get("enableCache"):
                found[command(verb, task)] = key
    return found


def key_of(name: str, tasks: dict[str, dict], known: dict[str, str]) -> str:
    """Key of a task, from its constants and the references of what the tasks before it made.

    Those change with everything that the task read (a property of the steps, which test_dvc.py relies on as
    well); a gate hands on the reference that it was given.
    """
    if name not in known:
        inputs = tasks[name]["inputs"].get("parameters", {})
        parts = {key: source(given, tasks, known) for key, given in inputs.items()}
        gate = tasks[name]["componentRef"]["name"].startswith("comp-check")
        text = parts["judged"] if gate else json.dumps([tasks[name]["componentRef"], parts], sort_keys=True)
        known[name] = hashlib.sha256(text.encode()).hexdigest()
    return known[name]


def source(given: dict, tasks: dict[str, dict], known: dict[str, str]) -> str:
    if "taskOutputParameter" in given:
        return key_of(given["taskOutputParameter"]["producerTask"], tasks, known)
    return json.dumps(given, sort_keys=True)


def command(verb: str, task: dict) -> str:
    given = task["inputs"]["parameters"]
    names = [given[key]["runtimeValue"]["constant"] for key in ("name", "system", "corpus") if key in given]
    return " ".join((verb, *names))


def cached(commands: set[str]) -> set[str]:
    """Of the commands that `dvc repro` runs, those that Kubeflow may answer from its cache."""
    verbs = {name.replace("-", "_") for name in graph.CACHED}
    return {text for text in commands if text.split()[0] in verbs and "theirs" not in text.split()}


def check_table(folder: Path, params: dict, table: dict) -> None:
    before = keys(folder, params)
    for setting, (value, expected) in table.items():
        change(params, setting, value)
        after = keys(folder, params)
        again = {text for text, key in after.items() if before.get(text) != key}
        assert again == cached(expected), setting
        before = after


@pytest.fixture
def folder(tmp_path):
    return small_project.create(tmp_path)


def test_a_change_runs_what_reads_it(folder):
    check_table(folder, one_system(), TABLE)


def test_a_change_of_one_system_leaves_the_other(folder):
    params = one_system() | {"corpora": ["near"], "recipes": ["bridge", "score"]}
    params |= copy.deepcopy(small_project.MORE)
    check_table(folder, params, TABLE_OF_SYSTEMS)
    theirs = after_enhancing(["theirs near"])
    check_table(
        folder,
        params,
        {
            "external.theirs.paper": ("theirs", theirs),
            "sweeps.fine.values": ([1, 2], {"sweep fine"}),
            "swaps.other.files": (3, {"swap other"}),
        },
    )


def test_a_new_recipe_leaves_the_systems_that_are_there(folder):
    params = one_system()
    before = keys(folder, params)
    after = keys(folder, params | {"recipes": ["bridge", "score"]})
    assert {text for text, key in after.items() if before.get(text) != key} == {
        "train score.near", "enhance score.near near", "enhance score.near far"
    }  # fmt: skip


SCRIPT = """
import sys
from pathlib import Path
from kfp import local
from diffse import settings
from pipelines import full, graph

file = Path("params.yaml")
project = graph.Project(settings.load(file), file, str(Path.cwd()))
runner = local.SubprocessRunner(use_venv=False)
local.init(runner, pipeline_root="root", raise_on_error=True, enable_caching=True, cache_root="cache")
graph.build("diffse", "", lambda chain: full.add_tasks(chain, None), project)()
"""


@pytest.mark.slow
def test_kfp_itself_finds_in_its_cache_what_a_change_does_not_touch(folder):
    """The same with kfp's own cache, which the pipelines otherwise leave off in the local runner."""
    params = one_system() | {"corpora": ["near"], "recipes": ["bridge", "score"]} | small_project.MORE

    def ran() -> set[str]:
        small_project.write_params(folder, params)
        before = len(small_project.records(folder))
        environment = small_project.environment(folder)
        environment["PYTHONPATH"] += f":{small_project.PROJECT}"
        call = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return {" ".join((r["verb"], *r["names"])) for r in small_project.records(folder)[before:]}

    first = ran()
    assert cached(first) == {
        "cache near", "estimate near", "train bridge.near", "train score.near", "enhance bridge.near near",
        "enhance score.near near", *COMPARED,
    }  # fmt: skip
    assert ran() == first - cached(first)
    for setting, (value, expected) in TABLE_OF_SYSTEMS.items():
        change(params, setting, value)
        assert cached(ran()) == cached(expected), setting
