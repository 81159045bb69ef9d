"""Versions of data in a real object store: OpenStack Swift with its s3api behind nginx."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import boto3
import pandas
import pytest
import swift_server
import torch
import versioned_project
from swift_server import KEY, SECRET
from versioned_project import clone, dvc, no_keys

from diffse import cli, objects, paths
from diffse.data import cache_files, page_cache
from diffse.data.batches import cached_crops
from diffse.errors import DiffseError
from diffse.settings import Stft

MANIFEST = "data/toy/mixtures/manifest.parquet"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(swift_server.missing()), reason=f"Swift: {swift_server.missing()}"),
]


@pytest.fixture(scope="module")
def swift(tmp_path_factory) -> Iterator[str]:
    with swift_server.running(tmp_path_factory.mktemp("swift")) as address:
        client = boto3.client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        client.create_bucket(Bucket="versions")
        yield address


@pytest.fixture(scope="module")
def published(swift, tmp_path_factory) -> Path:
    """A project with two versions, both pushed."""
    with no_keys():
        root = tmp_path_factory.mktemp("published") / "project"
        return versioned_project.create(root, "s3://versions/store", swift, (KEY, SECRET))


@pytest.fixture
def elsewhere(published, tmp_path) -> Iterator[Path]:
    """A clone without data, where only DVC's configuration leads to the store."""
    with no_keys():
        yield clone(published, tmp_path / "clone", keys=(KEY, SECRET))


@pytest.fixture
def store(swift, monkeypatch) -> str:
    """A place in the store; the standard variables lead to it."""
    for name, value in {
        "AWS_ENDPOINT_URL": swift,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    return "s3://versions/tests"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_pulled_data_are_those_that_were_pushed(elsewhere, published):
    dvc(elsewhere, "pull")
    files = [file for file in sorted((published / "data").rglob("*")) if file.is_file()]
    assert len(files) > 5
    for file in files:
        assert sha256(elsewhere / file.relative_to(published)) == sha256(file), file


def test_one_file_of_a_revision_comes_straight_from_the_store(elsewhere, published, tmp_path):
    for revision in ("one", "two"):
        out = tmp_path / f"{revision}.parquet"
        words = ["data", "get", revision, MANIFEST, str(out), "--params", str(elsewhere / "params.yaml")]
        assert cli.main(words) == 0
        assert len(pandas.read_parquet(out)) == 9
    assert sha256(tmp_path / "two.parquet") == sha256(published / MANIFEST)
    assert sha256(tmp_path / "one.parquet") != sha256(published / MANIFEST)
    assert not (elsewhere / "data").exists()
    assert not (elsewhere / ".dvc/cache/files").exists()


def test_what_changed_is_said_without_any_data_here(elsewhere, capsys):
    assert cli.main(["data", "diff", "one", "two", "--params", str(elsewhere / "params.yaml")]) == 0
    assert "train: 1 new (train_new)" in capsys.readouterr().out


def test_crops_stream_from_the_remote(elsewhere, published, tmp_path, monkeypatch):
    monkeypatch.setenv(cache_files.SOURCE, "dvc")
    monkeypatch.setenv(page_cache.FOLDER, str(tmp_path / "pages"))
    monkeypatch.chdir(elsewhere)
    streamed, local = (
        cached_crops(paths.cache(root, "toy"), "train", 64, 0.15, 3, Stft()) for root in (elsewhere, published)
    )
    for step in range(3):
        assert torch.equal(streamed.batch(step, 4)["noisy"], local.batch(step, 4)["noisy"])


def test_a_wrong_secret_is_refused_in_one_line(elsewhere, tmp_path, capsys):
    versioned_project.write_keys(elsewhere, KEY, "not-the-secret")
    words = ["data", "get", "one", MANIFEST, str(tmp_path / "out"), "--params", str(elsewhere / "params.yaml")]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "not-the-secret" not in said
    assert not (tmp_path / "out").exists()


def test_objects_are_what_was_written(store, tmp_path):
    data = bytes(range(256)) * 40_000
    objects.write(f"{store}/a.bin", data)
    assert objects.read(f"{store}/a.bin") == data
    assert objects.read(f"{store}/a.bin", 1000, 5000) == data[1000:6000]
    assert objects.read(f"{store}/a.bin", len(data), 10) == b""
    (tmp_path / "large").write_bytes(data * 4)
    objects.upload(tmp_path / "large", f"{store}/large")
    assert objects.entry(f"{store}/large").etag.endswith("-3")
    objects.download(f"{store}/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data * 4
    assert [entry.url for entry in objects.listing(store)] == [f"{store}/a.bin", f"{store}/large"]
    with pytest.raises(DiffseError, match="no such object"):
        objects.read(f"{store}/none")
