"""`prepare` on folders: splits, ids, pairs, bad files, bad settings, and the same bytes every time."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from diffse import audio, paths, storage
from diffse.data import manifest, mixing, prepare, shards
from diffse.data.corpora import folder
from diffse.errors import DiffseError
from diffse.settings import FolderCorpus, Params, SplitCounts, SplitLists

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


@pytest.fixture
def own(tmp_path):
    return build(tmp_path)


# ------------------------------------------------------------------------------------ what comes out


def test_folder_without_lists(own, tmp_path):
    counts = run(tmp_path)
    frame = table(tmp_path)
    assert counts["utterances"] == dict(frame["split"].value_counts())
    assert counts["rejected"] == 0
    assert counts["hours"] == pytest.approx(frame["seconds"].sum() / 3600.0, abs=1e-4)
    assert len(frame) == 10
    assert list(frame["split"]) == sorted(frame["split"], key=manifest.SPLITS.index)
    for _, rows in frame.groupby("split"):
        assert list(rows["id"]) == sorted(rows["id"])
    assert frame["id"].is_unique
    assert set(frame["noise_kind"]) == {"fan", "street"}
    assert all(shards.verify(paths.mixtures(tmp_path, "own"), row) for row in frame.itertuples())
    for column in ("speaker", "noise_source"):
        assert (frame.groupby(column)["split"].nunique() == 1).all(), f"{column} in two splits"
    assert rejected(paths.mixtures(tmp_path, "own") / "rejected.csv") == {}


def test_signals_are_those_of_the_sources(own, tmp_path):
    run(tmp_path)
    for row in table(tmp_path).itertuples():
        clean, noisy = shards.read_pair(paths.mixtures(tmp_path, "own"), row)
        source, _ = audio.read(own / row.clean_source)
        assert np.max(np.abs(clean - row.gain * source[0])) < 1e-6
        noise, _ = audio.read(own / row.noise_source, row.noise_offset, row.n_samples)
        assert np.corrcoef(noisy - clean, noise[0])[0, 1] > 0.9999


def test_same_bytes_for_any_number_of_processes(own, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "MAX_BYTES", 400_000)
    settings = replace(MIX, mixtures_per_utterance=SplitCounts(train=3))
    run(tmp_path, replace(settings, processes=1))
    one = contents(tmp_path)
    assert len(one) > 4, "the test must span several shards"
    for processes in (2, 3):
        run(tmp_path, replace(settings, processes=processes))
        assert contents(tmp_path) == one


def test_rows_do_not_depend_on_their_order_or_neighbours(own, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        mixing, "make_shard", lambda batch, make=mixing.make_shard: seen.append(batch) or make(batch)
    )
    run(tmp_path, replace(MIX, mixtures_per_utterance=SplitCounts(train=3)))
    tasks = [task for batch in seen for task in batch.tasks]
    random.Random(4).shuffle(tasks)
    sums = table(tmp_path).set_index("id")["sha256"]
    assert {task.id: mixing.make(task).facts["sha256"] for task in tasks} == sums.to_dict()
    assert mixing.make(tasks[0]).facts["sha256"] == sums[tasks[0].id]


def test_another_seed_gives_other_mixtures_of_the_same_speech(own, tmp_path):
    run(tmp_path)
    first = table(tmp_path)
    run(tmp_path, replace(MIX, seed=1, speaker_shares=(0.8, 0.1, 0.1)))
    second = table(tmp_path)
    assert set(first["id"]) == set(second["id"])
    both = first.merge(second, on="id")
    assert (both["snr_db_x"] != both["snr_db_y"]).all()
    assert (both["clean_sha256_x"] == both["clean_sha256_y"]).all()


def test_a_row_stays_when_other_speech_is_added(own, tmp_path):
    """Its seed comes from its id, so one more recording does not shuffle the corpus."""
    lists(own)
    settings = replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS)
    run(tmp_path, settings)
    before = table(tmp_path).set_index("id")["sha256"]
    audio.write(own / "clean/s0/another.wav", sound(77), RATE)
    with open(own / LISTS.train, "a") as stream:
        stream.write("clean/s0/another.wav\n")
    run(tmp_path, settings)
    after = table(tmp_path).set_index("id")["sha256"]
    assert len(after) == len(before) + 1
    assert (after[before.index] == before).all()


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


def test_split_lists_are_followed(own, tmp_path):
    lists(own)
    run(tmp_path, replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS))
    splits = table(tmp_path).groupby("speaker")["split"].first().to_dict()
    assert splits == {"s0": "train", "s1": "train", "s2": "train", "s3": "valid", "s4": "test"}
    for row in table(tmp_path).itertuples():
        assert Path(row.noise_source).stem[-1] in {"train": "01", "valid": "2", "test": "3"}[row.split]


def test_any_format_rate_and_channel_count(tmp_path):
    """Stereo: the first channel counts."""
    source = build(tmp_path, speakers=3)
    time = np.arange(2 * 44100) / 44100
    stereo = 0.3 * np.sin(2.0 * np.pi * np.array([[500.0], [900.0]]) * time)
    audio.write(source / "clean/s0/stereo.ogg", stereo.astype(np.float32), 44100)
    run(tmp_path, replace(MIX, rate=16000))
    row = table(tmp_path).set_index("id").loc["s0_stereo"]
    clean, _ = shards.read_pair(paths.mixtures(tmp_path, "own"), row)
    assert (len(clean), row["rate"], row["seconds"]) == (2 * RATE, RATE, 2.0)
    peak = np.argmax(np.abs(np.fft.rfft(clean))) * RATE / len(clean)
    assert peak == pytest.approx(500.0, abs=2.0)


def test_the_source_may_be_a_link(own, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(own, elsewhere)
    own.symlink_to(elsewhere)
    (elsewhere / "clean/s0/back").symlink_to(elsewhere / "clean")  # a loop must not hang
    assert sum(run(tmp_path)["utterances"].values()) == 10


# ------------------------------------------------------------------------------------------------- ids


def test_ids_are_unique_whatever_the_names(tmp_path):
    source = build(tmp_path, speakers=3)
    twice = ("clean/s0/take0.flac", "clean/deeper/s0/take1.wav", "clean/s0/take0-2.wav", "clean/s0/a b.c.wav")
    for k, name in enumerate(twice):
        audio.write(source / name, sound(500 + k), RATE)
    run(tmp_path, replace(MIX, mixtures_per_utterance=SplitCounts(2, 2, 2)))
    frame = table(tmp_path)
    assert frame["id"].is_unique
    assert len(frame) == 2 * (6 + 4)
    assert "s0_a-b-c" in set(frame["id"])
    assert frame["id"].str.fullmatch(r"[\w-]+").all()
    assert frame.groupby("clean_source")["id"].count().eq(2).all()


def test_flat_files_take_the_speaker_from_their_name(tmp_path):
    source = build(tmp_path)
    shutil.rmtree(source / "clean")
    for k in range(3):
        audio.write(source / f"clean/p{k}_001.wav", sound(k), RATE)
    run(tmp_path)
    assert dict(table(tmp_path)[["id", "speaker"]].values) == {f"p{k}_001": f"p{k}" for k in range(3)}


# -------------------------------------------------------------------------------------- splits by share


@pytest.mark.parametrize(
    ("total", "shares", "expected"),
    [
        (10, (0.8, 0.1, 0.1), [8, 1, 1]),
        (3, (0.8, 0.1, 0.1), [1, 1, 1]),
        (4, (0.8, 0.1, 0.1), [2, 1, 1]),
        (100, (0.7, 0.2, 0.1), [70, 20, 10]),
        (7, (1.0, 0.0, 0.0), [7, 0, 0]),
        (5, (2.0, 0.0, 2.0), [3, 0, 2]),
    ],
)
def test_counts_follow_the_shares_and_leave_no_split_empty(total, shares, expected):
    counts = folder._counts(total, shares)
    assert sum(counts) == total
    assert counts == expected or (total == 5 and sorted(counts) == sorted(expected))


def test_every_split_hears_every_kind_of_noise(own, tmp_path):
    found = folder.find(MIX, own, tmp_path)
    kinds = defaultdict(set)
    for noise in found.noise:
        kinds[noise.split].add(noise.kind)
    assert dict(kinds) == {split: {"fan", "street"} for split in manifest.SPLITS}


def test_too_few_speakers_or_noises_to_split(tmp_path):
    build(tmp_path, speakers=2)
    fails(tmp_path, MIX, "2 speakers, too few for 3 splits", "clean_lists")
    run(tmp_path, replace(MIX, speaker_shares=(0.5, 0.0, 0.5)))
    assert set(table(tmp_path)["split"]) == {"train", "test"}
    for path in (tmp_path / "sources/own/noise").glob("*/*"):
        if path.stem != "fan0":
            path.unlink()
    fails(tmp_path, replace(MIX, speaker_shares=(0.5, 0.0, 0.5)), "1 noise recordings", "noise_lists")


# ----------------------------------------------------------------------------------------------- pairs


def build_pairs(root: Path) -> Path:
    """Names that two sorted lists would join wrongly: one side lacks a file, suffixes differ."""
    source = root / "sources" / "own"
    for k in range(4):
        audio.write(source / f"clean/p1_{k}.wav", sound(k), RATE)
        if k != 1:
            audio.write(source / f"noisy/p1_{k}.flac", sound(k) + 0.5 * sound(100 + k), RATE)
    audio.write(source / "noisy/p1_9.flac", sound(9), RATE)
    return source


def test_pairs_are_joined_by_name_and_the_rest_is_listed(tmp_path):
    source = build_pairs(tmp_path)
    counts = run(tmp_path, replace(PAIRS, max_rejected=0.5))
    assert counts == {"utterances": {"train": 0, "valid": 0, "test": 3}, "hours": 0.0007, "rejected": 2}
    frame = table(tmp_path)
    assert list(frame["id"]) == ["p1_0", "p1_2", "p1_3"]
    assert list(frame["speaker"]) == ["p1"] * 3
    assert [Path(name).stem for name in frame["noise_source"]] == list(frame["id"])
    assert (frame["snr_measured_db"] - 6.02).abs().max() < 0.5
    assert frame["snr_db"].isna().all()
    for row in frame.itertuples():
        clean, noisy = shards.read_pair(paths.mixtures(tmp_path, "own"), row)
        assert np.max(np.abs(clean - audio.read(source / row.clean_source)[0][0])) < 1e-6
        assert np.max(np.abs(noisy - audio.read(source / row.noise_source)[0][0])) < 1e-6
    assert rejected(paths.mixtures(tmp_path, "own") / "rejected.csv") == {
        "clean/p1_1.wav": "no file of this name in noisy",
        "noisy/p1_9.flac": "no file of this name in clean",
    }
    fails(tmp_path, PAIRS, "2 of 5 files cannot be used", "clean/p1_1.wav: no file of this name in noisy")


def test_pair_of_two_lengths_is_rejected(tmp_path):
    source = build_pairs(tmp_path)
    audio.write(source / "noisy/p1_2.flac", sound(2, seconds=0.7), RATE)
    run(tmp_path, replace(PAIRS, max_rejected=0.9))
    reasons = rejected(paths.mixtures(tmp_path, "own") / "rejected.csv")
    assert reasons["noisy/p1_2.flac"] == "has 11200 samples, its clean partner 12800"
    assert list(table(tmp_path)["id"]) == ["p1_0", "p1_3"]


def test_pairs_list(tmp_path):
    source = build_pairs(tmp_path)
    (source / "pairs.txt").write_text("clean/p1_3.wav\tnoisy/p1_3.flac\nclean/p1_0.wav\tnoisy/p1_0.flac\n")
    run(tmp_path, replace(PAIRS, pairs_list="pairs.txt", pairs_split="valid"))
    assert list(table(tmp_path)["id"]) == ["p1_0", "p1_3"]
    assert set(table(tmp_path)["split"]) == {"valid"}
    (source / "pairs.txt").write_text("clean/p1_3.wav noisy/p1_3.flac\n")
    fails(tmp_path, replace(PAIRS, pairs_list="pairs.txt"), "pairs.txt, line 1", "one tab")


# ------------------------------------------------------------------------------------------- bad files


def spoil(source: Path) -> dict[str, str]:
    """Plant one file of every kind of fault; returns file -> beginning of its reason."""
    bad = source / "clean/s0"
    (bad / "empty.wav").touch()
    (bad / "text.flac").write_text("not audio\n" * 100)
    audio.write(bad / "cut.wav", sound(1), RATE)
    (bad / "cut.wav").write_bytes((bad / "cut.wav").read_bytes()[:9000])
    audio.write(bad / "cut2.flac", sound(1), RATE)
    (bad / "cut2.flac").write_bytes((bad / "cut2.flac").read_bytes()[:9000])
    wave = sound(2)
    wave[100] = np.nan
    soundfile.write(bad / "nan.wav", wave, RATE, "FLOAT")
    audio.write(bad / "short.wav", sound(3, 0.2), RATE)
    audio.write(bad / "silent.wav", np.zeros(RATE, np.float32), RATE)
    (bad / "gone.wav").symlink_to("nowhere.wav")
    audio.write(source / "noise/fan/silent.wav", np.zeros(RATE, np.float32), RATE)
    (source / "noise/fan/empty.wav").touch()
    return {
        "clean/s0/empty.wav": "is empty",
        "clean/s0/text.flac": "not readable as audio",
        "clean/s0/cut.wav": "truncated",
        "clean/s0/cut2.flac": "damaged or truncated",
        "clean/s0/nan.wav": "1 samples are NaN or infinite",
        "clean/s0/short.wav": "too short (0.20 s",
        "clean/s0/silent.wav": "no speech: silent",
        "clean/s0/gone.wav": "no such file",
        "noise/fan/silent.wav": "silent",
        "noise/fan/empty.wav": "is empty",
    }


@pytest.mark.parametrize("processes", [1, 2])
def test_each_bad_file_is_listed_and_the_rest_prepared(own, tmp_path, processes):
    expected = spoil(own)
    settings = replace(MIX, max_rejected=0.5, processes=processes, mixtures_per_utterance=SplitCounts(2, 2, 2))
    counts = run(tmp_path, settings)
    found = rejected(paths.mixtures(tmp_path, "own") / "rejected.csv")
    assert list(found) == sorted(expected)
    for file, reason in expected.items():
        assert found[file].startswith(reason), (file, found[file])
    assert counts["rejected"] == len(expected)
    assert sum(counts["utterances"].values()) == 2 * 10
    assert not set(expected) & set(table(tmp_path)["clean_source"])
    assert not set(expected) & set(table(tmp_path)["noise_source"])


def test_too_many_bad_files_fail_and_keep_what_was_there(own, tmp_path):
    run(tmp_path)
    before = contents(tmp_path)
    expected = spoil(own)
    text = fails(
        tmp_path, MIX, "10 of 28 files cannot be used", "max_rejected: 0", "first: clean/s0/cut.wav: truncated"
    )
    assert contents(tmp_path) == before
    beside = tmp_path / "data/own/rejected.csv"
    assert str(beside) in text
    assert list(rejected(beside)) == sorted(expected)
    for file in expected:
        (own / file).unlink()
    run(tmp_path)
    assert contents(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "data/own").iterdir()) == [".lock", "mixtures"]


def test_a_missing_listed_file_is_named(own, tmp_path):
    lists(own)
    settings = replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS)
    (own / "clean/s4/take0.wav").unlink()
    fails(tmp_path, settings, "1 of 18 files", "first: clean/s4/take0.wav: no such file")
    assert run(tmp_path, replace(settings, max_rejected=0.1))["rejected"] == 1


def test_folder_with_no_speech(own, tmp_path):
    for path in list((own / "clean").glob("*/*")):
        audio.write(path, np.zeros(RATE, np.float32), RATE)
    fails(tmp_path, replace(MIX, max_rejected=0.02), "10 of 18 files", "no speech: silent")
    fails(tmp_path, replace(MIX, max_rejected=1.0), "there is nothing to prepare", "no speech: silent")
    for path in list((own / "clean").glob("*/*")):
        path.rename(path.with_suffix(".mid"))
    fails(tmp_path, MIX, f"{own / 'clean'}: holds no audio (.wav, .flac, .ogg)")


def test_no_usable_noise(own, tmp_path):
    for path in list((own / "noise").glob("*/*")):
        path.write_bytes(b"")
    fails(tmp_path, replace(MIX, max_rejected=1.0), "no usable noise for the split 'test'", "is empty")


# ---------------------------------------------------------------------------------- bad lists, settings


def test_a_speaker_in_two_splits(own, tmp_path):
    lists(own)
    with open(own / LISTS.test, "a") as stream:
        stream.write("clean/s0/take0.wav\n")
    train = (own / LISTS.train).read_text().replace("clean/s0/take0.wav\n", "")
    (own / LISTS.train).write_text(train)
    settings = replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS)
    fails(tmp_path, settings, "speaker 's0' is in two splits", "test (clean/s0/take0.wav)", "train (")


def test_a_file_in_two_lists_or_twice_in_one(own, tmp_path):
    lists(own)
    settings = replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS)
    with open(own / NOISE_LISTS.test, "a") as stream:
        stream.write("noise/fan/fan0.ogg\n")
    fails(tmp_path, settings, "noise file 'noise/fan/fan0.ogg' is also in", "train_noise.txt")
    lists(own)
    with open(own / NOISE_LISTS.test, "a") as stream:
        stream.write("noise/fan/fan3.ogg\n")
    fails(tmp_path, settings, "test_noise.txt: names 'noise/fan/fan3.ogg' twice")


def test_the_same_noise_under_two_names_in_two_splits(own, tmp_path):
    lists(own)
    shutil.copy(own / "noise/fan/fan0.ogg", own / "noise/street/copy3.ogg")
    with open(own / NOISE_LISTS.test, "a") as stream:
        stream.write("noise/street/copy3.ogg\n")
    settings = replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS)
    fails(tmp_path, settings, "noise/fan/fan0.ogg", "noise/street/copy3.ogg", "two splits")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("test_speech.txt: names no file",)),
        ("# only a comment\n", ("test_speech.txt: names no file",)),
        ("../../secret.wav\n", ("test_speech.txt, line 1", "'../../secret.wav' leaves the source folder")),
        ("clean/s4/take0.wav\n/etc/passwd\n", ("test_speech.txt, line 2", "'/etc/passwd' leaves")),
        (None, ("test_speech.txt: no such list",)),
        (b"\xff\xfe\x00", ("test_speech.txt: not a UTF-8 text file",)),
    ],
)
def test_bad_lists(own, tmp_path, text, words):
    lists(own)
    path = own / LISTS.test
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    fails(tmp_path, replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS), *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clean": "speech"}, ("sources/own/speech: no such folder",)),
        ({"clean": ".."}, ("leaves the source folder",)),
        ({"noise": "clean/s0"}, ("'clean' and 'clean/s0' overlap",)),
        ({"speaker_shares": (0.0, 0.0, 0.0)}, ("speaker_shares",)),
        ({"rate": 16}, ("prepare.own.rate is 16",)),
        ({"max_rejected": 2.0}, ("prepare.own.max_rejected is 2",)),
        ({"mixtures_per_utterance": SplitCounts(valid=0)}, ("mixtures_per_utterance.valid is 0",)),
        ({"snr_db": replace(MIX.snr_db, test=(9.0, 1.0))}, ("snr_db.test is [9, 1]", "lower value first")),
    ],
)
def test_bad_settings(own, tmp_path, change, words):
    fails(tmp_path, replace(MIX, **change), *words)


def test_unknown_corpus_and_missing_sources(tmp_path):
    fails(tmp_path, MIX, "sources/own: no such folder")
    with pytest.raises(DiffseError, match="'other' has no entry under 'prepare' \\(there: own\\)"):
        prepare.run(params(MIX), "other", tmp_path)


# ------------------------------------------------------------------------------------ broken off midway


def test_exception_in_the_middle_keeps_the_old_mixtures(own, tmp_path, monkeypatch):
    run(tmp_path)
    before = contents(tmp_path)

    def interrupt(*_):
        raise KeyboardInterrupt

    for place in ("_write_manifest", "_write_rejected"):
        with monkeypatch.context() as patch:
            patch.setattr(prepare, place, interrupt)
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path, replace(MIX, seed=5))
        assert contents(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "data/own").iterdir()) == [".lock", "mixtures"]


def test_second_preparation_at_the_same_time_is_refused(own, tmp_path):
    with storage.exclusive_lock(tmp_path / "data/own", "a test"):
        fails(tmp_path, MIX, "the preparation of 'own' is already running")


PROGRAM = """
    import sys
    from dataclasses import replace
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from diffse.data import mixing, prepare
    import test_corpora
    def slow(batch, make=mixing.make_shard):
        import time
        rows = make(batch)
        (Path({root!r}) / f"made-{{batch.number}}").touch()
        time.sleep(60)
        return rows
    if __name__ == "__main__":
        mixing.make_shard = slow
        test_corpora.run(Path({root!r}), replace(test_corpora.MIX, seed=7, processes=2))
