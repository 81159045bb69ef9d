"""A project on which every real step runs in seconds: three systems, an external one, a sweep and a swap."""

import sys
from pathlib import Path

import small_project
import tiny

_TRAIN = {**tiny.TRAIN, "steps": 6, "validate_files": 1}
_ALONE = {**tiny.NETWORK, "conditional": False}
# A StoRM system, with snapshots of its average, and a predictor that can take the place of its own.
STORM = {
    "train__storm": {
        **_TRAIN, "process": {"name": "ouve"}, "objective": {"name": "score_matching"},
        "predictor": {"network": _ALONE}, "power_ema": {"stds": [0.05, 0.1], "snapshot_every": 2, "use": 0.1},
    },
    "train__first": {
        **_TRAIN, "process": {"name": "none"}, "objective": {"name": "regression"}, "network": _ALONE,
    },
    "enhance__storm": {"sampler": {"name": "pc", "steps": 2}},
    "enhance__first": {"sampler": {"name": "direct"}},
}  # fmt: skip


def create(folder: Path) -> Path:
    """Sources and settings in `folder`, for `dvc repro` and the pipelines."""
    small_project.create(folder)
    for corpus in small_project.PARAMS["corpora"]:
        (folder / "sources" / corpus / "speech.txt").unlink()
    tiny.make_sources(folder)
    (folder / "sources/external/theirs/copy.py").write_text(
        "import shutil, sys; shutil.copytree(*sys.argv[1:], dirs_exist_ok=True)"
    )
    checks = {**tiny.PARAMS["check"], "cache": {}, "metrics": {"max_missing": 1.0}}
    checks |= {"checkpoint": {"max_final_loss_ratio": 100.0}, "enhanced": {"max_gain_db": 200.0}}
    program = [sys.executable, "sources/external/theirs/copy.py", "{input}", "{output}"]
    more = {"externals": ["theirs"], "external": {"theirs": {"command": program}}}
    sweep = {"system": "bridge.toy", "corpus": "toy", "values": [1, 3], "files": 2, "metrics": ["estoi"]}
    swap = {"system": "storm.toy", "predictor": "first.toy", "corpus": "toy", "files": 2, "metrics": ["estoi"]}
    more |= {"sweeps": {"fine": sweep}, "swaps": {"other": swap}, "report": {"title": "tiny"}}
    more |= {"recipes": ["bridge", "storm", "first"], **STORM}
    tiny.write_params(folder, check=checks, cache={"n_fft": 510}, **more)
    return folder
