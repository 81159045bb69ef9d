"""Where run records are kept: a folder that all runners see."""

import os
from pathlib import Path

from diffse import paths, storage

VARIABLE = "DIFFSE_RUNS"


def location(root: Path) -> Path:
    """`$DIFFSE_RUNS`, relative to the project, or `<root>/runs`.

    A DVC experiment may run in a copy of the project that DVC deletes: its records go to the project itself.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return root / named
    if os.environ.get("DVC_EXP_NAME") and os.environ.get("DVC_ROOT"):
        return paths.runs(Path(os.environ["DVC_ROOT"]))
    return paths.runs(root)


def write(place: Path, name: str, text: str) -> None:
    """Write one file of the place as a whole."""
    with storage.atomic_file(place / name) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read(place: Path, name: str, limit: int) -> bytes:
    """The first `limit` bytes of a file. OSError when it is not there."""
    with open(place / name, "rb") as stream:
        return stream.read(limit)


def listing(place: Path) -> dict[str, tuple[int, object]]:
    """name -> (size in bytes, stamp that changes when the file does) of all files; {} without the folder."""
    found = {}
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                    facts = entry.stat(follow_symlinks=False)
                    found[entry.name] = (facts.st_size, (facts.st_mtime_ns, facts.st_ino))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found
