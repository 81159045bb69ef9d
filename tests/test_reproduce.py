"""`diffse reproduce` from the recordings to the paper's number beside ours, every step as its own program."""

import subprocess
import sys
from pathlib import Path

import miniature_corpora as miniature
import pytest
import tiny
import yaml

from diffse import paths, storage


def reproduce(root: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "diffse", "reproduce", "m5-vbd", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


@pytest.mark.slow
def test_a_row_is_reproduced_from_its_recordings(tmp_path):
    """M5 on VB-DMD: a source tree as published, a few seconds long, and a network that trains in seconds."""
    miniature.vbd(paths.source(tmp_path, "vbd"))
    small = {"preset": "m5_small"} | tiny.TRAIN
    values = {
        "corpora": [], "train_corpora": [], "recipes": [],
        "prepare": {"vbd": {"preset": "vbd", "complete": False, "processes": 1}},
        "check": {"mixtures": {}, "cache": {}, "checkpoint": {"max_final_loss_ratio": 100}, "enhanced": {}}
        | {"metrics": {"max_missing": 1.0}},
        "train": {"m5_small": small}, "enhance": {"m5_small": {"preset": "m5_small"}},
        "evaluate": {"metrics": ["si_sdr", "estoi"], "processes": 1, "bootstrap": 100},
    }  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    done = reproduce(tmp_path, "--quick")
    assert done.returncode == 0, done.stderr
    assert "PESQ" in done.stdout
    assert "not comparable" in done.stdout.splitlines()[-1]
    summary = storage.read_json(paths.results(tmp_path, "m5_small.vbd", "vbd") / "summary.json")
    assert summary["files"] == miniature.UTTERANCES["vbd"]["test"]
    weights = paths.model(tmp_path, "m5_small.vbd") / "best" / "weights.safetensors"
    made = weights.stat().st_mtime_ns
    again = reproduce(tmp_path, "--quick")
    assert again.returncode == 0, again.stderr
    assert weights.stat().st_mtime_ns == made, "a training that has ended is not run again"
