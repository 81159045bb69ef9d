"""A project on which every real step runs in seconds: two systems, an external one and a sweep."""

import sys
from pathlib import Path

import small_project
import tiny


def create(folder: Path) -> Path:
    """Sources and settings in `folder`, for `dvc repro` and the pipelines."""
    small_project.create(folder)
    for corpus in small_project.PARAMS["corpora"]:
        (folder / "sources" / corpus / "speech.txt").unlink()
    tiny.make_sources(folder)
    (folder / "sources/external/theirs/copy.py").write_text(
        "import shutil, sys; shutil.copytree(*sys.argv[1:], dirs_exist_ok=True)"
    )
    checks = {"mixtures": {}, "cache": {}, "metrics": {"max_missing": 1.0}}
    checks |= {"checkpoint": {"max_final_loss_ratio": 100.0}, "enhanced": {"max_gain_db": 200.0}}
    program = [sys.executable, "sources/external/theirs/copy.py", "{input}", "{output}"]
    more = {"externals": ["theirs"], "external": {"theirs": {"command": program}}}
    sweep = {"system": "bridge.toy", "corpus": "toy", "values": [1, 3], "files": 2, "metrics": ["estoi"]}
    more |= {"sweeps": {"fine": sweep}, "report": {"title": "tiny"}}
    tiny.write_params(folder, check=checks, cache={"n_fft": 510}, **more)
    return folder
