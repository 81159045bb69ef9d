"""Objects of an S3-compatible store, `s3://bucket/key`: the only code that imports boto3.

Credentials, region and endpoint come from the standard variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, ...) or, where these are not set, from the DVC remote in the same bucket (`.dvc/config` and
`.dvc/config.local` of the folder or one above it). They are given to boto3 and to nobody else.

A transfer that stalls or breaks off is continued from where it stopped, a few times. What does not arrive
whole is a DiffseError of one line: lengths are compared always, checksums where the store knows them.
"""

import contextlib
import datetime
import functools
import hashlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from diffse import storage
from diffse.dvc_remotes import remote_of
from diffse.errors import DiffseError

if TYPE_CHECKING:
    from botocore.client import BaseClient

CONNECT_SECONDS = 10
READ_SECONDS = 30  # without a single byte
ATTEMPTS = 4  # of a request, and of continuing a transfer that brings nothing more
CHUNK = 1 << 20
PART = 16 << 20  # of a multipart upload; larger files are sent in parts
SHA256 = "sha256"  # metadata of every object that diffse writes

_MD5 = re.compile(r"[0-9a-f]{32}")
_lock = threading.Lock()  # making a client is not thread-safe, using one is


@dataclass(frozen=True)
class Entry:
    """One object."""

    url: str
    size: int  # bytes
    modified: datetime.datetime
    etag: str


# --------------------------------------------------------------------------------------------- locations


def is_url(location: object) -> bool:
    """Whether a location is an object or a prefix of a store rather than a local path."""
    return str(location).startswith("s3://")


def split(url: str) -> tuple[str, str]:
    """`s3://bucket/key` -> (bucket, key); the key may be empty. DiffseError for anything else."""
    bucket, _, key = str(url).removeprefix("s3://").partition("/")
    if not is_url(url) or not bucket:
        raise DiffseError(f"'{url}' is not a location in a store; write s3://bucket/path")
    return bucket, key


def join(url: str, *parts: str) -> str:
    """A location below another one."""
    return "/".join((url.rstrip("/"), *parts))


# ----------------------------------------------------------------------------------------------- reading


def exists(url: str) -> bool:
    """Whether there is such an object."""
    return _head(url) is not None


def entry(url: str) -> Entry:
    """Size, time and ETag of an object; DiffseError when there is none."""
    found = _head(url)
    if found is None:
        raise DiffseError(f"{url}: no such object")
    return Entry(url, found["ContentLength"], found["LastModified"], found["ETag"].strip('"'))


def listing(url: str) -> Iterator[Entry]:
    """All objects below a prefix, by key: `s3://bucket/a` lists a/b and a/b/c, but neither a nor ab."""
    bucket, prefix = split(url)
    prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
    with _told(url):
        for page in _client(bucket).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for found in page.get("Contents", ()):
                place = f"s3://{bucket}/{found['Key']}"
                yield Entry(place, found["Size"], found["LastModified"], found["ETag"].strip('"'))


def read(url: str, start: int | None = None, length: int | None = None) -> bytes:
    """Bytes start ... start + length - 1 of an object, all of it by default.

    A range beyond the end gives what is there. DiffseError when there is no such object, when the store
    refuses or does not answer, and when what arrives is not whole.
    """
    if start is None and length is None:
        return b"".join(_whole(url))
    first = start or 0
    if first < 0 or (length is not None and length < 0):
        raise ValueError(f"no range: start {start}, length {length}")
    return b"" if length == 0 else b"".join(_Transfer(url, first, length))


def download(url: str, path: Path | str) -> None:
    """Copy an object to a local file, which appears when it is complete."""
    with storage.atomic_file(path) as temporary, open(temporary, "wb") as stream:
        for chunk in _whole(url):
            _keep(stream, chunk, Path(path))


def _keep(stream: BinaryIO, chunk: bytes, path: Path) -> None:
    try:
        stream.write(chunk)
    except OSError as error:
        raise DiffseError(f"{path}: cannot be written ({os.strerror(error.errno)})") from None


def _whole(url: str) -> Iterator[bytes]:
    """All of an object in pieces; a checksum that does not fit is raised after the last one."""
    transfer = _Transfer(url, 0, None)
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for chunk in transfer:
        sha256.update(chunk)
        md5.update(chunk)
        yield chunk
    stated = transfer.facts.get("Metadata", {}).get(SHA256)
    if stated is not None and stated != sha256.hexdigest():
        raise DiffseError(f"{url}: damaged (its SHA-256 is not the one it was stored with); store it again")
    if transfer.md5 is not None and transfer.md5 != md5.hexdigest():
        raise DiffseError(f"{url}: arrived damaged (its MD5 is not the store's ETag); try again")


