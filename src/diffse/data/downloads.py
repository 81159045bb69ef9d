"""Downloads of public data sets: continued where they broke off, and trusted for their checksum alone.

A file is written beside its name (`.<name>.part`, with what the server said about it in `.<name>.json`) and
takes its name when length and checksum are right. Where nobody publishes a checksum, the first download is
trusted and recorded in `downloads.json` of the source folder; what comes later must be the same.
"""

import hashlib
import json
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from diffse import storage
from diffse.data.corpora.facts import Download
from diffse.errors import DiffseError
from diffse.progress import tqdm

log = logging.getLogger(__name__)

RECORD = "downloads.json"  # name -> {"url", "bytes", "sha256"}
ATTEMPTS = 5  # in a row that bring nothing
WAIT_SECONDS = 2.0  # before the second attempt, doubled before each further one
TIMEOUT_SECONDS = 60.0  # without a single byte
_CHUNK = 1 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HOPELESS = (400, 401, 403, 404, 410, 451)


class _Broken(Exception):
    """A transfer that may be continued."""


@dataclass(frozen=True)
class _Partial:
    """What is there of a file, and by which server's word."""

    path: Path
    facts: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def told(self) -> dict:
        try:
            return json.loads(self.facts.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.facts.unlink(missing_ok=True)


def fetch(download: Download, folder: Path) -> Path:
    """Fetch one file into `folder` and return its path; one that is there and right is not fetched again.

    DiffseError: the server refuses, breaks off time and again, or sends something whose checksum is wrong.
    """
    target, partial = folder / download.name, _partial(folder, download.name)
    folder.mkdir(parents=True, exist_ok=True)
    expected = download.checksum or recorded(folder).get(download.name, {}).get("checksum", "")
    if target.exists() and expected and _matches(target, expected):
        return target
    _require_safe(download.url)
    _transfer(download, partial)
    found = f"sha256:{storage.sha256_file(partial.path)}"
    if expected and not _matches(partial.path, expected):
        size = partial.size
        partial.drop()
        whose = (
            "published for it" if download.checksum else f"recorded at the first download ({folder / RECORD})"
        )
        raise DiffseError(
            f"{download.url}: what arrived ({size} bytes, {found}) is not what is {whose} ({expected}); "
            "nothing of it was kept; try again, or look at the data set's home page for a new version"
        )
    if not expected:
        log.warning(
            "%s: nobody publishes a checksum; %s is recorded and holds from now on", download.name, found
        )
    _record(folder, download, found, partial.size)
    storage.fsync_path(partial.path)
    os.replace(partial.path, target)
    partial.drop()
    return target


def recorded(folder: Path) -> dict[str, dict]:
    """What was downloaded into `folder` before, by name."""
    path = folder / RECORD
    return storage.read_json(path) if path.exists() else {}


def _record(folder: Path, download: Download, checksum: str, size: int) -> None:
    facts = {"url": download.url, "bytes": size, "checksum": checksum}
    storage.write_json(folder / RECORD, dict(sorted((recorded(folder) | {download.name: facts}).items())))


def _partial(folder: Path, name: str) -> _Partial:
    return _Partial(folder / f".{name}.part", folder / f".{name}.json")


def _matches(path: Path, checksum: str) -> bool:
    kind, _, wanted = checksum.partition(":")
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest() == wanted


def _require_safe(url: str) -> None:
    """Nothing is fetched without encryption, except from this machine."""
    place = urllib.parse.urlsplit(url)
    if place.scheme != "https" and not (place.scheme == "http" and place.hostname in _LOOPBACK):
        raise DiffseError(f"{url}: only https addresses are fetched")


# -------------------------------------------------------------------------------------------- transfer


def _transfer(download: Download, partial: _Partial) -> None:
    """Bring the partial file to its full length, by as many requests as it takes while each brings more."""
    fruitless, wait = 0, WAIT_SECONDS
    while True:
        before = partial.size
        try:
            total = _request(download, partial)
            if total is None or partial.size == total:
                return
            raise _Broken(f"ended after {partial.size} of {total} bytes")
        except _Broken as error:
            if partial.size > before:
                fruitless, wait = 0, WAIT_SECONDS
            fruitless += 1
            if fruitless >= ATTEMPTS:
                raise DiffseError(
                    f"{download.url}: {error}; {ATTEMPTS} attempts brought nothing more. What has arrived "
                    f"({partial.size} bytes) is kept; run the command again to go on"
                ) from None
            log.info("%s: %s; going on", download.name, error)
            time.sleep(wait)
            wait *= 2.0


def _request(download: Download, partial: _Partial) -> int | None:
    """One request; returns the length of the whole file by the server, None where it does not say."""
    have, told = partial.size, partial.told()
    headers = {"User-Agent": "diffse", "Accept-Encoding": "identity"}
    if have and told.get("validator"):
        headers |= {"Range": f"bytes={have}-", "If-Range": told["validator"]}
    try:
        with closing(_open(urllib.request.Request(download.url, headers=headers))) as response:
            start, total = _place(response, have)
            if start != have or not have:
                partial.drop()
                start = 0
            if total is None and not response.chunked and not download.checksum:
                raise DiffseError(f"{download.url}: neither its length nor its checksum is known; not fetched")
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            # a weak ETag promises only that the content means the same, which no half file can be joined by
            validator = "" if validator.startswith("W/") else validator
            storage.write_json(partial.facts, {"url": download.url, "validator": validator})
            _append(response, partial.path, start, total, download.name)
            return total
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            if error.headers.get("Content-Range", "").endswith(f"/{have}"):
                return have  # all of it is there: the last run was stopped at the very end
            partial.drop()
            raise _Broken("the server has another file now") from None
        if error.code in _HOPELESS:
            raise DiffseError(f"{download.url}: the server answers {error.code} ({error.reason})") from None
        raise _Broken(f"the server answers {error.code} ({error.reason})") from None
    except urllib.error.URLError as error:
        raise _Broken(f"the server cannot be reached ({error.reason})") from None
    except (HTTPException, ConnectionError, TimeoutError) as error:
        raise _Broken(f"the transfer broke off ({type(error).__name__})") from None


def _open(request: urllib.request.Request) -> HTTPResponse:
    response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    _require_safe(response.url)  # where a redirection led
    return response


def _place(response: HTTPResponse, have: int) -> tuple[int, int | None]:
    """(first byte of what comes, length of the whole file)."""
    if response.status == 206:
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        span, _, total = rest.partition("/")
        first = span.partition("-")[0]
        if unit == "bytes" and first.isdigit() and int(first) == have:
            return have, int(total) if total.isdigit() else None
        raise _Broken("the server sends another part than it was asked for")
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _append(response: HTTPResponse, path: Path, start: int, total: int | None, name: str) -> None:
    with (
        open(path, "ab") as stream,
        tqdm(desc=name, total=total, initial=start, unit="B", unit_scale=True, disable=None) as progress,
    ):
        for chunk in _chunks(response):
            stream.write(chunk)
            progress.update(len(chunk))


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read1(_CHUNK):
        yield chunk
