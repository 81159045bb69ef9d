"""A project with two versions of a small corpus and its cache: real git, real DVC, a remote in an S3 store."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from small_mixtures import write_mixtures

from diffse import paths
from diffse.data import manifest, stft_cache
from diffse.settings import Stft

KEY, SECRET = "AKIDPLANTEDKEY", "planted-secret-of-the-store"
STAGES = """
stages:
  prepare:
    cmd: "true"
    outs: [{data/toy/mixtures: {persist: true}}]
  cache:
    cmd: "true"
    deps: [data/toy/mixtures]
    outs: [{data/toy/cache: {persist: true}}]
"""
PARAMS = """
corpora: [toy]
train_corpora: [toy]
recipes: []
prepare: {toy: {kind: folder}}
train: {}
enhance: {}
"""


def dvc(folder: Path, *command: str) -> None:
    """One DVC command in this process, which saves its start."""
    from dvc.cli import main

    assert main(["--cd", str(folder), *command, "-q"]) == 0, command


def git(folder: Path, *command: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    subprocess.run(["git", "-C", folder, *identity, *command], check=True, capture_output=True)


def create(root: Path, remote: str, endpoint: str, keys: tuple[str, str] = (KEY, SECRET)) -> Path:
    """Versions `one` and `two` as git tags, both pushed; keys in DVC's local configuration only."""
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    dvc(root, "init")
    (root / ".gitignore").write_text("/data/\n/models/\n/runs/\n")
    (root / "dvc.yaml").write_text(STAGES)
    (root / "params.yaml").write_text(PARAMS)
    (root / ".dvc/config").write_text(
        f"[core]\n    analytics = false\n    remote = store\n['remote \"store\"']\n"
        f"    url = {remote}\n    endpointurl = {endpoint}\n    region = us-east-1\n"
    )
    write_keys(root, *keys)
    write_mixtures(root)
    publish(root, "one")
    change(root)
    publish(root, "two")
    return root


def write_keys(root: Path, key: str = KEY, secret: str = SECRET) -> None:
    text = f"['remote \"store\"']\n    access_key_id = {key}\n    secret_access_key = {secret}\n"
    (root / ".dvc/config.local").write_text(text)


def publish(root: Path, tag: str) -> None:
    stft_cache.run(SimpleNamespace(cache=Stft(shard_mb=1)), "toy", root)
    dvc(root, "repro", "-f")
    git(root, "add", "-A")
    git(root, "commit", "-qm", tag)
    git(root, "tag", tag)
    dvc(root, "push")


def change(root: Path) -> None:
    """The second version: one utterance is gone, one is new, one sounds different, one is in another split."""
    folder = paths.mixtures(root, "toy")
    rows = manifest.read(folder)
    gone, altered, moved = rows["id"].iloc[:3]
    rows.loc[rows["id"] == altered, ["sha256", "level_dbfs"]] = ["0" * 64, -3.0]
    rows.loc[rows["id"] == moved, "split"] = "valid"
    new = rows[rows["id"] == "train_003"].assign(id="train_new", speaker="s9", seconds=3600.0)
    rows = pandas.concat([rows[rows["id"] != gone], new], ignore_index=True)
    rows["snr_measured_db"] = np.linspace(-5, 5, len(rows))
    manifest.write(rows, folder)


@contextmanager
def no_keys(secret: str = "") -> Iterator[None]:
    """An environment in which DVC's configuration is all that leads to the store."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            patch.delenv(name, raising=False)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, "/nonexistent")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


def clone(root: Path, target: Path, revision: str = "two", keys: tuple[str, str] = (KEY, SECRET)) -> Path:
    """What somebody else has: git's files, and keys; no data and no cache of DVC."""
    subprocess.run(["git", "clone", "-q", "-b", revision, root, target], check=True, capture_output=True)
    write_keys(target, *keys)
    return target
