"""The STFT cache: what it holds, what storing costs, and what happens when it is damaged."""

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from small_mixtures import LENGTHS, write_mixtures

from diffse import paths
from diffse.data import manifest, shards, statistics, stft_cache
from diffse.data.cache_reader import CacheReader
from diffse.errors import DiffseError
from diffse.settings import Stft
from diffse.spectrogram import Spectrogram


def build(root: Path, **settings) -> Path:
    """Run the stage with these cache settings; returns the cache's folder."""
    stft_cache.run(SimpleNamespace(cache=Stft(**settings)), "toy", root)
    return paths.cache(root, "toy")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def whole(folder: Path, split: str, item: int) -> np.ndarray:
    reader = CacheReader(folder, split)
    return np.array(reader.read(item, 0, int(reader.n_frames[item])))


def relative_db(error: torch.Tensor, exact: torch.Tensor) -> float:
    return 20 * math.log10(error.norm().item() / exact.norm().item())


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_mixtures(root)
    build(root)
    return root


@pytest.fixture
def mixtures(tmp_path) -> Path:
    return write_mixtures(tmp_path)


@pytest.fixture
def damaged(tmp_path, mixtures) -> Path:
    """A fresh cache, to be damaged by the test."""
    return build(tmp_path)


def test_every_utterance_is_stored_within_half_a_thousandth(root):
    source = paths.mixtures(root, "toy")
    rows = manifest.read(source)
    transform = Spectrogram(factor=1.0)
    for split in ("train", "valid"):
        of_split = rows[rows["split"] == split].reset_index(drop=True)
        assert CacheReader(paths.cache(root, "toy"), split).ids == of_split["id"].tolist()
        for item, row in of_split.iterrows():
            expected = transform.analyse(torch.from_numpy(np.stack(shards.read_pair(source, row))))
            found = torch.from_numpy(whole(paths.cache(root, "toy"), split, item))
            assert found.dtype == torch.float16
            found = torch.view_as_complex(found.float()).permute(1, 2, 0)
            assert found.shape == expected.shape == (2, 256, transform.frames(row["n_samples"]))
            assert torch.linalg.norm(found - expected) < 5e-4 * torch.linalg.norm(expected)


def test_frames_of_a_cut_signal_are_those_of_the_whole_one():
    wave = torch.randn(2, 20011, dtype=torch.float64)
    for transform in (Spectrogram(), Spectrogram(n_fft=512, hop=100), Spectrogram(n_fft=64, hop=32)):
        X = transform.stft(wave)
        for start, length in ((0, 1), (0, 9), (1, 5), (2, 1), (40, 30), (X.shape[-1] - 1, 1)):
            first, last, before = transform.span(wave.shape[-1], start, length)
            part = transform.stft(wave[:, first:last])[..., before : before + length]
            assert torch.allclose(part, X[..., start : start + length], rtol=0, atol=1e-10)


def test_decode_returns_the_waveform(root):
    source = paths.mixtures(root, "toy")
    row = manifest.read(source).iloc[0]
    pair = np.stack(shards.read_pair(source, row))
    stored = whole(paths.cache(root, "toy"), "train", 0)
    wave = stft_cache.decode(stored, Spectrogram(factor=1.0), pair.shape[1])
    assert wave.shape == pair.shape
    assert np.linalg.norm(wave - pair) < 1e-3 * np.linalg.norm(pair)


def test_shards_are_small_mappable_and_never_split_an_utterance(tmp_path, mixtures):
    folder = build(tmp_path, shard_mb=1)
    index = pandas.read_parquet(folder / "index.parquet")
    files = sorted(folder.glob("*-0*.npy"))
    assert sorted(index["shard"].unique()) == [path.name for path in files]
    assert len(files) > 3
    for path in files:
        mapped = np.load(path, mmap_mode="r")
        inside = index[index["shard"] == path.name]
        assert inside["frame"].tolist() == (inside["n_frames"].cumsum() - inside["n_frames"]).tolist()
        assert mapped.shape == (inside["n_frames"].sum(), 2, 256, 2)
        assert mapped.nbytes <= 2**20
    apart = np.concatenate([np.load(path) for path in files if path.name.startswith("train")])
    together = build(tmp_path, shard_mb=64)
    assert np.array_equal(np.load(together / "train-00000.npy"), apart)