class _Transfer:
    """Bytes of an object, piece by piece; continues where the connection broke. `facts`: first response."""

    def __init__(self, url: str, start: int, length: int | None):
        self.url, self.start, self.length = url, start, length
        self.facts: dict[str, Any] = {}

    @property
    def md5(self) -> str | None:
        """MD5 of the whole object where the ETag is that: not for several parts or a key of one's own."""
        etag, encryption = self.facts["ETag"].strip('"'), self.facts.get("ServerSideEncryption", "")
        encrypted = "SSECustomerAlgorithm" in self.facts or "kms" in encryption
        return etag if _MD5.fullmatch(etag) and not encrypted else None

    def __iter__(self) -> Iterator[bytes]:
        done, failures = 0, 0
        while True:
            before = done
            try:
                for chunk in self._request(done):
                    done += len(chunk)
                    yield chunk
                return
            except _BrokenOff as error:
                failures = 1 if done > before else failures + 1
                if failures == ATTEMPTS:
                    raise DiffseError(f"{self.url}: {error} after {done} bytes; try again") from None

    def _request(self, done: int) -> Iterator[bytes]:
        """The response from byte `start + done` on."""
        bucket, key = split(self.url)
        options = {"Bucket": bucket, "Key": key}
        if self.start + done or self.length is not None:
            last = "" if self.length is None else self.start + self.length - 1
            options["Range"] = f"bytes={self.start + done}-{last}"
        if self.facts:
            options["IfMatch"] = self.facts["ETag"]
        with _told(self.url):
            try:
                response = _client(bucket).get_object(**options)
            except _client(bucket).exceptions.ClientError as error:
                if _status(error) == 416:  # the range begins behind the end
                    return
                raise
        if "Range" in options and not response.get("ContentRange", "").startswith(
            f"bytes {self.start + done}-"
        ):
            raise DiffseError(f"{self.url}: the store sends another part than it was asked for")
        self.facts = self.facts or response
        yield from _pieces(response)


class _BrokenOff(Exception):
    """The connection ended or stalled before the response was complete."""


def _pieces(response: dict[str, Any]) -> Iterator[bytes]:
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    arrived = 0
    try:
        for chunk in response["Body"].iter_chunks(CHUNK):
            arrived += len(chunk)
            yield chunk
    except (BotoCoreError, HTTPError, OSError) as error:
        stalled = "Timeout" in type(error).__name__
        raise _BrokenOff(f"nothing came for {READ_SECONDS} s" if stalled else "the connection broke") from None
    finally:
        response["Body"].close()
    if arrived != response["ContentLength"]:
        raise _BrokenOff("the connection broke")


# ----------------------------------------------------------------------------------------------- writing


def write(url: str, data: bytes) -> None:
    """Store `data` as an object; readers see the old object or the new one."""
    bucket, key = split(url)
    with _told(url):
        _client(bucket).put_object(
            Bucket=bucket, Key=key, Body=data, Metadata={SHA256: hashlib.sha256(data).hexdigest()}
        )


def upload(path: Path | str, url: str) -> None:
    """Store a local file as an object, large ones in parts; it appears when it is complete."""
    from boto3.s3.transfer import TransferConfig

    path = Path(path)
    if not path.is_file():
        raise DiffseError(f"{path}: no such file")
    bucket, key = split(url)
    config = TransferConfig(multipart_threshold=2 * PART, multipart_chunksize=PART, max_concurrency=4)
    facts = {"Metadata": {SHA256: storage.sha256_file(path)}}
    with _told(url):
        _client(bucket).upload_file(str(path), bucket, key, ExtraArgs=facts, Config=config)
    stored = entry(url).size
    if stored != path.stat().st_size:
        raise DiffseError(f"{url}: holds {stored} of {path.stat().st_size} bytes of {path}; upload it again")


def delete(url: str) -> None:
    """Delete an object; one that is not there is no error."""
    bucket, key = split(url)
    with _told(url):
        _client(bucket).delete_object(Bucket=bucket, Key=key)


# ---------------------------------------------------------------------------------------------- requests


def _head(url: str) -> dict[str, Any] | None:
    bucket, key = split(url)
    if not key or key.endswith("/"):
        return None
    with _told(url):
        client = _client(bucket)
        try:
            return client.head_object(Bucket=bucket, Key=key)
        except client.exceptions.ClientError as error:
            if _status(error) == 404:
                return None
            raise


def _client(bucket: str) -> "BaseClient":
    """A client per process, because connections must not be shared across a fork, and per environment."""
    standard = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    with _lock:
        return _new_client(bucket, os.getcwd(), os.getpid(), standard)


@functools.lru_cache(maxsize=16)
def _new_client(bucket: str, folder: str, process: int, standard: tuple) -> "BaseClient":
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        request_checksum_calculation="when_required",  # what came after it is unknown to other stores than AWS
    )
    return boto3.Session().client("s3", config=config, **remote_of(bucket, Path(folder), dict(standard)))


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Failures of boto3 as one line, in our own words: its texts can hold whatever a server sent."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise DiffseError(f"{url}: {_refusal(error, split(url)[0])}") from None
    except (BotoCoreError, Boto3Error, OSError) as error:
        raise DiffseError(f"{url}: {_failure(error)}") from None


def _status(error: Any) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _refusal(error: Any, bucket: str) -> str:
    code, status = error.response.get("Error", {}).get("Code", ""), _status(error)
    code = code if re.fullmatch(r"[A-Za-z0-9]{1,40}", code) else "no reason given"
    if code == "NoSuchBucket":
        return f"there is no bucket '{bucket}'"
    if status == 404:
        return "no such object"
    if status == 412:
        return "changed while it was read; try again"
    if status in (401, 403):
        return f"the store refuses access ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return f"the store answers with error {status} ({code}); try again later"


def _failure(error: BaseException) -> str:
    name = type(error).__name__
    if "Credential" in name:
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or those of the DVC remote"
    if "Timeout" in name:
        return f"the store does not answer within {READ_SECONDS} s; check AWS_ENDPOINT_URL, or try again later"
    if isinstance(error, OSError) and error.errno:
        return f"{os.strerror(error.errno)}"
    if "Connect" in name or "Endpoint" in name or "SSL" in name:
        return f"the store cannot be reached ({name}); check AWS_ENDPOINT_URL and the network"
    return f"the transfer failed ({name}); try again"
