"""Small synthetic source folders for the tests of `prepare`, and short ways to run and read it."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffse import audio, paths, storage
from diffse.data import manifest, prepare
from diffse.errors import DiffseError
from diffse.settings import FolderCorpus, Params, SplitLists

RATE = 16000
LISTS = SplitLists("splits/train_speech.txt", "splits/valid_speech.txt", "splits/test_speech.txt")
NOISE_LISTS = SplitLists("splits/train_noise.txt", "splits/valid_noise.txt", "splits/test_noise.txt")
MIX = FolderCorpus(processes=1, max_rejected=0.0)
PAIRS = replace(MIX, layout="pairs")


def sound(seed: int, seconds: float = 0.8, rate: int = RATE) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate))).astype(np.float32)


def build(root: Path, speakers: int = 5, noises: int = 4) -> Path:
    """A small source folder: two utterances a speaker, two kinds of noise, in three formats."""
    source = root / "sources" / "own"
    for k in range(speakers):
        for j, suffix in enumerate((".wav", ".flac")):
            audio.write(source / f"clean/s{k}/take{j}{suffix}", sound(10 * k + j), RATE)
    for k in range(noises):
        for kind, suffix in (("fan", ".ogg"), ("street", ".wav")):
            audio.write(source / f"noise/{kind}/{kind}{k}{suffix}", sound(1000 + 10 * k + len(kind), 2.0), RATE)
    return source


def params(settings: FolderCorpus, corpus: str = "own") -> Params:
    return Params((corpus,), (), (), {corpus: settings}, {}, {})


def run(root: Path, settings: FolderCorpus = MIX, corpus: str = "own") -> dict:
    return prepare.run(params(settings, corpus), corpus, root)


def table(root: Path, corpus: str = "own"):
    return manifest.read(paths.mixtures(root, corpus))


def contents(root: Path, corpus: str = "own") -> dict[str, str]:
    folder = paths.mixtures(root, corpus)
    return {path.name: storage.sha256_file(path) for path in sorted(folder.iterdir())}


def rejected(path: Path) -> dict[str, str]:
    with open(path, newline="") as stream:
        return {row["file"]: row["reason"] for row in csv.DictReader(stream)}


def fails(root: Path, settings: FolderCorpus, *words: str) -> str:
    """The one line of a preparation that must fail."""
    with pytest.raises(DiffseError) as caught:
        run(root, settings)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


def lists(source: Path) -> None:
    """Split lists: speakers s0 to s2, s3, s4; noises 0 and 1, 2, 3."""
    names = {"train": ("s0", "s1", "s2"), "valid": ("s3",), "test": ("s4",)}
    numbers = {"train": "01", "valid": "2", "test": "3"}
    for split in manifest.SPLITS:
        clean = [path for path in source.glob("clean/*/*") if path.parent.name in names[split]]
        noise = [path for path in source.glob("noise/*/*") if path.stem[-1] in numbers[split]]
        for files, name in ((clean, getattr(LISTS, split)), (noise, getattr(NOISE_LISTS, split))):
            path = source / name
            path.parent.mkdir(exist_ok=True)
            lines = sorted(file.relative_to(source).as_posix() for file in files)
            path.write_text("# a comment\n\n" + "\n".join(lines) + "\n")
