"""A workspace on S3 alone: what steps fetch and store, and what is there after one was taken away."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_project
import tiny
from test_handover import Artifact

from diffse import handover, objects, run_records, settings, steps, workspaces
from diffse.errors import DiffseError

TRAIN = ["train", "score.near"]


def put(workspace: str, files: dict[str, str]) -> None:
    for name, content in files.items():
        objects.write(f"{workspace}/{name}", content.encode())


def held(workspace: str) -> dict[str, str]:
    """What the store holds of the project, by name."""
    entries = objects.listing(workspace)
    return {one.url.removeprefix(f"{workspace}/"): objects.read(one.url).decode() for one in entries}


def here(root: Path) -> set[str]:
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}


@pytest.fixture
def workspace(store) -> str:
    url = f"{store}/team/project"
    put(url, {"params.yaml": json.dumps(small_project.PARAMS | {"evaluate": {"texts": "texts/near.csv"}})})
    return url


@pytest.fixture
def small(store, monkeypatch, tmp_path) -> str:
    """The project whose steps do no work, on the store alone."""
    folder = small_project.create(tmp_path / "sources-of-it")
    environment = small_project.environment(folder)
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    url = f"{store}/small"
    for name in here(folder):
        if name.startswith(("params", "sources")):
            objects.upload(folder / name, f"{url}/{name}")
    return url


def test_a_step_fetches_what_it_reads_and_no_more(workspace):
    put(workspace, dict.fromkeys(("data/near/mixtures/a", "data/near/cache/b", "data/far/mixtures/c"), "x"))
    put(workspace, dict.fromkeys(("texts/near.csv", "texts/far.csv", "notes.txt", "runs/r.json"), "x"))
    put(workspace, dict.fromkeys(("sources/near/s.wav", "models/score.near/best/weights.safetensors"), "x"))
    put(workspace, dict.fromkeys(("models/score.near.more/best/b", "gates/mixtures/near.json"), "x"))
    always = {"params.yaml", "texts/near.csv"}
    mixtures, model = "data/near/mixtures@sha256:1", "models/score.near@sha256:1"
    for arguments, needs, expected in (
        (["prepare", "near"], [], {"sources/near/s.wav"}),
        (["cache", "near"], [mixtures], {"data/near/mixtures/a"}),
        (["check", "mixtures", "near"], [""], {"data/near/mixtures/a", "gates/mixtures/near.json"}),
        (["enhance", "score.near", "near"], [mixtures, model], {"data/near/mixtures/a", MODEL}),
        (["check", "enhanced", "score.near", "near"], [], {"data/near/mixtures/a", MODEL}),
        (["enhance", "in", "out", "--checkpoint", "models/score.near/best"], [], {MODEL}),
    ):
        with workspaces.opened(workspace, arguments, needs) as root:
            assert here(root) == always | expected, arguments
        assert not root.exists()


MODEL = "models/score.near/best/weights.safetensors"


def test_a_folder_is_used_as_it_is(tmp_path):
    with workspaces.opened(str(tmp_path), TRAIN) as root:
        assert root == tmp_path
    assert workspaces.environment(str(tmp_path)) == dict(os.environ)
    assert workspaces.words(str(tmp_path), ["enhance", "in", "out", "--checkpoint", "c"])[1] == "in"


def test_places_of_files_are_on_the_store(workspace):
    words = workspaces.words(workspace, ["enhance", "in", "s3://b/out", "--checkpoint", "c", "--seed", "1"])
    assert words == ["enhance", f"{workspace}/in", "s3://b/out", "--checkpoint", "c", "--seed", "1"]


def test_what_was_made_replaces_what_was_there(workspace):
    put(
        workspace, {"data/near/mixtures/old": "old", "data/near/mixtures/both": "old", "data/near/cache/a": "a"}
    )
    with workspaces.opened(workspace, ["prepare", "near"]) as root:
        folder = root / "data/near/mixtures"
        folder.mkdir(parents=True)
        for name in ("both", "new", ".hidden"):
            (folder / name).write_text("new")
        (root / "elsewhere").write_text("x")
    found = held(workspace)
    assert {name: found[name] for name in found if name.startswith("data")} == {
        "data/near/mixtures/both": "new", "data/near/mixtures/new": "new", "data/near/cache/a": "a"
    }  # fmt: skip
    assert "elsewhere" not in found


def test_a_step_that_fails_leaves_what_was_there(workspace):
    put(workspace, {"data/near/mixtures/old": "old"})
    with pytest.raises(SystemExit), workspaces.opened(workspace, ["prepare", "near"]) as root:
        (root / "data/near/mixtures").mkdir(parents=True)
        (root / "data/near/mixtures/half").write_text("half")
        raise SystemExit(2)
    assert "data/near/mixtures/half" not in held(workspace)
    assert "data/near/mixtures/old" in held(workspace)


def test_a_gate_that_fails_leaves_its_verdict(workspace):
    with pytest.raises(SystemExit), workspaces.opened(workspace, ["check", "mixtures", "near"]) as root:
        (root / "gates/mixtures").mkdir(parents=True)
        (root / "gates/mixtures/near.json").write_text("no")
        (root / "data/near").mkdir(parents=True)
        (root / "data/near/measures.parquet").write_text("what it need not measure again")
        raise SystemExit(1)
    assert held(workspace)["gates/mixtures/near.json"] == "no"
    with workspaces.opened(workspace, ["check", "mixtures", "near"]) as root:
        assert (root / "data/near/measures.parquet").read_text() == "what it need not measure again"


def test_a_training_that_goes_on_is_stored_and_found_again(workspace, monkeypatch):
    monkeypatch.setattr(workspaces, "POLL_SECONDS", 0.01)
    put(workspace, {"models/score.near/last/weights.safetensors": "of other settings"})
    state = f"{workspace}/models/score.near/state.pt"
    with contextlib.suppress(KeyboardInterrupt), workspaces.opened(workspace, TRAIN) as root:
        folder = root / "models/score.near"
        folder.rename(folder.with_name("score.near.superseded"))  # as training does then
        folder.mkdir()
        (folder / "history.csv").write_text("1\n2\n3\n")
        write(folder / "state.pt", "state 2")
        wait_for(state, b"state 2")
        assert held(workspace) | {"params.yaml": ""} == {
            "params.yaml": "",
            "models/score.near/state.pt": "state 2",
            "models/score.near/history.csv": "1\n2\n3\n",
            "models/score.near.superseded/last/weights.safetensors": "of other settings",
        }
        monkeypatch.setattr(workspaces.Copy, "store", lambda *_, **__: None)  # the node is lost
        raise KeyboardInterrupt
    monkeypatch.undo()


def write(path: Path, content: str) -> None:
    path.with_name(".partial").write_text(content)
    path.with_name(".partial").replace(path)


def wait_for(url: str, content: bytes) -> None:
    for _ in range(1000):
        if objects.exists(url) and objects.read(url) == content:
            return
        time.sleep(0.01)
    raise AssertionError(f"{url} was never stored")


def test_the_state_goes_when_the_training_has_ended(workspace):
    put(workspace, {"models/score.near/state.pt": "state", "models/score.near/history.csv": "1\n"})
    with workspaces.opened(workspace, TRAIN) as root:
        folder = root / "models/score.near"
        assert (folder / "state.pt").read_text() == "state"
        (folder / "last").mkdir()
        (folder / "last/weights.safetensors").write_text("w")
        (folder / "state.pt").unlink()
    names = {name for name in held(workspace) if name.startswith("models")}
    assert names == {"models/score.near/history.csv", "models/score.near/last/weights.safetensors"}


def test_components_without_a_shared_folder(small, tmp_path, capfd, monkeypatch):
    """The chain's first steps, then a gate that fails, and what the exit handler says of it."""
    monkeypatch.setenv("DIFFSE_PIPELINE_RUN", "night")
    params = settings.load(tmp_path / "sources-of-it/params.yaml")

    def step(*arguments: str, needs: tuple[str, ...] = ()) -> str:
        read = json.dumps(steps.settings_read(steps.describe(arguments[0], arguments[1:]), params))
        handover.run(list(arguments), small, read, needs, str(tmp_path / "reference"))
        return (tmp_path / "reference").read_text()

    mixtures = step("prepare", "near")
    assert step("check", "mixtures", "near", needs=(mixtures,)) == mixtures
    assert step("cache", "near", needs=(mixtures,)).startswith("data/near/cache@sha256:")
    with pytest.raises(SystemExit) as ended:
        step("cache", "near", needs=(f"data/near/mixtures@sha256:{'0' * 64}",))
    assert ended.value.code == 2
    text = Artifact(tmp_path / "outcome")
    handover.conclude(small, "diffse", "FAILED", "a step failed", text)
    assert "- `diffse cache near`: " in Path(text.path).read_text()
    assert "this step was given 000000000000" in Path(text.path).read_text()
    found, damaged = run_records.Records(f"{small}/runs").read()
    assert [(run.title, run.state) for run in reversed(found)] == [
        ("prepare near", "ok"), ("check mixtures near", "ok"), ("cache near", "ok"), ("cache near", "failed"),
        ("pipeline diffse", "failed"),
    ]  # fmt: skip
    assert not damaged


