"""Where artifacts live, and how they are written: beside the target first, then renamed.

A reader therefore sees an old artifact or a new one, never half of one, and a killed writer leaves
what the user had before.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from diffse.errors import DiffseError


def fsync_path(path: Path) -> None:
    """Force one file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def start_writing(stream: BinaryIO) -> None:
    """Let the system begin to write a file to disk, without waiting: the `fsync` at the end is then short."""
    stream.flush()
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with contextlib.suppress(OSError):  # advice, which not every file system takes
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the name `path`, on failure it goes.

    The temporary name keeps the suffix, because audio and table writers choose the format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path, f".{path.stem}.", f".partial{path.suffix}")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        fsync_path(temporary)
        os.replace(temporary, path)
        fsync_path(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it replaces `path`, on failure it goes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path, f".{path.name}.", ".partial")
    _remove_abandoned(path, f".{path.name}.", ".replaced")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.mkdir()
    try:
        yield temporary
        for item in temporary.rglob("*"):
            fsync_path(item)
        replaced = path.with_name(f".{path.name}.{os.getpid()}.replaced")
        if path.exists():
            os.replace(path, replaced)
        os.replace(temporary, path)
        fsync_path(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(path: Path, before: str, after: str) -> None:
    """Delete what killed writers of `path` left beside it; what a living writer works on is not touched."""
    for name in os.listdir(path.parent):
        process, leftover = name.removeprefix(before).removesuffix(after), path.parent / name
        if name != f"{before}{process}{after}" or not process.isdigit() or _is_another_process(process):
            continue
        if after == ".replaced" and not path.exists():
            os.replace(leftover, path)  # killed between the two renames: the old artifact comes back
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _is_another_process(number: str) -> bool:
    """Our own number was a dead process's: in a container that starts again, all numbers come back."""
    return int(number) != os.getpid() and Path("/proc", number).exists()


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinities are refused (ValueError)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path | str) -> object:
    """Read JSON; a missing or damaged file is a DiffseError that names it."""
    path = Path(path)
    try:
        return parse_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise DiffseError(f"{path}: no such file; run the stage that writes it") from None


def parse_json(data: bytes, name: str) -> object:
    """The JSON in `data`; damaged JSON is a DiffseError that calls it `name`."""
    try:
        return json.loads(data.decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DiffseError(f"{name}: not valid JSON ({error}); delete it and run its stage again") from None


def sha256_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def exclusive_lock(folder: Path | str, purpose: str) -> Iterator[None]:
    """Hold `<folder>/.lock` while the block runs; a second holder gets a DiffseError at once.

    The kernel drops the lock when its process dies, so a killed run never leaves a stale one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise DiffseError(
                f"{folder}: {purpose} is already running here (process {holder}); wait for it or stop it"
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
