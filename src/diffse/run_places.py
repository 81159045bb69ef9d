"""Where run records are kept: a folder or an `s3://` prefix that all runners see."""

import os
from pathlib import Path

from diffse import objects, paths, storage

VARIABLE = "DIFFSE_RUNS"


def location(root: Path) -> Path | str:
    """`$DIFFSE_RUNS` (a URL, or a folder relative to the project), else `<root>/runs`.

    A DVC experiment may run in a copy of the project that DVC deletes: its records go to the project itself.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return named.rstrip("/") if objects.is_url(named) else root / named
    if os.environ.get("DVC_EXP_NAME") and os.environ.get("DVC_ROOT"):
        return paths.runs(Path(os.environ["DVC_ROOT"]))
    return paths.runs(root)


def write(place: Path | str, name: str, text: str) -> None:
    """Write one file of the place as a whole."""
    if isinstance(place, str):
        objects.write(objects.join(place, name), text.encode())
        return
    with storage.atomic_file(place / name) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read(place: Path | str, name: str, limit: int) -> bytes:
    """The first `limit` bytes of a file. OSError or DiffseError when it cannot be read."""
    if isinstance(place, str):
        return objects.read(objects.join(place, name), length=limit)
    with open(place / name, "rb") as stream:
        return stream.read(limit)


def listing(place: Path | str) -> dict[str, tuple[int, object]]:
    """name -> (size in bytes, stamp that changes when the file does) of all files; {} without the place."""
    if isinstance(place, str):
        found = {entry.url.removeprefix(f"{place}/"): entry for entry in objects.listing(place)}
        return {name: (entry.size, entry.etag) for name, entry in found.items() if "/" not in name}
    files = {}
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                    facts = entry.stat(follow_symlinks=False)
                    files[entry.name] = (facts.st_size, (facts.st_mtime_ns, facts.st_ino))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return files