def test_a_store_that_refuses_is_one_line(store, capfd):
    with pytest.raises(SystemExit) as ended:
        handover.run(["prepare", "near"], f"{store}-that-is-not-there/project")
    assert ended.value.code == 2
    said = capfd.readouterr().err.splitlines()
    assert said[-1].startswith("diffse: s3://") and "there is no bucket" in said[-1]


def test_a_workspace_without_settings_is_one_line(store):
    missing = pytest.raises(DiffseError, match=r"nothing/params\.yaml: no such object")
    with missing, workspaces.opened(f"{store}/nothing", ["prepare", "near"]):
        pass


# --------------------------------------------------------------------------------------- the real training

TRAINING = """
import sys
from diffse import handover, workspaces
workspaces.POLL_SECONDS = 0.05
handover.run(["train", "bridge.toy"], sys.argv[1], sys.argv[2], sys.argv[3:])
"""


@pytest.mark.slow
def test_a_training_whose_node_is_lost_continues_from_the_store(store, tmp_path):
    """Killed with everything on its node; the weights are those of an undisturbed training."""
    long = {"steps": 40, "checkpoint_every": 4, "validate_every": 20}
    params = tiny.make_project(tmp_path, **{f"train__bridge__{key}": value for key, value in long.items()})
    read = json.dumps(steps.settings_read(steps.describe("train", ("bridge.toy",)), params))
    needs = [steps.reference(tmp_path, Path("data/toy", name)) for name in ("mixtures", "cache")]
    words = [read, *needs]
    weights = {}
    for lost in (False, True):
        url = f"{store}/{lost}"
        for name in here(tmp_path):
            objects.upload(tmp_path / name, f"{url}/{name}")
        if lost:
            killed_after_a_state(url, words)
        done = training(url, words)
        said = done.communicate()[0]
        assert done.returncode == 0, said
        weights[lost] = [
            objects.read(f"{url}/models/bridge.toy/{name}/weights.safetensors") for name in ("best", "last")
        ]
        assert not objects.exists(f"{url}/models/bridge.toy/state.pt")
        found, _ = run_records.Records(f"{url}/runs").read()
        assert found[0].state == "ok"
        assert (found[0].table("result")["resumed_from"] > 0) == lost
    assert weights[False] == weights[True]


def training(url: str, words: list[str]) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(small_project.PROJECT / "src")}
    return subprocess.Popen(
        [sys.executable, "-c", TRAINING, url, *words], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def killed_after_a_state(url: str, words: list[str]) -> None:
    """Kill a training, and what it has started, once the store holds a state of it."""
    process = training(url, words)
    while not objects.exists(f"{url}/models/bridge.toy/state.pt"):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
