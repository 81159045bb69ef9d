"""Versions of data: compared, pushed, pulled and read from a store, with real git and DVC."""

import hashlib
import json
import logging
import shutil
from pathlib import Path

import boto3
import pandas
import pytest
import torch
import versioned_project
from versioned_project import KEY, SECRET, clone, dvc, no_keys

from diffse import cli, dvc_remotes, objects, paths, versions
from diffse.data import cache_files, page_cache
from diffse.data.batches import cached_crops
from diffse.data.cache_reader import CacheReader
from diffse.errors import DiffseError
from diffse.settings import Stft

MANIFEST = "data/toy/mixtures/manifest.parquet"


@pytest.fixture(scope="module")
def published(_store_server, tmp_path_factory) -> Path:
    """The project after both versions were pushed."""
    with no_keys():
        client = boto3.client(
            "s3", endpoint_url=_store_server, region_name="us-east-1",
            aws_access_key_id=KEY, aws_secret_access_key=SECRET,
        )  # fmt: skip
        client.create_bucket(Bucket="versions")
        root = tmp_path_factory.mktemp("published") / "project"
        return versioned_project.create(root, "s3://versions/store", _store_server)


@pytest.fixture
def elsewhere(published, tmp_path) -> Path:
    """A clone without data, where only DVC's configuration leads to the store."""
    with no_keys():
        yield clone(published, tmp_path / "clone")