"""


def running(group: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_killed_preparation_leaves_the_old_mixtures_and_no_worker(own, tmp_path):
    run(tmp_path)
    before = contents(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM).format(tests=str(Path(__file__).parent), root=str(tmp_path)))
    child = subprocess.Popen([sys.executable, str(program)], start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("made-*")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.05)
    assert len(running(child.pid)) > 1, "workers must be at work when the parent is killed"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    while running(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(child.pid)
    assert contents(tmp_path) == before
    run(tmp_path)
    assert contents(tmp_path) == before
    assert not (tmp_path / "data/own/.mixtures.partial").exists()


# ------------------------------------------------------------------------------------ real recordings


@pytest.fixture
def real(corpus, tmp_path):
    """A project whose sources hold a few files of the real corpus and lists that name them."""
    source = tmp_path / "sources" / "real"
    for split in manifest.SPLITS:
        for kind, count in (("speech", 3), ("noise", 4)):
            name = f"splits/{split}_{kind}.txt"
            every = (corpus / name).read_text().split()
            files = every[:: max(1, len(every) // count)][:count]
            for file in files:
                (source / file).parent.mkdir(parents=True, exist_ok=True)
                (source / file).symlink_to(corpus / file)
            (source / "splits").mkdir(exist_ok=True)
            (source / name).write_text("\n".join(files) + "\n")
    return tmp_path


def test_real_recordings(real):
    settings = replace(MIX, clean="speech", clean_lists=LISTS, noise_lists=NOISE_LISTS)
    sums = []
    for processes in (1, 2):
        counts = run(real, replace(settings, processes=processes), "real")
        sums.append(contents(real, "real"))
    assert sums[0] == sums[1]
    assert counts["utterances"] == {"train": 3, "valid": 3, "test": 3}
    frame = table(real, "real")
    assert (frame["snr_db"] - frame["snr_measured_db"]).abs().max() < 0.01
    assert frame["level_dbfs"].between(-45.0, -10.0).all()
    assert (frame["clipped"] == 0.0).all()


def test_real_pairs_score_the_si_sdr_they_are_known_for(corpus, tmp_path):
    """The 21 VoiceBank-DEMAND pairs have 8.19 dB SI-SDR unprocessed: any misalignment would destroy it."""
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/vbd").symlink_to(corpus)
    settings = replace(
        PAIRS, clean="pairs/clean", noisy="pairs/noisy", pairs_list="splits/pairs_vbd_test_subset.txt"
    )
    run(tmp_path, settings, "vbd")
    values = []
    for row in table(tmp_path, "vbd").itertuples():
        clean, noisy = (
            wave.astype(np.float64) for wave in shards.read_pair(paths.mixtures(tmp_path, "vbd"), row)
        )
        target = np.dot(noisy, clean) / np.dot(clean, clean) * clean
        values.append(10.0 * np.log10(np.sum(target**2) / np.sum((noisy - target) ** 2)))
    assert len(values) == 21
    assert np.mean(values) == pytest.approx(8.19, abs=0.005)
    assert set(table(tmp_path, "vbd")["speaker"]) == {"p232", "p257"}