def test_an_utterance_larger_than_a_shard_gets_its_own(tmp_path):
    write_mixtures(tmp_path, lengths={"train": [9000, 80000, 9000], "valid": [9000]})
    index = pandas.read_parquet(build(tmp_path, shard_mb=1) / "index.parquet")
    assert index["shard"].tolist() == [
        "train-00000.npy",
        "train-00001.npy",
        "train-00002.npy",
        "valid-00000.npy",
    ]


def test_running_again_gives_the_same_bytes(tmp_path, mixtures):
    first = digests(build(tmp_path))
    assert digests(build(tmp_path)) == first
    description = json.loads((paths.cache(tmp_path, "toy") / "cache.json").read_text())
    assert {name: entry["sha256"] for name, entry in description["files"].items()} == {
        name: digest for name, digest in first.items() if name.endswith(".npy") and name != "checksums.npy"
    }
    assert (
        description["mixtures_sha256"]
        == hashlib.sha256((mixtures / "manifest.parquet").read_bytes()).hexdigest()
    )


def test_a_stage_that_fails_leaves_the_old_cache(tmp_path, mixtures):
    before = digests(build(tmp_path))
    (mixtures / "shard-00001.flac").unlink()
    with pytest.raises(DiffseError, match=r"shard-00001\.flac"):
        build(tmp_path, storage="float32")
    assert digests(paths.cache(tmp_path, "toy")) == before
    assert sorted(path.name for path in mixtures.parent.iterdir()) == ["cache", "mixtures"]


def test_storage_error_is_what_a_reader_finds(root):
    description = json.loads((paths.cache(root, "toy") / "cache.json").read_text())
    source, transform = paths.mixtures(root, "toy"), Spectrogram(factor=1.0)
    spectrogram_db, waveform_db = [], []
    for split in ("train", "valid"):
        rows = manifest.read(source)
        for item, (_, row) in enumerate(rows[rows["split"] == split].iterrows()):
            stored = whole(paths.cache(root, "toy"), split, item).astype(np.float32)
            found = torch.view_as_complex(torch.from_numpy(stored)).permute(1, 2, 0)
            waves = torch.from_numpy(np.stack(shards.read_pair(source, row)))
            restored = transform.synthesise(found, waves.shape[-1])
            for signal in range(2):
                exact = transform.analyse(waves[signal])
                spectrogram_db.append(relative_db(found[signal] - exact, exact))
                error = restored[signal] - waves[signal]
                waveform_db.append(relative_db(error, waves[signal]))
    errors = description["storage_error_db"]
    for name, measured in (("spectrogram", spectrogram_db), ("waveform", waveform_db)):
        assert errors[name]["n"] == len(measured) == 2 * sum(map(len, LENGTHS.values()))
        assert errors[name]["max"] == pytest.approx(max(measured), abs=0.05)
        assert errors[name]["mean"] == pytest.approx(np.mean(measured), abs=0.05)
    assert -80 < errors["spectrogram"]["max"] < -70


def test_single_precision_costs_nothing(tmp_path, mixtures):
    folder = build(tmp_path, storage="float32")
    errors = json.loads((folder / "cache.json").read_text())["storage_error_db"]
    assert errors["spectrogram"]["max"] == stft_cache.NO_ERROR_DB
    assert errors["waveform"]["max"] < -120
    assert np.load(folder / "valid-00000.npy").dtype == np.float32


def test_statistics_are_those_of_peak_normalised_speech(root):
    source, transform = paths.mixtures(root, "toy"), Spectrogram(factor=1.0)
    rows = manifest.read(source)
    clean, noise = [], []
    for _, row in rows[rows["split"] == "train"].iterrows():
        pair = np.stack(shards.read_pair(source, row))
        x, y = transform.analyse(torch.from_numpy(pair / np.abs(pair[1]).max()))
        clean.append(torch.view_as_real(x).flatten())
        noise.append(torch.view_as_real(y - x).flatten())
    found = json.loads((paths.cache(root, "toy") / "cache.json").read_text())["statistics"]
    assert found["sigma_x"] == pytest.approx(torch.cat(clean).square().mean().sqrt().item(), rel=1e-4)
    assert found["sigma_n"] == pytest.approx(torch.cat(noise).square().mean().sqrt().item(), rel=1e-4)
    noisy = torch.cat(clean) + torch.cat(noise)
    assert found["sigma_y"] == pytest.approx(noisy.square().mean().sqrt().item(), rel=1e-4)