def fails(action, *words: str) -> None:
    with pytest.raises(DiffseError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET not in text
    for word in words:
        assert word in text, text


def diff(root: Path, *arguments: str) -> int:
    return cli.main(["data", "diff", *arguments, "--params", str(root / "params.yaml")])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --------------------------------------------------------------------------------------------- versions


def test_what_changed_is_said_without_any_data_here(elsewhere, tmp_path, capsys):
    assert diff(elsewhere, "one", "two", "--json", str(tmp_path / "diff.json")) == 0
    text = capsys.readouterr().out
    for line in (
        "train: 1 new (train_new)",
        "train: 1 gone (train_000)",
        "train: 1 altered (train_001)",
        "in another split: 1 (train_002)",
    ):
        assert line in text.splitlines()
    assert [line.split()[-3:] for line in text.splitlines() if line.startswith("train  speakers")] == [
        ["2", "3", "+1"]
    ]
    found = json.loads((tmp_path / "diff.json").read_text())["toy"]
    measures = {(entry["split"], entry["measure"]): entry for entry in found["measures"]}
    utterances = measures["train", "utterances"]
    assert (utterances["before"], utterances["after"]) == (7, 6)
    assert measures["train", "hours"]["after"] - measures["train", "hours"]["before"] > 0.99
    assert measures["valid", "utterances"]["after"] == 3
    assert measures["train", "SNR (dB), lowest"]["after"] == -5
    assert not found["same"]
    assert not (elsewhere / "data").exists()
    assert not (elsewhere / ".dvc/cache/files").exists()


def test_the_same_version_twice_and_the_workspace(published, capsys):
    assert diff(published, "two", "workspace", "toy") == 0
    assert "the same utterances, sample for sample" in capsys.readouterr().out


def test_one_file_comes_straight_from_the_store(elsewhere, published, tmp_path):
    for revision in ("one", "two"):
        out = tmp_path / f"{revision}.parquet"
        code = cli.main(
            ["data", "get", revision, MANIFEST, str(out), "--params", str(elsewhere / "params.yaml")]
        )
        assert code == 0
        assert len(pandas.read_parquet(out)) == 9
    assert sha256(tmp_path / "two.parquet") == sha256(published / MANIFEST)
    assert sha256(tmp_path / "one.parquet") != sha256(published / MANIFEST)
    assert versions.copy(elsewhere, "one", "params.yaml", tmp_path / "p") == len(versioned_project.PARAMS)
    assert not (elsewhere / "data").exists()
    assert not (elsewhere / ".dvc/cache/files").exists()


def test_what_cannot_be_read_is_one_line(elsewhere, published, tmp_path):
    def copy(revision="two", path=MANIFEST, root=elsewhere):
        return lambda: versions.copy(root, revision, path, tmp_path / "out")

    fails(copy("nine"), "'nine' is not a git revision here")
    fails(copy(path="data/toy/none.parquet"), "data/toy/none.parquet at two: no such file in git or DVC")
    fails(copy(path="data/toy/mixtures"), "a folder; name one file")
    fails(copy(path="../x"), "'../x' leaves the project")
    fails(copy(root=tmp_path), "not a git repository with DVC")
    (elsewhere / ".dvc/config.local").write_text("['remote \"store\"']\n    endpointurl = http://127.0.0.1:9\n")
    fails(copy(), "cannot be read from the remote", "check its settings")
    assert not (tmp_path / "out").exists()


def test_a_damaged_object_of_the_remote_is_not_taken(elsewhere, published, tmp_path):
    place, _ = dvc_remotes.content(published, Path("data/toy/mixtures"), reader(elsewhere))["manifest.parquet"]
    good = objects.read(place)
    objects.write(place, good[:-1] + b"x")
    try:
        fails(lambda: versions.copy(elsewhere, "two", MANIFEST, tmp_path / "out"), "damaged (its MD5 is not")
    finally:
        objects.write(place, good)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------ push and pull


def test_pulled_data_are_those_that_were_pushed(elsewhere, published):
    dvc(elsewhere, "pull")
    for file in sorted((published / "data").rglob("*")):
        if file.is_file():
            assert sha256(elsewhere / file.relative_to(published)) == sha256(file), file
    dvc(elsewhere, "checkout")


def test_crops_stream_from_the_remote_in_the_version_of_the_lock(elsewhere, published, tmp_path, monkeypatch):
    monkeypatch.setenv(cache_files.SOURCE, "dvc")
    monkeypatch.setenv(page_cache.FOLDER, str(tmp_path / "pages"))
    monkeypatch.chdir(elsewhere)
    streamed, local = (
        cached_crops(paths.cache(root, "toy"), "train", 64, 0.15, 3, Stft()) for root in (elsewhere, published)
    )
    for step in range(2):
        found, expected = (source.batch(step, 4) for source in (streamed, local))
        assert found["ids"] == expected["ids"]
        assert torch.equal(found["noisy"], expected["noisy"])
    assert not (elsewhere / "data").exists()
    (elsewhere / "dvc.lock").write_text("stages: {}")
    fails(lambda: CacheReader(Path("data/toy/cache"), "train"), "dvc.lock: does not name data/toy/cache")


def test_no_key_is_written_anywhere(elsewhere, tmp_path, monkeypatch, capfd, caplog):
    """Not in run records, locks, caches, pages, logs or messages, wherever the keys come from."""
    planted = "another-planted-secret"
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv(page_cache.FOLDER, str(tmp_path / "pages"))
    dvc(elsewhere, "pull", "prepare")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", planted)
    assert cli.main(["cache", "toy"]) == 0
    assert cli.main(["data", "get", "one", MANIFEST, "one.parquet"]) == 0
    dvc(elsewhere, "commit", "-f")
    shutil.rmtree("data/toy/cache")
    monkeypatch.setenv(cache_files.SOURCE, "s3://no-such-bucket/x")
    assert cli.main(["estimate", "toy"]) == 2
    shown = capfd.readouterr()
    text = shown.out + shown.err + caplog.text
    files = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "config.local"]
    assert any(file.parent.name == "runs" for file in files)
    assert any(file.name == "dvc.lock" for file in files)
    for secret in (SECRET, planted, KEY):
        assert secret not in text
        assert not [file for file in files if secret.encode() in file.read_bytes()]


def reader(project: Path):
    """`objects.read` as if called inside the project, whose DVC remote has the keys."""

    def read(url: str) -> bytes:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(project)
            return objects.read(url)

    return read
