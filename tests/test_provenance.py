"""What an artifact says that it was made from, through training, enhancement, gate and evaluation."""

import json

import tiny

from diffse import enhancer, paths, storage, training
from diffse.errors import GateFailed
from diffse.metrics import evaluate
from diffse.validation import gate

EMA = {"stds": [0.05, 0.1], "snapshot_every": 1, "use": 0.1}


def test_every_artifact_names_what_it_was_made_from(tmp_path):
    train = tiny.PARAMS["train"]["bridge"] | {"steps": 6, "power_ema": EMA}
    enhance = tiny.PARAMS["enhance"]["bridge"] | {"ema": 0.07}
    params = tiny.make_project(
        tmp_path, recipes=["bridge"], train={"bridge": train}, enhance={"bridge": enhance}, check={}
    )
    training.run(params, "bridge.toy", tmp_path)
    enhancer.run(params, "bridge.toy", "toy", tmp_path)
    evaluate.run(params, "bridge.toy", "toy", tmp_path)
    mixtures = storage.sha256_file(paths.mixtures(tmp_path, "toy") / "manifest.parquet")
    model, enhanced = paths.model(tmp_path, "bridge.toy"), paths.enhanced(tmp_path, "bridge.toy", "toy")
    weights = storage.sha256_file(model / "best/weights.safetensors")
    described, made, scored = (
        json.loads(path.read_text())
        for path in (
            model / "best/checkpoint.json",
            enhanced / "enhanced.json",
            paths.results(tmp_path, "bridge.toy", "toy") / "summary.json",
        )
    )
    cached = json.loads((paths.cache(tmp_path, "toy") / "cache.json").read_text())
    assert {cached["mixtures_sha256"], described["data_version"], made["mixtures_sha256"]} == {mixtures}
    assert described["weights_sha256"] == made["checkpoint_sha256"] == weights
    snapshots = made["snapshots_sha256"]
    assert len(snapshots) > 1
    assert snapshots == {name: storage.sha256_file(model / name) for name in snapshots}
    assert scored["made_from"] == {
        "mixtures_sha256": mixtures,
        "enhanced_sha256": storage.sha256_file(enhanced / "manifest.parquet"),
        "checkpoint_sha256": weights,
        "snapshots_sha256": snapshots,
    }
    names = ("bridge.toy", "toy")
    assert said(params, names, tmp_path) is None
    (model / sorted(snapshots)[0]).write_bytes(b"other weights")
    assert "made with the present checkpoint" in said(params, names, tmp_path)


def said(params, names: tuple[str, str], root) -> str | None:
    """What the gate of enhanced audio says about what it was made from."""
    try:
        gate.run(params, "enhanced", names, root)
    except GateFailed as failure:
        lines = [line for line in str(failure).splitlines() if "present" in line]
        return "\n".join(lines) or None
    return None
