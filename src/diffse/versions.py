"""Tracked files as they were at a git revision, read from DVC's cache or straight from its remote.

With `dashboard`, the only code that imports DVC: it knows every kind of remote, and where the keys are.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from diffse import storage
from diffse.errors import DiffseError

WORKSPACE = "workspace"  # instead of a revision: the files as they are now
_BLOCK = 1 << 20


def copy(root: Path, revision: str, path: str, target: Path) -> int:
    """Write a file that git or DVC tracks to `target`, as it was at `revision`. Returns its size in bytes.

    It comes block by block and needs no room in DVC's cache; a folder is refused. Its MD5, where DVC tracks
    it, is checked before `target` appears. DiffseError for what is not there and for every failure of a store.
    """
    path = _inside(path)
    with storage.atomic_file(target) as temporary, open(temporary, "wb") as stream:
        return _copy(root, revision, path, stream)


def _copy(root: Path, revision: str, path: str, stream: BinaryIO) -> int:
    size, md5 = 0, hashlib.md5(usedforsecurity=False)
    with _told(root, revision, path):
        source, expected = _open(root, revision, path)
        with source:
            while block := source.read(_BLOCK):
                stream.write(block)
                md5.update(block)
                size += len(block)
    if expected and md5.hexdigest() != expected:
        raise DiffseError(f"{path} at {revision}: damaged (its MD5 is not {expected}); push or pull it again")
    return size


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise DiffseError(f"'{path}' leaves the project; give a path inside it")
    return parts.as_posix()


def _open(root: Path, revision: str, path: str) -> tuple[Any, str]:
    """A stream and the MD5 that it must have, "" where none is known."""
    if revision == WORKSPACE:
        return open(root / path, "rb"), ""
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(str(root), rev=revision)
    facts = files.info(path)
    if facts["type"] == "directory":
        raise IsADirectoryError(path)
    return files.open(path, "rb"), facts.get("md5") or ""


@contextlib.contextmanager
def _told(root: Path, revision: str, path: str) -> Iterator[None]:
    """Every failure as one line. DVC and its remotes raise whatever their libraries do."""
    try:
        yield
    except DiffseError:
        raise
    except Exception as error:
        raise DiffseError(_line(root, revision, path, error)) from None


def _line(root: Path, revision: str, path: str, error: Exception) -> str:
    name, text = type(error).__name__, str(error)
    what = f"{path} at {revision}"
    if name == "ModuleNotFoundError":
        return f"{what}: DVC is not installed; install diffse[pipelines]"
    if name in ("NotDvcRepoError", "SCMError"):
        return f"{root}: not a git repository with DVC; versions are revisions of one"
    if name == "RevError":
        return f"'{revision}' is not a git revision here; 'git log --oneline' and 'git tag' show what there is"
    if isinstance(error, IsADirectoryError):
        return f"{what}: a folder; name one file in it"
    if isinstance(error, FileNotFoundError):
        if "No storage files" in text or path not in text:
            return f"{what}: neither in DVC's cache nor in its remote; 'dvc push' it where it was made"
        return f"{what}: no such file in git or DVC"
    if isinstance(error, OSError) and error.filename is not None:
        raise error  # the disk's, not the store's
    return f"{what}: cannot be read from the remote ({name}); check its settings, keys and the network"