def test_levels_come_with_the_cache_in_either_form(tmp_path, mixtures):
    """`estimate` reads no audio: the mixtures and the arrays may be gone."""
    params = [SimpleNamespace(cache=Stft(form=form)) for form in ("spectrogram", "waveform")]
    found = []
    for settings in params:
        folder = build(tmp_path, form=settings.cache.form)
        for shard in folder.glob("train-*.npy"):
            shard.unlink()
        found.append(statistics.run(settings, "toy", tmp_path))
    assert found[0] == found[1] == {**found[0], "utterances": len(LENGTHS["train"])}
    assert statistics.read(paths.statistics(tmp_path, "toy")).items() >= found[0].items()


def test_levels_of_silence_are_refused(tmp_path):
    silent = np.zeros((2, 9000), np.float32)
    write_mixtures(tmp_path, lengths={"train": [9000], "valid": [9000]}, pairs={"train_000": silent})
    build(tmp_path)
    settings = SimpleNamespace(cache=Stft())
    expect_one_line(lambda: statistics.run(settings, "toy", tmp_path), "all training utterances are silent")


def test_every_page_has_its_checksum(tmp_path, mixtures):
    folder = build(tmp_path, shard_mb=4)
    description = json.loads((folder / "cache.json").read_text())
    sums = iter(np.load(folder / "checksums.npy"))
    for name in description["files"]:
        data = (folder / name).read_bytes()
        for start in range(0, len(data), description["page_bytes"]):
            page = data[start : start + description["page_bytes"]]
            assert bytes(next(sums)) == hashlib.sha256(page).digest()
    assert next(sums, None) is None
    assert max(entry["pages"] for entry in description["files"].values()) > 2


def test_the_waveform_form_is_exact_and_takes_half_the_space(tmp_path, mixtures):
    spectrograms = sum(path.stat().st_size for path in build(tmp_path).glob("*-0*.npy"))
    folder = build(tmp_path, form="waveform", shard_mb=1)
    assert sum(path.stat().st_size for path in folder.glob("*-0*.npy")) == pytest.approx(
        spectrograms / 2, rel=0.01
    )
    assert len(list(folder.glob("train-*.npy"))) > 1
    description = json.loads((folder / "cache.json").read_text())
    assert description["storage_error_db"]["spectrogram"]["max"] == stft_cache.NO_ERROR_DB
    rows = manifest.read(mixtures).query("split == 'train'").reset_index(drop=True)
    reader = CacheReader(folder, "train")
    for item, row in rows.iterrows():
        pair = np.stack(shards.read_pair(mixtures, row))
        assert np.array_equal(reader.read_samples(item, 0, row["n_samples"]), pair)
        assert np.array_equal(reader.read_samples(item, 37, 90), pair[:, 37:90])


def test_peaks_are_those_of_the_samples(root):
    source = paths.mixtures(root, "toy")
    reader = CacheReader(paths.cache(root, "toy"), "train")
    for item, row in manifest.read(source).query("split == 'train'").reset_index(drop=True).iterrows():
        pair = np.abs(np.stack(shards.read_pair(source, row)))
        n_frames = int(reader.n_frames[item])
        for signal in range(2):
            assert reader.peak(item, 0, n_frames, signal) == pair[signal].max()
        if n_frames > 20:
            assert reader.peak(item, 7, 5, 1) == pair[1, 7 * 128 : 12 * 128].max()


