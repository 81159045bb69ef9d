"""Finding recordings in source folders, whatever the case of their names and the discs they came on."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def child(folder: Path, *names: str) -> Path:
    """`folder`/names..., each name in the case that it has on the disk; as given where there is none."""
    for name in names:
        exact = folder / name
        if not exact.exists() and folder.is_dir():
            same = [entry for entry in sorted(os.listdir(folder)) if entry.lower() == name.lower()]
            exact = folder / same[0] if same else exact
        folder = exact
    return folder


def folders_named(top: Path, name: str, depth: int = 6) -> list[Path]:
    """Folders called `name` in any case, at most `depth` levels below `top`, sorted; `top` may be one itself.

    Those inside a found one are not looked for.
    """
    if top.name.lower() == name.lower() and top.is_dir():
        return [top]
    found, level = [], [top]
    for _ in range(depth):
        below = [Path(entry.path) for folder in level for entry in _folders(folder)]
        found += [folder for folder in below if folder.name.lower() == name.lower()]
        level = [folder for folder in below if folder.name.lower() != name.lower()]
    return sorted(found)


def _folders(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []


def files(top: Path, suffixes: Iterable[str]) -> Iterator[Path]:
    """Files below `top` with one of the (lower-case) suffixes, sorted; not hidden ones. Links are followed."""
    endings = tuple(suffixes)
    seen: set[str] = set()  # links may point back up
    for folder, names, found in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if not name.startswith("."))
        for file in sorted(found):
            if not file.startswith(".") and file.lower().endswith(endings):
                yield Path(folder) / file


def relative(path: Path, source: Path) -> str:
    """How the manifest names a file."""
    return path.relative_to(source).as_posix()
