"""Source folders: filled from where a corpus is published, or from a copy in a store."""

import logging
import os
from pathlib import Path, PurePosixPath

from diffse import objects, paths, storage
from diffse.data import archives, downloads
from diffse.data.corpora import registry
from diffse.data.corpora.facts import Download
from diffse.errors import DiffseError
from diffse.progress import tqdm
from diffse.settings import Params

log = logging.getLogger(__name__)

COPIED = ".copied.json"  # object below the prefix -> [ETag, bytes] of what was copied


def fetch(params: Params, corpus: str, root: Path, keep: bool = False) -> dict:
    """Fill `sources/<corpus>`: from `source`, if that is a place in a store, else by downloads; then check it.

    Returns {"files": how many were fetched, "folder": path}. With `keep`, archives stay beside what was
    unpacked. DiffseError: nothing can be fetched because a licence is needed (it says where from), or a
    download, an archive or the layout is wrong.
    """
    if corpus not in params.prepare:
        raise DiffseError(f"'{corpus}' has no entry under 'prepare' (there: {', '.join(params.prepare)})")
    settings, source = params.prepare[corpus], paths.source(Path(root), corpus)
    with storage.exclusive_lock(paths.mixtures(Path(root), corpus).parent, f"fetching or preparing '{corpus}'"):
        if getattr(settings, "source", ""):
            count = copy(settings.source, source)
        else:
            count = _download(settings, corpus, source, keep)
        registry.check(settings, source)
    return {"files": count, "folder": str(source)}


def local(settings: object, source: Path) -> Path:
    """The source folder of a corpus, after copying what is new where it lies in a store."""
    if getattr(settings, "source", ""):
        copy(settings.source, source)
    return source


# ------------------------------------------------------------------------------------------- downloads


def _download(settings: object, corpus: str, source: Path, keep: bool) -> int:
    facts = registry.facts(settings)
    if facts is None:
        raise DiffseError(f"'{corpus}' is no published corpus; put its recordings into {source}")
    wanted = [item for part in facts.parts for item in part.downloads]
    if not wanted:
        registry.check(settings, source)  # says what is missing and where it comes from
        log.info("%s: everything is there; it cannot be downloaded, and need not be", corpus)
        return 0
    count = 0
    for item in wanted:
        # an archive that is still there was not unpacked to its end
        unfinished = item.unpack is not None and not keep and (source / item.name).exists()
        if unfinished or not (item.gives and (source / item.gives).exists()):
            _bring(item, source, keep)
            count += 1
    return count


def _bring(item: Download, source: Path, keep: bool) -> None:
    path = downloads.fetch(item, source)
    if item.unpack is None:
        return
    archives.unpack(path, source / item.unpack)
    if item.gives and not (source / item.gives).exists():
        raise DiffseError(f"{path}: unpacked, but it holds no {item.gives}; is it another version?")
    if not keep:
        path.unlink()


# ----------------------------------------------------------------------------------------- from a store


def copy(url: str, folder: Path) -> int:
    """Copy what is new or changed below `url` into `folder`; returns the number of files copied.

    Objects are compared by ETag and length with what was copied before; a file that was changed here since is
    copied again. What is gone from the store stays. DiffseError: no objects, a key that leads out.
    """
    if not objects.is_url(url):
        raise DiffseError(f"source is '{url}'; give s3://bucket/prefix, or leave it empty and link the folder")
    before = storage.read_json(folder / COPIED) if (folder / COPIED).exists() else {}
    entries = {_name(url, entry.url): entry for entry in objects.listing(url) if not entry.url.endswith("/")}
    if not entries:
        raise DiffseError(f"{url}: holds no objects; check bucket, prefix and endpoint")
    new = [name for name, entry in entries.items() if not _is_copied(folder / name, before.get(name), entry)]
    try:
        for name in tqdm(new, f"copy {url}", unit="file", disable=None):
            objects.download(entries[name].url, folder / name)
            before[name] = [entries[name].etag, entries[name].size]
    finally:
        if new:
            storage.write_json(folder / COPIED, dict(sorted(before.items())))
    return len(new)


def _is_copied(path: Path, copied: list | None, entry: objects.Entry) -> bool:
    return copied == [entry.etag, entry.size] and path.is_file() and os.path.getsize(path) == entry.size


def _name(url: str, object_url: str) -> str:
    """Path of an object below the prefix; a key can be anything, a path must stay inside."""
    name = object_url[len(url.rstrip("/")) + 1 :]
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or str(path) != name or name.startswith(COPIED):
        raise DiffseError(f"{object_url}: its key is no path below the prefix; rename the object")
    return name