def test_silence_is_stored_as_silence(tmp_path):
    silent = np.zeros((2, 16000), np.float32)
    write_mixtures(tmp_path, lengths={"train": [16000, 9000], "valid": [9000]}, pairs={"train_000": silent})
    folder = build(tmp_path)
    assert not whole(folder, "train", 0).any()
    description = json.loads((folder / "cache.json").read_text())
    assert description["statistics"]["utterances"] == 1
    assert description["storage_error_db"]["spectrogram"]["n"] == 4


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    write_mixtures(tmp_path / "small", lengths={"train": [50000] * 10, "valid": [9000]})
    write_mixtures(tmp_path / "large", lengths={"train": [50000] * 100, "valid": [9000]})
    script = """
import sys
from pathlib import Path
from types import SimpleNamespace
from diffse.data import stft_cache
from diffse.settings import Stft

def peak_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

for name in ("small", "large"):
    stft_cache.run(SimpleNamespace(cache=Stft()), "toy", Path(sys.argv[1]) / name)
    print(peak_mb())
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    small, large = map(
        float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    )
    stored = sum(path.stat().st_size for path in paths.cache(tmp_path / "large", "toy").iterdir()) / 2**20
    assert large - small < stored / 3


def expect_one_line(action, *parts: str) -> None:
    with pytest.raises(DiffseError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_corpus_without_training_data_is_refused(tmp_path, split):
    write_mixtures(tmp_path, lengths={name: [9000] for name in ("train", "valid", "test") if name != split})
    expect_one_line(lambda: build(tmp_path), "no utterances in the " + split, "cannot be trained on", "toy")


def test_missing_mixtures_mixed_rates_and_a_full_disk_are_refused(tmp_path, monkeypatch):
    expect_one_line(lambda: build(tmp_path), "manifest.parquet", "no such file")
    folder = write_mixtures(tmp_path)
    rows = manifest.read(folder)
    rows.loc[0, "rate"] = 48000
    manifest.write(rows, folder)
    expect_one_line(lambda: build(tmp_path), "16000, 48000 Hz")
    rows.loc[0, "rate"] = 16000
    manifest.write(rows, folder)
    monkeypatch.setattr(stft_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    expect_one_line(lambda: build(tmp_path), "the disk has 0.0 GB free")
    assert not paths.cache(tmp_path, "toy").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def reordered(path: Path) -> None:
    pandas.read_parquet(path).iloc[::-1].to_parquet(path, index=False)


def read_all(folder: Path) -> None:
    reader = CacheReader(folder, "train")
    for item in range(len(reader)):
        reader.read(item, 0, 1)


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("cache.json", Path.unlink, "run 'diffse cache toy'"),
        ("cache.json", lambda path: path.write_text("{"), "not valid JSON"),
        ("cache.json", lambda path: path.write_text('{"format": 99}'), "not a cache of format 2"),
        ("index.parquet", Path.unlink, "is missing; run 'diffse cache toy' again"),
        ("index.parquet", cut, "cannot be read"),
        ("index.parquet", lambda path: pandas.DataFrame({"id": ["a"]}).to_parquet(path), "columns id"),
        ("index.parquet", reordered, "is not what was written with cache.json"),
        ("checksums.npy", Path.unlink, "is missing"),
        ("checksums.npy", cut, "is not what was written with cache.json"),
        ("train-00000.npy", Path.unlink, "is missing; run 'diffse cache toy' again"),
        ("train-00000.npy", cut, "cannot be read"),
        ("train-00000.npy", lambda path: path.write_bytes(b""), "cannot be read"),
        (
            "train-00000.npy",
            lambda path: np.save(path, np.zeros((3, 2, 256, 2), np.float16)),
            "holds float16 (3,",
        ),
        ("peaks-train.npy", Path.unlink, "is missing"),
        ("peaks-train.npy", cut, "cannot be read"),
    ],
)
def test_damage_is_one_clear_line(damaged, name, damage, expected):
    read_all(damaged)
    damage(damaged / name)
    expect_one_line(lambda: read_all(damaged), expected, str(damaged))


def test_a_changed_byte_is_found_by_whoever_reads_it(damaged):
    """Size and time are as before, so that version control does not see it."""
    reader = CacheReader(damaged, "train")
    path = damaged / reader._shards[3]
    facts, data = path.stat(), bytearray(path.read_bytes())
    item, frames = 3, int(reader.n_frames[3])
    frame_size = 2 * 256 * 2 * 2
    data[128 + (int(reader._frame[item]) + frames // 2) * frame_size] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    expect_one_line(
        lambda: CacheReader(damaged, "train").read(item, 0, frames), path.name, "damaged (page", "again"
    )
    data[128 + (int(reader._frame[item]) + frames // 2) * frame_size] ^= 1
    path.write_bytes(data)
    assert CacheReader(damaged, "train").read(item, 0, frames).shape[0] == frames


def test_an_unknown_split_and_frames_outside_an_utterance_are_refused(root):
    folder = paths.cache(root, "toy")
    expect_one_line(lambda: CacheReader(folder, "test"), "no utterances in the test split")
    reader = CacheReader(folder, "train")
    for start, length in ((-1, 2), (0, int(reader.n_frames[0]) + 1), (5, 0)):
        with pytest.raises(IndexError):
            reader.read(0, start, length)


@pytest.mark.parametrize("other", [{"hop": 64}, {"exponent": 0.667}, {"window": "sqrthann"}, {"n_fft": 512}])
def test_a_cache_of_another_transform_is_refused(root, other):
    reader = CacheReader(paths.cache(root, "toy"), "train")
    reader.expect(Stft(storage="float32", shard_mb=1))
    expect_one_line(lambda: reader.expect(Stft(**other)), f"{next(iter(other.values()))}", "diffse cache toy")
