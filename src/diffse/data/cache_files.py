"""Where the files of a cache are: in a local folder, mapped, or in a store, read page by page.

A cache that is not in its folder is read from the store if the variable `DIFFSE_CACHES` says from where:
`s3://bucket/prefix` for `<prefix>/<corpus>/cache/...`, or `dvc` for the project's DVC remote, in exactly the
version that `dvc.lock` names. Pages come from the store once and stay in the page cache.
"""

import functools
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from diffse import dvc_remotes, objects
from diffse.data import page_cache
from diffse.errors import DiffseError

SOURCE = "DIFFSE_CACHES"
PAGE_BYTES = 1 << 20
CHECKSUMS = "checksums.npy"


class Files(Protocol):
    """The files of one cache."""

    name: str  # of the place, for messages

    def read(self, file: str) -> bytes:
        """All of a small file. FileNotFoundError when there is none."""

    def array(self, file: str, page_sums: np.ndarray) -> Any:
        """An array that is cut along its first axis: shape, dtype, [first:last]."""


class LocalFiles:
    """Files of a folder."""

    def __init__(self, folder: Path):
        self.folder, self.name = folder, str(folder)

    def read(self, file: str) -> bytes:
        return (self.folder / file).read_bytes()

    def array(self, file: str, page_sums: np.ndarray) -> "CheckedArray":
        return CheckedArray(self.folder / file, page_sums)


