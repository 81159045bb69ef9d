"""Inside a component: what it writes beside the step's product, and what it refuses."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_project
import tiny

from diffse import cards, handover, steps, storage
from diffse.errors import DiffseError
from diffse.settings import load


class Artifact(SimpleNamespace):
    """As kfp's artifacts look to a component."""

    def __init__(self, path: Path):
        super().__init__(path=str(path), metadata={})

    def log_metric(self, name: str, value: float) -> None:
        self.metadata[name] = value


REFERENCE = f"data/toy/cache@sha256:{'0' * 64}"
CARD = {
    "command": "diffse cache toy", "reference": REFERENCE, "location": "data/toy/cache",
    "checksum": f"sha256:{'0' * 64}", "numbers": {"frames": 3, "seconds": 1.5}, "text": "**diffse cache toy**",
}  # fmt: skip


def run_with(monkeypatch, tmp_path, write, code: int = 0) -> dict[str, Artifact]:
    """handover.run with a command that writes what `write(reference, card)` does."""

    def command(words, cwd, env):
        given = dict(itertools.pairwise(words))
        write(Path(given["--write-reference"]), Path(given["--write-card"]))
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(subprocess, "run", command)
    artifacts = {name: Artifact(tmp_path / "out" / name) for name in ("product", "numbers", "text")}
    handover.run(["cache", "toy"], str(tmp_path), "{}", [], str(tmp_path / "reference"), **artifacts)
    return artifacts


def test_every_artifact_says_which_version_of_what_it_speaks_of(monkeypatch, tmp_path):
    def write(reference, card):
        reference.write_text(CARD["reference"])
        card.write_text(json.dumps(CARD))

    found = run_with(monkeypatch, tmp_path, write)
    for artifact in found.values():
        assert artifact.metadata.items() >= {key: CARD[key] for key in ("reference", "location")}.items()
    assert found["numbers"].metadata["frames"] == 3
    assert json.loads(Path(found["numbers"].path).read_text()) == CARD["numbers"]
    assert json.loads(Path(found["product"].path).read_text()) == CARD
    assert Path(found["text"].path).read_text() == CARD["text"]


@pytest.mark.parametrize("written", [None, "", "data/toy/cache", "data/toy/cache@sha256:12"])
def test_a_step_without_the_reference_that_it_promised_fails(monkeypatch, tmp_path, written):
    def write(reference, card):
        if written is not None:
            reference.write_text(written)
        card.write_text(json.dumps(CARD))

    with pytest.raises(DiffseError, match="ended without the reference"):
        run_with(monkeypatch, tmp_path, write)


def test_a_step_without_an_artifact_that_it_promised_fails(monkeypatch, tmp_path):
    def write(reference, card):
        reference.write_text(CARD["reference"])
        card.write_text(json.dumps(CARD | {"text": ""}))

    with pytest.raises(DiffseError, match=r"did not write .*out/text"):
        run_with(monkeypatch, tmp_path, write)


def test_a_failed_command_ends_the_step_with_its_code(monkeypatch, tmp_path):
    with pytest.raises(SystemExit) as ended:
        run_with(monkeypatch, tmp_path, lambda *_: None, code=1)
    assert ended.value.code == 1


def test_only_a_training_on_several_gpus_runs_under_torchrun(monkeypatch):
    plain = [sys.executable, "-m", "diffse"]
    assert handover.launcher("train") == plain
    monkeypatch.setenv("DIFFSE_PROCESSES", "4")
    assert handover.launcher("enhance") == plain
    assert handover.launcher("train")[1:] == [
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m", "diffse"
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------- cards


def test_the_card_of_a_gate_is_the_table_of_its_rules(tmp_path):
    rule = {"rule": "a|b", "success": False, "observed": "3", "limit": "at most 2"}
    storage.write_json(tmp_path / "gates/mixtures/toy.json", {"rules": [rule]})
    step = steps.describe("check", ("mixtures", "toy"))
    card = cards.card(tmp_path, step, {"rules": 1, "success": True}, "data/toy/mixtures@sha256:0")
    assert "| a\\|b | NO | 3 | at most 2 |" in card["text"].splitlines()
    assert card["numbers"] == {"rules": 1}
    assert (card["location"], card["checksum"]) == ("data/toy/mixtures", "sha256:0")


def test_numbers_of_a_card_are_finite_and_named_by_their_path():
    result = {"means": {"pesq": 2.5, "dnsmos": float("nan")}, "files": 3, "ok": True, "name": "x", "none": None}
    assert cards.numbers(result) == {"means pesq": 2.5, "files": 3}


# --------------------------------------------------------------------------------------------- the end


def conclude(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return small_project.run(folder, sys.executable, "-m", "diffse", "conclude", "chain", *words)


@pytest.mark.parametrize(
    ("state", "ours", "error"),
    [
        ("SUCCEEDED", "ok", None),
        ("FAILED", "failed", "a node went"),
        ("CANCELLED", "interrupted", "stopped by the user or the system"),
    ],
)
def test_the_end_of_a_pipeline_is_a_run_record(tmp_path, state, ours, error):
    folder = small_project.create(tmp_path)
    target = folder / "outcome.md"
    done = conclude(folder, "--state", state, "--message=a node went", "--write-text", str(target))
    assert done.returncode == 0, done.stderr
    (record,) = small_project.records(folder)
    assert (record["verb"], record["names"], record["state"], record["error"]) == (
        "pipeline",
        ["chain"],
        ours,
        error,
    )
    assert target.read_text().startswith(f"**Pipeline chain: {ours}**")


# ------------------------------------------------------------------------------------------- torchrun


@pytest.mark.slow
def test_two_processes_train_the_system_that_one_does(tmp_path, monkeypatch):
    """The component as it runs on a node with two GPUs (here gloo on two processors), and on one."""
    import torch
    from safetensors.torch import load_file

    from components.train import train
    from diffse.data import statistics

    weights = {}
    for count in ("1", "2"):
        root = tmp_path / count
        tiny.make_project(root)
        params = load(root / "params.yaml")
        statistics.run(params, "toy", root)
        monkeypatch.setenv("DIFFSE_PROCESSES", count)
        step = steps.describe("train", ("bridge.toy",))
        needs = [
            steps.reference(root, Path("data/toy", name)) for name in ("mixtures", "cache", "statistics.json")
        ]
        read = json.dumps(steps.settings_read(step, params))
        outputs = {"model": Artifact(root / "o/model"), "progress": Artifact(root / "o/progress")}
        train.python_func(str(root), "bridge.toy", read, *needs, str(root / "r"), **outputs)
        assert outputs["progress"].metadata["processes"] == int(count)
        assert (root / "r").read_text() == steps.reference(root, step.artifact)
        assert len(small_project.records(root)) == 1
        weights[count] = load_file(root / "models/bridge.toy/last/weights.safetensors")
    for name, value in weights["1"].items():
        torch.testing.assert_close(weights["2"][name], value, rtol=1e-3, atol=1e-4)
