"""Compiled pipelines of a small project, kept so that a change of what a cluster is given shows in a review.

    python tests/kept_pipelines.py      write golden_pipelines/ again

They are what `--compile` writes, but for two texts: the code of a component is replaced by its checksum, and
the settings that a step is given by their keys, so that a new setting of a network changes nothing here.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

import small_project
import yaml
from compiled import compile_here, documents_of

from pipelines import lint

FOLDER = Path(__file__).parent / "golden_pipelines"
PARAMS = small_project.PARAMS | {
    "corpora": ["near"],
    "recipes": ["bridge"],
    "externals": ["theirs"],
    "external": small_project.MORE["external"],
    "sweeps": {"fine": {"system": "bridge.near", "corpus": "near", "values": [1, 2]}},
}
OPTIONS = {
    "full": (),
    "data": (),
    "train": ("--system", "bridge.near"),
    "evaluate": ("--system", "bridge.near"),
    "enhance": (
        "s3://bucket/in",
        "s3://bucket/out",
        "--checkpoint",
        "models/bridge.near/best",
        "--shards",
        "2",
    ),
}


def create(folder: Path) -> Path:
    """The small project whose pipelines are kept."""
    small_project.create(folder)
    small_project.write_params(folder, PARAMS)
    return folder


def reduced(folder: Path, pipeline: str) -> str:
    """The compiled pipeline as it is kept."""
    documents = documents_of(compile_here(folder, pipeline, *OPTIONS[pipeline]))
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        container = executor["container"]
        text = "\n".join((*container.pop("command"), *container.pop("args")))
        container["command"] = [f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"]
    for _, task in lint.all_tasks(documents[0]):
        given = task.get("inputs", {}).get("parameters", {}).get("settings")
        if given:
            constant = given["runtimeValue"]["constant"]
            given["runtimeValue"]["constant"] = " ".join(json.loads(constant))
    return yaml.safe_dump_all(documents, sort_keys=True, width=110)


def write_all() -> None:
    """Write every file again."""
    with tempfile.TemporaryDirectory() as name:
        folder = create(Path(name))
        for pipeline in OPTIONS:
            (FOLDER / f"{pipeline}.yaml").write_text(reduced(folder, pipeline))


if __name__ == "__main__":
    write_all()