class CheckedArray:
    """A mapped .npy file whose pages are compared with their checksums when they are first used.

    Version control trusts a file whose size and time did not change, and so would a training.
    """

    def __init__(self, path: Path, page_sums: np.ndarray):
        self.path, self._sums = path, page_sums
        # copy-on-write, although nobody writes: torch takes no read-only arrays without a warning
        self._values = np.load(path, mmap_mode="c", allow_pickle=False)
        self.shape, self.dtype = self._values.shape, self._values.dtype
        self._start, self._row_bytes = self._values.offset, self._values[:1].nbytes
        self._bytes = np.memmap(path, np.uint8, "r")
        self._checked = np.zeros(-(-self._bytes.size // PAGE_BYTES), bool)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows first ... last - 1: mapped, not copied."""
        first, last, _ = rows.indices(self.shape[0])
        begin, end = (self._start + row * self._row_bytes for row in (first, max(last, first + 1)))
        pages = slice(begin // PAGE_BYTES, -(-end // PAGE_BYTES))
        if not self._checked[pages].all():
            self._check(pages)
        return self._values[first:last]

    def _check(self, pages: slice) -> None:
        for number in range(pages.start, pages.stop):
            page = self._bytes[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
            if not self._checked[number] and hashlib.sha256(page).digest() != self._stated(number):
                raise DiffseError(
                    f"{self.path}: damaged (page {number} is not what was written); write the cache again"
                )
            self._checked[number] = True

    def _stated(self, number: int) -> bytes:
        return bytes(self._sums[number]) if number < len(self._sums) else b""


class RemoteFiles:
    """Files of a store; `locate` gives the location of one, or None, `md5` its checksum if known."""

    def __init__(self, name: str, locate: Callable[[str], tuple[str | None, str]]):
        self.name, self._locate = name, locate
        self._pages = page_cache.from_environment()

    def read(self, file: str) -> bytes:
        url, md5 = self._locate(file)
        if url is None or not objects.exists(url):
            raise FileNotFoundError(file)
        data = objects.read(url)
        if md5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise DiffseError(f"{url}: damaged (MD5 is not {md5}); push it again")
        return data

    def array(self, file: str, page_sums: np.ndarray) -> "PagedArray":
        url, _ = self._locate(file)
        if url is None:
            raise FileNotFoundError(file)
        return PagedArray(url, page_sums, self._pages)


class PagedArray:
    """A .npy file in a store. `page_sums`: uint8 [pages, 32], SHA-256 of its pages of PAGE_BYTES."""

    def __init__(self, url: str, page_sums: np.ndarray, pages: page_cache.PageCache):
        self.url, self._pages = url, pages
        self._sums = [bytes(row).hex() for row in page_sums]
        stream = io.BytesIO(bytes(self._page(0)))
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"a header of version {version}")
        self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(stream)
        self._start = stream.tell()
        self._row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows first ... last - 1, copied."""
        first, last, _ = rows.indices(self.shape[0])
        values = np.empty((max(last - first, 0), *self.shape[1:]), self.dtype)
        target, begin = values.reshape(-1).view(np.uint8), self._start + first * self._row_bytes
        numbers = range(begin // PAGE_BYTES, -(-(begin + target.size) // PAGE_BYTES))
        for number, page in zip(numbers, self._all(numbers), strict=True):
            offset = number * PAGE_BYTES - begin
            low, high = max(offset, 0), min(offset + len(page), target.size)
            target[low:high] = np.frombuffer(page, np.uint8)[low - offset : high - offset]
        return values

    def _page(self, number: int) -> memoryview | bytes:
        return self._all(range(number, number + 1))[0]

    def _all(self, numbers: range) -> list[memoryview | bytes]:
        """Pages that follow each other; those that are not here come with one request for each gap."""
        if numbers and numbers[-1] >= len(self._sums):
            raise ValueError("its checksums end before its data")
        found = {number: self._pages.get(self._sums[number]) for number in numbers}
        missing = [number for number, page in found.items() if page is None]
        while missing:
            run = [number for place, number in enumerate(missing) if number == missing[0] + place]
            found |= self._fetch(run)
            missing = missing[len(run) :]
        return [found[number] for number in numbers]

    def _fetch(self, run: list[int]) -> dict[int, bytes]:
        data = objects.read(self.url, run[0] * PAGE_BYTES, len(run) * PAGE_BYTES)
        fetched = {}
        for place, number in enumerate(run):
            page = data[place * PAGE_BYTES : (place + 1) * PAGE_BYTES]
            if hashlib.sha256(page).hexdigest() != self._sums[number]:
                raise DiffseError(
                    f"{self.url}: damaged (page {number} is not what was written); store it again"
                )
            self._pages.put(self._sums[number], page)
            fetched[number] = page
        return fetched


class PageSums:
    """SHA-256 of the pages of a stream."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._page, self._room = hashlib.sha256(), PAGE_BYTES

    def update(self, data: memoryview) -> None:
        while len(data):
            piece, data = data[: self._room], data[self._room :]
            self._page.update(piece)
            self._room -= len(piece)
            if self._room == 0:
                self._end_page()

    def finish(self) -> np.ndarray:
        """uint8 [pages, 32]."""
        if self._room < PAGE_BYTES:
            self._end_page()
        return np.frombuffer(b"".join(self._digests), np.uint8).reshape(-1, 32)

    def _end_page(self) -> None:
        self._digests.append(self._page.digest())
        self._page, self._room = hashlib.sha256(), PAGE_BYTES


def files_of(folder: Path) -> Files:
    """The files of the cache that belongs in `folder`: those there, otherwise those in the store."""
    source = os.environ.get(SOURCE, "")
    if not source or (folder / "cache.json").is_file():
        return LocalFiles(folder)
    if objects.is_url(source):
        place = objects.join(source, folder.parent.name, folder.name)
        return RemoteFiles(place, lambda file: (objects.join(place, file), ""))
    if source != "dvc":
        raise DiffseError(f"{SOURCE} is '{source}'; give s3://bucket/prefix, or dvc for the DVC remote")
    return RemoteFiles(f"{folder} in the DVC remote", functools.partial(_tracked, _content(folder)))


def _content(folder: Path) -> dict[str, tuple[str, str]]:
    root = dvc_remotes.project_of(folder)
    return dvc_remotes.content(root, folder.resolve().relative_to(root), objects.read)


def _tracked(content: dict[str, tuple[str, str]], file: str) -> tuple[str | None, str]:
    return content.get(file, (None, ""))
