"""Unpacking of archives from outside: whole or not at all, and nowhere but into the folder that was named."""

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from diffse import storage
from diffse.errors import DiffseError

_SPARE_BYTES = 1 << 26  # left free on the disk
_WORTHLESS = ("__MACOSX", ".DS_Store")  # what a Mac adds to archives

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError)
_DAMAGED += (RuntimeError,)  # encrypted, or packed by a method that Python does not know


def unpack(archive: Path, folder: Path) -> list[str]:
    """Unpack a zip or tar file into `folder` and return the names at its top.

    What has one of these names already is replaced. Everything is unpacked into a hidden folder first, so that
    a stop leaves nothing half. DiffseError: no archive, damaged, encrypted, no room on the disk, or a member
    that leads out of the folder, or that is neither file nor folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f".{archive.name}.unpacking"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        _unpack(archive, work)
        names = sorted(os.listdir(work))
        for name in names:
            _move(work / name, folder / name)
        storage.fsync_path(folder)
        return names
    except _DAMAGED as error:
        raise DiffseError(f"{archive}: cannot be unpacked ({error}); fetch it again") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _unpack(archive: Path, work: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            _check_room(archive, work, sum(member.file_size for member in members))
            for member in members:
                mode = member.external_attr >> 16
                if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DiffseError(f"{archive}: member '{member.filename}' is no plain file; not unpacked")
                for target in _targets(archive, member.filename, work, member.is_dir()):
                    with packed.open(member) as stream:
                        _write(stream, target, member.file_size, archive)
        return
    if not tarfile.is_tarfile(archive):
        raise DiffseError(f"{archive}: neither a zip nor a tar file; fetch it again")
    with tarfile.open(archive) as packed:
        for member in packed:
            if not (member.isfile() or member.isdir()):
                raise DiffseError(f"{archive}: member '{member.name}' is no plain file; not unpacked")
            _check_room(archive, work, member.size)
            for target in _targets(archive, member.name, work, member.isdir()):
                _write(packed.extractfile(member), target, member.size, archive)


def _targets(archive: Path, name: str, work: Path, is_folder: bool) -> Iterator[Path]:
    """Where a member is written: one path, or none for a folder and for what is worth nothing."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in name[:2]
    if outside:
        raise DiffseError(f"{archive}: member '{name}' leads out of the folder; nothing of it was unpacked")
    if not path.parts or path.parts[0] in _WORTHLESS or path.name in _WORTHLESS:
        return
    target = work.joinpath(*path.parts)
    (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
    if not is_folder:
        yield target


def _write(source, target: Path, size: int, archive: Path) -> None:
    """Write a member; a member that holds more than its header says is a trap."""
    written = 0
    with open(target, "wb") as stream:
        while chunk := source.read(1 << 20):
            written += len(chunk)
            if written > size:
                raise DiffseError(f"{archive}: '{target.name}' is larger than it claims to be; not unpacked")
            stream.write(chunk)


def _check_room(archive: Path, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise DiffseError(
            f"{archive}: needs {needed / 1e9:.1f} GB unpacked, but the disk has {free / 1e9:.1f} GB free"
        )


def _move(source: Path, target: Path) -> None:
    """Merge a folder into one that is there (archives of many parts share theirs), replace a file."""
    if source.is_dir() and target.is_dir():
        for name in sorted(os.listdir(source)):
            _move(source / name, target / name)
        return
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)
