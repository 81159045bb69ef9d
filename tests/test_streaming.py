"""Crops of a cache in a store: as from the disk, through pages that are bounded, checked and shared."""

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_mixtures import write_mixtures

from diffse import objects, paths
from diffse.data import cache_files, page_cache, stft_cache
from diffse.data.batches import cached_crops
from diffse.data.cache_files import PAGE_BYTES
from diffse.data.page_cache import PageCache
from diffse.errors import DiffseError
from diffse.settings import Stft

SEED = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_mixtures(root)
    stft_cache.run(SimpleNamespace(cache=Stft(shard_mb=4)), "toy", root)
    return root


@pytest.fixture
def away(root, store, tmp_path, monkeypatch) -> Path:
    """A project without a cache, which is in the store."""
    for file in paths.cache(root, "toy").iterdir():
        objects.upload(file, f"{store}/caches/toy/cache/{file.name}")
    monkeypatch.setenv(cache_files.SOURCE, f"{store}/caches")
    monkeypatch.setenv(page_cache.FOLDER, str(tmp_path / "pages"))
    return tmp_path / "away"


@pytest.fixture
def requests(monkeypatch) -> list:
    """The ranges that are asked of the store."""
    asked, read = [], objects.read

    def noting(url, start=None, length=None):
        if start is not None:
            asked.append((url.rpartition("/")[2], start // PAGE_BYTES, -(-length // PAGE_BYTES)))
        return read(url, start, length)

    monkeypatch.setattr(objects, "read", noting)
    return asked


def crops(root: Path):
    return cached_crops(paths.cache(root, "toy"), "train", 64, 0.15, SEED, Stft())


def stored(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*"))


def expect_same(found, expected, steps: int = 4) -> None:
    for step in range(steps):
        one, other = found.batch(step, 4), expected.batch(step, 4)
        assert one["ids"] == other["ids"]
        assert torch.equal(one["clean"], other["clean"])
        assert torch.equal(one["noisy"], other["noisy"])


def test_streamed_crops_are_those_of_the_disk_and_come_once(root, away, requests):
    expect_same(crops(away), crops(root))
    asked = [(name, number) for name, first, count in requests for number in range(first, first + count)]
    assert len(asked) == len(set(asked)) > 2
    requests.clear()
    expect_same(crops(away), crops(root))
    assert not requests
    assert not away.exists()


def test_pages_that_follow_each_other_come_in_one_request(root, away, requests):
    reader = crops(away).cache
    requests.clear()
    item = int(np.argmax(reader.n_frames))
    name, count = reader._shards[item], reader.description["files"][reader._shards[item]]["pages"]
    assert count > 2
    reader._shard(name)[:]
    assert requests == [(name, 0, 1), (name, 1, count - 1)]  # the first one holds the header


def test_a_cache_on_the_disk_goes_before_the_store(root, away, requests):
    assert crops(root).batch(0, 4)["k"] == [0, 1, 2, 3]
    assert not requests


def test_a_damaged_page_on_the_disk_is_read_again(root, away, tmp_path, requests):
    expect_same(crops(away), crops(root))
    for page in stored(tmp_path / "pages"):
        data = bytearray(page.read_bytes())
        data[len(data) // 2] ^= 1
        page.write_bytes(data)
    requests.clear()
    expect_same(crops(away), crops(root))
    assert requests


@pytest.mark.parametrize("name", ["train-00000.npy", "peaks-train.npy", "index.parquet", "checksums.npy"])
def test_one_flipped_byte_in_the_store_is_found(away, store, name):
    url = f"{store}/caches/toy/cache/{name}"
    data = bytearray(objects.read(url))
    data[len(data) // 2] ^= 1
    objects.write(url, bytes(data))

    def read_all():
        source = crops(away)
        for step in range(10):
            source.batch(step, 4)

    with pytest.raises(DiffseError, match=r"damaged|not what was written|cannot be read"):
        read_all()


def test_what_is_not_there_is_said(away, store, monkeypatch):
    monkeypatch.setenv(cache_files.SOURCE, f"{store}/elsewhere")
    with pytest.raises(DiffseError, match=r"elsewhere/toy/cache: no STFT cache here; run 'diffse cache toy'"):
        crops(away)
    monkeypatch.setenv(cache_files.SOURCE, "somewhere")
    with pytest.raises(DiffseError, match="DIFFSE_CACHES is 'somewhere'; give s3://bucket/prefix, or dvc"):
        crops(away)
    monkeypatch.setenv(cache_files.SOURCE, "dvc")
    with pytest.raises(DiffseError, match="not inside a DVC project"):
        crops(away)
    monkeypatch.delenv(cache_files.SOURCE)
    with pytest.raises(DiffseError, match="no STFT cache here"):
        crops(away)
    monkeypatch.setenv(page_cache.LIMIT, "much")
    with pytest.raises(DiffseError, match="DIFFSE_PAGES_GB is 'much'; give a size in GB"):
        page_cache.from_environment()


def page(number: int, size: int = 1000) -> tuple[str, bytes]:
    data = np.random.default_rng(number).bytes(size)
    return cache_files.hashlib.sha256(data).hexdigest(), data


def test_the_folder_stays_within_its_limit_and_keeps_what_is_used(tmp_path):
    pages = PageCache(tmp_path, limit=100_000)
    often = page(0)
    pages.put(*often)
    for number in range(1, 400):
        pages.put(*page(number))
        assert PageCache(tmp_path, 100_000).get(often[0]) is not None, "what is used last goes last"
    assert sum(file.stat().st_size for file in stored(tmp_path)) <= 107_000
    assert len(stored(tmp_path)) > 80


def test_a_page_that_went_is_still_readable_where_it_is_mapped(tmp_path):
    pages, (sha256, data) = PageCache(tmp_path, 10**6), page(1)
    pages.put(sha256, data)
    held = pages.get(sha256)
    stored(tmp_path)[0].unlink()
    assert bytes(held) == bytes(pages.get(sha256)) == data
    assert PageCache(tmp_path, 10**6).get(sha256) is None


def test_a_folder_that_cannot_be_written_is_a_warning(root, away, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(page_cache.FOLDER, str(tmp_path / "file" / "pages"))
    with caplog.at_level(logging.WARNING):
        expect_same(crops(away), crops(root), steps=2)
    assert len([record for record in caplog.records if "pages cannot be kept" in record.message]) == 1


PROGRAM = """
import sys
from pathlib import Path
import numpy as np, hashlib
from diffse.data.page_cache import PageCache
pages = PageCache(Path(sys.argv[1]), 60_000)
order = np.random.default_rng(int(sys.argv[2])).integers(0, 100, 1000)
bad = missed = 0
for number in order:
    data = np.random.default_rng(int(number)).bytes(1000)
    sha256 = hashlib.sha256(data).hexdigest()
    found = PageCache(pages.folder, 60_000).get(sha256)
    if found is None:
        missed += 1
        pages.put(sha256, data)
    elif bytes(found) != data:
        bad += 1
print(bad, missed)
"""


def test_several_processes_share_the_folder(tmp_path):
    """They write, read and delete the same pages at once; nobody ever sees a wrong one."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), str(seed)], stdout=subprocess.PIPE, text=True
        )
        for seed in range(3)
    ]
    outputs = [child.communicate()[0].split() for child in children]
    assert [output[0] for output in outputs] == ["0", "0", "0"]
    assert all(100 < int(output[1]) < 990 for output in outputs), outputs
    assert sum(file.stat().st_size for file in stored(tmp_path)) <= 75_000
    assert not list(tmp_path.glob("*/.*"))
