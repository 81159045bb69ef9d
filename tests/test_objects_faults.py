"""A store that refuses, is slow, breaks off or sends something wrong: resumed, or one clear line.

Whatever happens, nothing that did not arrive whole is taken for whole, and what was there before stays.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import faulty_store
import numpy as np
import pytest
import torch
from faulty_store import Fault
from small_mixtures import write_mixtures

from diffse import objects, paths
from diffse.data import cache_files, page_cache, sources, stft_cache
from diffse.data.batches import Prefetcher, cached_crops
from diffse.data.cache_files import PAGE_BYTES
from diffse.errors import DiffseError
from diffse.settings import Stft

DATA = np.random.default_rng(0).bytes(5 * objects.CHUNK + 1000)
ALWAYS = [Fault("cut", 0)] * 20


@pytest.fixture(scope="module")
def in_front(_store_server) -> Iterator[faulty_store.Proxy]:
    with faulty_store.in_front_of(_store_server) as proxy:
        yield proxy


@pytest.fixture
def proxy(in_front, store, monkeypatch) -> faulty_store.Proxy:
    """A proxy in front of the store; the standard variables lead to it. Waiting is short."""
    from botocore.retries.standard import ExponentialBackoff

    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)
    monkeypatch.setattr(objects, "READ_SECONDS", 0.3)
    in_front.heal()
    monkeypatch.setenv("AWS_ENDPOINT_URL", in_front.address)
    return in_front


@pytest.fixture
def url(proxy, store) -> str:
    objects.write(f"{store}/data.bin", DATA)
    proxy.heal()
    return f"{store}/data.bin"


@pytest.fixture
def old(tmp_path) -> Path:
    """A local file that a download is to replace."""
    path = tmp_path / "data.bin"
    path.write_bytes(b"what was there before")
    return path


def fails(action, *words: str) -> None:
    with pytest.raises(DiffseError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    assert "<" not in text, "no words of the server"
    for word in words:
        assert word in text, text


# ---------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("cut", 3 * objects.CHUNK + 7)],
        [Fault("cut", 100), Fault("cut", objects.CHUNK), Fault("cut", 0), Fault("cut", 2 * objects.CHUNK)],
        [Fault("stall", 2 * objects.CHUNK)],
        [Fault("busy"), Fault("busy")],
        [Fault("silent")],
        [Fault("cut", 2 * objects.CHUNK), Fault("busy"), Fault("cut", 10)],
    ],
    ids=["cut", "cut often", "stalled", "busy", "no answer", "all together"],
)
def test_what_breaks_off_is_continued(proxy, url, old, faults):
    proxy.faults = list(faults)
    objects.download(url, old)
    assert old.read_bytes() == DATA
    assert not proxy.faults
    assert [item.name for item in old.parent.iterdir()] == [old.name]


def test_it_goes_on_from_where_it_stopped(proxy, url):
    proxy.faults = [Fault("cut", 3 * objects.CHUNK + 7)]
    assert objects.read(url) == DATA
    first, second = (span for _, _, span in proxy.asked)
    assert first == ""
    assert 2 * objects.CHUNK < int(second.removeprefix("bytes=").rstrip("-")) <= 3 * objects.CHUNK + 7
    proxy.faults = [Fault("cut", 1000)]
    assert objects.read(url, 500, 4000) == DATA[500:4500]


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([Fault("refuse")], ("the store refuses access (AccessDenied)", "check AWS_ACCESS_KEY_ID")),
        (ALWAYS, ("the connection broke after 0 bytes; try again",)),
        ([Fault("stall", 10)] * 20, ("nothing came for 0.3 s after",)),
        ([Fault("silent")] * 20, ("the store does not answer within 0.3 s", "try again later")),
        ([Fault("busy")] * 20, ("answers with error 503 (SlowDown); try again later",)),
        ([Fault("cut", 9 * objects.CHUNK // 2), Fault("refuse")], ("the store refuses access",)),
        ([Fault("flip", 4 * objects.CHUNK)], ("damaged", "SHA-256")),
        ([Fault("cut", objects.CHUNK), Fault("flip", 5)], ("damaged", "SHA-256")),
        ([Fault("cut", 2 * objects.CHUNK), Fault("whole")], ("sends another part than it was asked for",)),
    ],
    ids=["refused", "cut", "stalled", "no answer", "busy", "refused later", "flip", "flip later", "no ranges"],
)
def test_what_does_not_arrive_is_one_line_and_leaves_nothing(proxy, url, old, faults, words, monkeypatch):
    monkeypatch.setattr(objects, "ATTEMPTS", 2)
    proxy.faults = list(faults)
    fails(lambda: objects.download(url, old), f"{url}: ", *words)
    assert old.read_bytes() == b"what was there before"
    assert [item.name for item in old.parent.iterdir()] == [old.name]


def test_an_object_that_changes_in_between_is_not_patched_together(proxy, url, store, old):
    def replaced(method, path):
        if method == "GET" and len(proxy.asked) == 2:
            objects.write(url, DATA[::-1])
        return None

    proxy.faults, proxy.every = [Fault("cut", 2 * objects.CHUNK)], replaced
    fails(lambda: objects.download(url, old), "changed while it was read; try again")
    assert old.read_bytes() == b"what was there before"
    proxy.heal()
    objects.download(url, old)
    assert old.read_bytes() == DATA[::-1]


def test_a_listing_and_a_question_for_an_object(proxy, url, store):
    for action in (lambda: list(objects.listing(store)), lambda: objects.exists(url)):
        proxy.faults = [Fault("busy")]
        action()
        proxy.faults = [Fault("refuse")]
        fails(action, "the store refuses access")


# ---------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("faults", [[Fault("drop", 1000)], [Fault("busy")], [Fault("silent")]])
def test_what_is_not_taken_is_sent_again(proxy, url, faults):
    proxy.faults = list(faults)
    objects.write(url, DATA[:50000])
    assert objects.read(url) == DATA[:50000]


@pytest.fixture
def large(tmp_path, monkeypatch) -> Path:
    """A file that goes in several parts; the store takes none below 5 MiB, but for the last."""
    monkeypatch.setattr(objects, "PART", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(DATA + DATA + DATA)
    return path


def test_parts_that_break_off_are_sent_again(proxy, url, store, large):
    broken = []

    def once(method, path):
        if "partNumber=2" in path and not broken:
            broken.append(path)
            return Fault("drop", 100_000)
        return None

    proxy.every = once
    objects.upload(large, f"{store}/large")
    assert broken
    assert objects.read(f"{store}/large") == large.read_bytes()


@pytest.mark.parametrize("kind", ["refuse", "drop"])
def test_an_upload_that_fails_leaves_the_object_that_was_there(
    _store_server, proxy, url, store, large, kind, monkeypatch
):
    monkeypatch.setattr(objects, "ATTEMPTS", 2)
    objects.write(f"{store}/large", b"old")
    proxy.every = lambda method, path: Fault(kind) if "partNumber=3" in path else None
    fails(lambda: objects.upload(large, f"{store}/large"), f"{store}/large: ")
    proxy.heal()
    assert objects.read(f"{store}/large") == b"old"
    parts = boto3.client("s3", endpoint_url=_store_server).list_multipart_uploads(Bucket=store[5:])
    assert not parts.get("Uploads"), "parts that nobody will use cost money"


# ------------------------------------------------------------------------------------- crops and sources


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_mixtures(root)
    stft_cache.run(SimpleNamespace(cache=Stft(shard_mb=4)), "toy", root)
    return root


@pytest.fixture
def away(root, proxy, store, tmp_path, monkeypatch) -> Path:
    """A project without a cache, which is in the store behind the proxy."""
    for file in paths.cache(root, "toy").iterdir():
        objects.upload(file, f"{store}/caches/toy/cache/{file.name}")
    monkeypatch.setenv(cache_files.SOURCE, f"{store}/caches")
    monkeypatch.setenv(page_cache.FOLDER, str(tmp_path / "pages"))
    proxy.heal()
    return tmp_path / "away"


def crops(root: Path):
    return cached_crops(paths.cache(root, "toy"), "train", 64, 0.15, 3, Stft())


def expect_same(found, root: Path, steps: int = 4) -> None:
    expected = crops(root)
    for step in range(steps):
        one, other = found.batch(step, 4), expected.batch(step, 4)
        assert one["ids"] == other["ids"]
        assert torch.equal(one["clean"], other["clean"])
        assert torch.equal(one["noisy"], other["noisy"])


def test_crops_come_through_a_store_that_breaks_off_all_the_time(root, away, proxy):
    kinds = [Fault("cut", PAGE_BYTES // 2), None, Fault("busy"), Fault("cut", 0), None]

    def in_turn(method, path):
        return kinds[len(proxy.asked) % len(kinds)]

    proxy.every = in_turn
    expect_same(crops(away), root)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("refuse"), "the store refuses access"),
        (Fault("cut", 0), "the connection broke"),
        (Fault("silent"), "the store does not answer within"),
        (Fault("flip", 777), "damaged (page"),
    ],
)
def test_crops_that_do_not_come_end_in_one_line_and_go_on_later(root, away, proxy, fault, words, monkeypatch):
    monkeypatch.setattr(objects, "ATTEMPTS", 2)
    source = crops(away)

    def trouble(method, path):
        return fault if "train-0" in path else None

    proxy.every = trouble
    with Prefetcher(source, 4, 0, 4, workers=2) as batches:
        fails(lambda: list(batches), words)
    proxy.heal()
    expect_same(source, root)
    expect_same(crops(away), root)


def test_sources_in_a_store_are_copied_on_from_where_it_failed(proxy, store, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "ATTEMPTS", 2)
    files = {f"clean/s/{number}.wav": DATA[: 1000 + number] for number in range(4)}
    for name, data in files.items():
        objects.write(f"{store}/corpus/{name}", data)

    def third(method, path):
        return Fault("cut", 0) if method == "GET" and path.endswith("/2.wav") else None

    proxy.every = third
    folder = tmp_path / "sources"
    fails(lambda: sources.copy(f"{store}/corpus", folder), "2.wav: the connection broke after")
    assert sorted(path.name for path in folder.rglob("*.wav")) == ["0.wav", "1.wav"]
    proxy.heal()
    assert sources.copy(f"{store}/corpus", folder) == 2
    for name, data in files.items():
        assert (folder / name).read_bytes() == data
