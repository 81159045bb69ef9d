"""`prepare` on folders: splits, ids, pairs, bad files, bad settings, and the same bytes every time."""

import random
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from own_recordings import (
    LISTS,
    MIX,
    NOISE_LISTS,
    PAIRS,
    RATE,
    build,
    contents,
    fails,
    lists,
    rejected,
    run,
    sound,
    table,
)

from diffse import audio, paths
from diffse.data import manifest, mixing, prepare, shards
from diffse.data.corpora import folder
from diffse.data.parallel import Workers
from diffse.settings import SplitCounts


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
    found = folder.find(MIX, own, tmp_path, Workers(1))
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
