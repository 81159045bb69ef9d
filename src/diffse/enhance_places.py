"""Which files `diffse enhance IN OUT` enhances, and where they go: folders, or objects of a store (s3://)."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from diffse import audio, objects
from diffse.errors import DiffseError

Place = Path | str  # a local path, or the URL of an object


@dataclass(frozen=True)
class Job:
    """One recording."""

    source: Place
    target: Place
    key: str  # its name below the source: of which its noise is drawn, wherever it lies


def plan(source: Place, target: Place) -> list[Job]:
    """All recordings of a file, folder, object or prefix, in the order of their names.

    DiffseError when there is nothing to do, or when a recording would be overwritten.
    """
    keys = _objects(str(source), target) if objects.is_url(source) else _files(Path(source), target)
    if keys is None:  # one recording
        name = PurePosixPath(str(source)).name
        jobs = [Job(source, _one_target(target, name), name)]
    else:
        jobs = [Job(_below(source, key), _below(target, key), key) for key in keys]
    if not jobs:
        raise DiffseError(f"{source}: no {', '.join(audio.SUFFIXES)} files in this folder")
    for job in jobs:
        if _same(job.source, job.target):
            raise DiffseError(f"{job.target}: would overwrite its own input; choose another output")
    return jobs


def shard_of(jobs: list[Job], shard: str) -> list[Job]:
    """Part i of n equal parts, for "i/n" with i from 1 (DiffseError if it is written otherwise)."""
    part, slash, count = shard.partition("/")
    if not (slash and part.isdecimal() and count.isdecimal() and 1 <= int(part) <= int(count)):
        raise DiffseError(f"--shard is '{shard}'; write I/N with I from 1 to N, for example 2/5")
    return jobs[int(part) - 1 :: int(count)]


def exists(place: Place) -> bool:
    """Whether a file or an object is there."""
    return objects.exists(str(place)) if objects.is_url(place) else Path(place).exists()


@contextlib.contextmanager
def here(job: Job) -> Iterator[tuple[Path, Path]]:
    """The recording as a local file, and a local file to write, which is then brought to its place."""
    with contextlib.ExitStack() as stack:
        files = []
        for place in (job.source, job.target):
            file = Path(place)
            if objects.is_url(place):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="diffse-"))
                file = Path(folder, PurePosixPath(str(place)).name)
            files.append(file)
        if objects.is_url(job.source):
            objects.download(str(job.source), files[0])
        try:
            yield files[0], files[1]
        except DiffseError as error:  # tell it of the places that the user knows
            text = str(error).replace(str(files[0]), str(job.source))
            raise DiffseError(text.replace(str(files[1]), str(job.target))) from None
        if objects.is_url(job.target):
            objects.upload(files[1], str(job.target))


def _files(source: Path, target: Place) -> list[str] | None:
    """Names below a folder; None for a single file."""
    if source.is_file():
        return None
    if not source.is_dir():
        raise DiffseError(f"{source}: no such file or folder")
    if not objects.is_url(target) and Path(target).is_file():
        raise DiffseError(f"{target}: is a file; a folder of recordings needs a folder to go to")
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in audio.SUFFIXES and p.is_file())
    if not objects.is_url(target) and Path(target).resolve() != source.resolve():
        # what an earlier run wrote inside `source` is no input
        found = [file for file in found if Path(target).resolve() not in file.resolve().parents]
    return [str(file.relative_to(source)) for file in found]


def _objects(source: str, target: Place) -> list[str] | None:
    """Names below a prefix; None for a single object."""
    if _is_audio(source) and objects.exists(source):
        return None
    base = source.rstrip("/") + "/"
    earlier = f"{str(target).rstrip('/')}/"  # what an earlier run wrote below `source` is no input
    found = [entry.url for entry in objects.listing(source) if _is_audio(entry.url)]
    if earlier != base:
        found = [url for url in found if not url.startswith(earlier)]
    keys = [url.removeprefix(base) for url in found]
    for key in keys:
        if key.startswith("/") or ".." in key.split("/"):
            raise DiffseError(f"{base}{key}: this name leads out of the folder that it would be written to")
    return sorted(keys)


def _is_audio(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in audio.SUFFIXES


def _one_target(target: Place, name: str) -> Place:
    if objects.is_url(target):
        return str(target) if _is_audio(str(target)) else objects.join(str(target), name)
    out = Path(target) / name if Path(target).is_dir() else Path(target)
    if not _is_audio(out.name):
        raise DiffseError(f"{out}: name an output file with one of {', '.join(audio.SUFFIXES)}, or a folder")
    return out


def _below(place: Place, key: str) -> Place:
    return objects.join(str(place), key) if objects.is_url(place) else Path(place) / key


def _same(first: Place, second: Place) -> bool:
    if objects.is_url(first) or objects.is_url(second):
        return str(first) == str(second)
    same = os.path.abspath(first) == os.path.abspath(second)
    return same or (Path(second).exists() and os.path.samefile(first, second))
