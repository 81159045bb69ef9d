"""Pages of remote files on the local disk: bounded, checked, and shared by any number of processes.

A page is stored under its own SHA-256, so two processes that write the same page write the same bytes, and a
damaged one is noticed when it is next opened. Pages appear by renaming and go when the folder exceeds its
limit, those unused for the longest time first; whoever still maps one keeps it.
"""

import contextlib
import fcntl
import hashlib
import logging
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from diffse.errors import DiffseError

FOLDER = "DIFFSE_PAGES"  # variable: where pages are kept
LIMIT = "DIFFSE_PAGES_GB"  # variable: how much they may take
DEFAULT_GB = 20.0
_OPEN = 128  # pages mapped at a time by one process, well below the usual limit of open files
_SLACK = 16  # the folder is looked through again after a sixteenth of the limit has been written

log = logging.getLogger(__name__)


class PageCache:
    """Pages below `folder`, at most `limit` bytes of them."""

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit
        self._open: OrderedDict[str, mmap.mmap] = OrderedDict()  # checked by this process
        self._lock = threading.Lock()
        self._unseen = limit  # bytes written since the folder was last looked through
        self._full = False

    def get(self, sha256: str) -> memoryview | None:
        """A page by its checksum; None when it is not here, or not in order."""
        with self._lock:
            if sha256 in self._open:
                self._open.move_to_end(sha256)
                return memoryview(self._open[sha256])
        path = self._path(sha256)
        try:
            with open(path, "rb") as stream:
                page = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            if hashlib.sha256(page).hexdigest() != sha256:
                path.unlink(missing_ok=True)
                return None
            os.utime(path)  # used now: others go first
        except (OSError, ValueError):  # not there, empty, or taken away meanwhile
            return None
        self._keep(sha256, page)
        return memoryview(page)

    def put(self, sha256: str, page: bytes) -> None:
        """Keep a page, if there is room for it: a full disk must not end a training."""
        path = self._path(sha256)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(page)
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            if not self._full:
                log.warning("%s: pages cannot be kept (%s); they are read again", self.folder, error.strerror)
            self._full = True
        with self._lock:
            self._unseen += len(page)
            due = self._unseen * _SLACK >= self.limit
            self._unseen = 0 if due else self._unseen
        if due:
            self._shrink()

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def _keep(self, sha256: str, page: mmap.mmap) -> None:
        with self._lock:
            self._open[sha256] = page
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)  # unmapped when its last reader is done

    def _shrink(self) -> None:
        """Delete the pages that were not used for the longest time, and what killed writers left."""
        with self._alone() as alone:
            if not alone:
                return  # another process is at it
            found = []
            for path in self.folder.glob("*/*"):
                with contextlib.suppress(OSError):
                    facts = path.stat()
                    found.append((facts.st_mtime, facts.st_size, path))
            excess = sum(size for _, size, _ in found) - self.limit
            for _, size, path in sorted(found):
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= size

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        try:
            with open(self.folder / ".lock", "a") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield True
        except OSError:
            yield False


def from_environment() -> PageCache:
    """The page cache that the variables describe; by default 20 GB in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get(FOLDER) or home / "diffse" / "pages")
    given = os.environ.get(LIMIT) or str(DEFAULT_GB)
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < 1e9:
        raise DiffseError(f"{LIMIT} is '{given}'; give a size in GB, such as 20")
    return PageCache(folder, int(gigabytes * 1e9))
