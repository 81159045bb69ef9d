"""Training crops: the right numbers, in an order that nothing but seed and step can change."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_mixtures import LENGTHS, write_mixtures

from diffse import paths
from diffse.data import manifest, shards, stft_cache
from diffse.data.batches import CropSource, MixtureWaves, Order, Prefetcher, WaveSource, cached_crops
from diffse.data.cache_reader import CacheReader
from diffse.errors import DiffseError
from diffse.settings import Stft
from diffse.spectrogram import Spectrogram

FRAMES, FACTOR, SEED = 64, 0.15, 3
PINNED_ITEMS = [3, 1, 4, 5, 2, 0, 6, 7, 5, 6, 4, 7, 0, 2, 3, 1]
PINNED_STARTS = [941, 355, 314, 804]
STORAGE_ERROR = 4e-4  # of half precision, relative: rounding to 11 bits


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_mixtures(root)
    stft_cache.run(SimpleNamespace(cache=Stft(shard_mb=1)), "toy", root)
    return root


@pytest.fixture
def crops(root) -> CropSource:
    return CropSource(CacheReader(paths.cache(root, "toy"), "train"), FRAMES, FACTOR, SEED)


@pytest.fixture
def waves(root) -> WaveSource:
    return WaveSource(
        MixtureWaves(paths.mixtures(root, "toy"), "train"), Spectrogram(factor=FACTOR), FRAMES, SEED
    )


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))


def expected_crop(root: Path, source: CropSource, k: int) -> torch.Tensor:
    """[2, F, T] by hand: normalise the waveform, transform all of it, cut, centre."""
    rows = manifest.read(paths.mixtures(root, "toy")).query("split == 'train'").reset_index(drop=True)
    row = rows.iloc[source.order.item(k)]
    pair = torch.from_numpy(np.stack(shards.read_pair(paths.mixtures(root, "toy"), row)))
    transform = Spectrogram(factor=FACTOR)
    available = transform.frames(pair.shape[1])
    if available <= FRAMES:
        X = transform.analyse(pair / pair[1].abs().max())
        missing = FRAMES - available
        return torch.nn.functional.pad(X, (missing // 2, missing - missing // 2))
    start = source.order.start(k, available - FRAMES + 1)
    samples = pair[1, start * 128 : (start + FRAMES - 1) * 128]
    return transform.analyse(pair / samples.abs().max())[..., start : start + FRAMES]


def test_crops_are_those_of_the_normalised_waveform(root, crops, waves):
    for k in range(3 * len(crops)):
        clean, noisy = crops.sample(k)
        expected = expected_crop(root, crops, k)
        assert clean.shape == noisy.shape == (256, FRAMES)
        assert clean.dtype == noisy.dtype == torch.complex64
        assert relative(clean, expected[0]) < STORAGE_ERROR
        assert relative(noisy, expected[1]) < STORAGE_ERROR
        for found, wanted in zip(waves.sample(k), expected, strict=True):
            assert relative(found, wanted) < 3e-5


def test_the_whole_utterance_and_its_ends_can_be_in_a_crop(root, crops):
    """Among the crops are the first and the last frames, and utterances shorter than a crop."""
    starts, seen_short = set(), False
    for k in range(300 * len(crops)):
        available = int(crops.cache.n_frames[crops.order.item(k)])
        seen_short |= available < FRAMES
        if available == 157:  # of 20000 samples
            starts.add(crops.order.start(k, available - FRAMES + 1))
    assert seen_short
    assert starts <= set(range(157 - FRAMES + 1))
    assert {0, 157 - FRAMES} <= starts
    assert len(starts) > 80


@pytest.mark.parametrize(("normalise", "signal"), [("clean", 0), ("noisy", 1)])
def test_normalisation_makes_the_chosen_peak_one(root, normalise, signal):
    options = (CacheReader(paths.cache(root, "toy"), "train"), FRAMES, FACTOR, SEED)
    plain, scaled = CropSource(*options, "none"), CropSource(*options, normalise)
    rows = manifest.read(paths.mixtures(root, "toy")).query("split == 'train'").reset_index(drop=True)
    for k in range(len(plain)):
        item = plain.order.item(k)
        pair = np.stack(shards.read_pair(paths.mixtures(root, "toy"), rows.iloc[item]))
        available = int(plain.cache.n_frames[item])
        start = plain.order.start(k, max(available - FRAMES, 0) + 1)
        stop = (start + FRAMES - 1) * 128 if available > FRAMES else pair.shape[1]
        peak = np.abs(pair[signal, start * 128 : stop]).max()
        for found, unscaled in zip(scaled.sample(k), plain.sample(k), strict=True):
            assert relative(found, unscaled / peak**0.5) < 1e-6


def test_another_factor_and_exponent_are_honoured(tmp_path):
    write_mixtures(tmp_path)
    stft_cache.run(SimpleNamespace(cache=Stft(exponent=0.667, storage="float32")), "toy", tmp_path)
    stored = CropSource(CacheReader(paths.cache(tmp_path, "toy"), "valid"), FRAMES, 0.065, SEED)
    transform = Spectrogram(exponent=0.667, factor=0.065)
    direct = WaveSource(MixtureWaves(paths.mixtures(tmp_path, "toy"), "valid"), transform, FRAMES, SEED)
    for k in range(4):
        for found, expected in zip(stored.sample(k), direct.sample(k), strict=True):
            assert relative(found, expected) < 3e-5


def test_silent_crops_stay_silent_and_quiet_ones_are_scaled(tmp_path):
    silent = np.zeros((2, 16000), np.float32)
    quiet = 1e-3 * np.random.default_rng(0).standard_normal((2, 16000)).astype(np.float32)
    write_mixtures(
        tmp_path,
        lengths={"train": [16000, 16000], "valid": [9000]},
        pairs={"train_000": silent, "train_001": quiet},
    )
    stft_cache.run(SimpleNamespace(cache=Stft()), "toy", tmp_path)
    stored = CropSource(CacheReader(paths.cache(tmp_path, "toy"), "train"), FRAMES, FACTOR, SEED)
    direct = WaveSource(
        MixtureWaves(paths.mixtures(tmp_path, "toy"), "train"), Spectrogram(factor=FACTOR), FRAMES, SEED
    )
    for source in (stored, direct):
        by_item = {source.order.item(k): source.sample(k) for k in range(2)}
        assert not torch.view_as_real(torch.stack(by_item[0])).any()
        assert 0.1 < by_item[1][1].abs().max() < 3


def test_the_peak_of_a_whole_utterance_may_be_its_last_sample(tmp_path):
    pair = 0.01 * np.random.default_rng(1).standard_normal((2, 7001)).astype(np.float32)
    pair[1, -1] = 0.5
    write_mixtures(tmp_path, lengths={"train": [7001], "valid": [7001]}, pairs={"train_000": pair})
    stft_cache.run(SimpleNamespace(cache=Stft()), "toy", tmp_path)
    stored = CropSource(CacheReader(paths.cache(tmp_path, "toy"), "train"), FRAMES, FACTOR, SEED)
    direct = WaveSource(
        MixtureWaves(paths.mixtures(tmp_path, "toy"), "train"), Spectrogram(factor=FACTOR), FRAMES, SEED
    )
    expected = Spectrogram(factor=FACTOR).analyse(torch.from_numpy(pair / 0.5))
    left = (FRAMES - expected.shape[-1]) // 2
    for source in (stored, direct):
        clean, noisy = (X[:, left : left + expected.shape[-1]] for X in source.sample(0))
        assert relative(clean, expected[0]) < STORAGE_ERROR
        assert relative(noisy, expected[1]) < STORAGE_ERROR


def test_each_epoch_holds_every_utterance_once(crops):
    n = len(LENGTHS["train"])
    epochs = [[crops.order.item(k) for k in range(e * n, (e + 1) * n)] for e in range(20)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 15


def test_the_order_is_pinned():
    """Recorded: a change of the order breaks resumed runs and must not come unnoticed."""
    order = Order(8, 0)
    assert [order.item(k) for k in range(16)] == PINNED_ITEMS
    assert [order.start(k, 1000) for k in range(4)] == PINNED_STARTS
    assert [Order(8, 1).item(k) for k in range(8)] != PINNED_ITEMS[:8]


def test_start_positions_are_uniform():
    counts = np.bincount([Order(3, 5).start(k, 10) for k in range(20000)], minlength=10)
    assert counts.shape == (10,)
    assert ((counts - 2000) ** 2 / 2000).sum() < 30  # chi-square of 9 degrees: exceeded in 1 of 2000 seeds


@pytest.mark.parametrize("kind", ["crops", "waves"])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_processes_together_see_the_single_process_batch(request, kind, world):
    source = request.getfixturevalue(kind)
    whole = source.batch(4, 5)
    assert whole["k"] == list(range(20, 25))
    assert whole["clean"].shape == whole["noisy"].shape == (5, 1, 256, FRAMES)
    for rank in range(world):
        part = source.batch(4, 5, rank, world)
        assert part["k"] == whole["k"][rank::world]
        assert part["ids"] == whole["ids"][rank::world]
        assert torch.equal(part["clean"], whole["clean"][rank::world])
        assert torch.equal(part["noisy"], whole["noisy"][rank::world])


def test_a_batch_names_its_utterances(root, crops):
    batch = crops.batch(0, 4)
    rows = manifest.read(paths.mixtures(root, "toy"))
    assert batch["ids"] == [crops.ids[crops.order.item(k)] for k in range(4)]
    assert set(batch["ids"]) <= set(rows.loc[rows["split"] == "train", "id"])
    for place, k in enumerate(batch["k"]):
        clean, noisy = crops.sample(k)
        assert torch.equal(batch["clean"][place, 0], clean)
        assert torch.equal(batch["noisy"][place, 0], noisy)


def same(first: list[dict], second: list[dict]) -> bool:
    return len(first) == len(second) and all(
        a["k"] == b["k"] and torch.equal(a["clean"], b["clean"]) and torch.equal(a["noisy"], b["noisy"])
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("kind", ["crops", "waves"])
def test_a_batch_lies_in_memory_frame_after_frame(request, kind):
    """So that nothing is turned where it costs most, and a copy to a GPU takes one piece."""
    batch = request.getfixturevalue(kind).batch(0, 4)
    for signal in ("clean", "noisy"):
        assert batch[signal].mT.is_contiguous()


@pytest.mark.parametrize("kind", ["crops", "waves"])
def test_workers_and_restarts_change_nothing(request, kind):
    source = request.getfixturevalue(kind)
    expected = [source.batch(step, 3) for step in range(9)]
    for workers in (0, 1, 2):
        with Prefetcher(source, 3, 0, 9, workers=workers) as batches:
            assert same(list(batches), expected)
        with Prefetcher(source, 3, 5, 9, workers=workers) as batches:
            assert same(list(batches), expected[5:])
        parts = [list(Prefetcher(source, 3, 2, 4, rank=rank, world=2, workers=workers)) for rank in range(2)]
        assert [part["k"] for part in parts[0]] == [[6, 8], [9, 11]]
        assert [part["k"] for part in parts[1]] == [[7], [10]]


class Slow:
    """A source whose batches end in another order than they begin, and whose step 6 fails."""

    def __init__(self):
        self.ended, self.computed = threading.Event(), []

    def batch(self, step: int, batch: int, rank: int, world: int) -> dict:
        if step == 0:
            assert self.ended.wait(20)
        if step == 1:
            self.ended.set()
        if step == 6:
            raise DiffseError("step 6 cannot be read")
        if step >= 10:
            time.sleep(0.01)
        self.computed.append(step)
        return {"k": [step]}


def test_a_slow_batch_does_not_lose_its_place():
    source = Slow()
    with Prefetcher(source, 1, 0, 6, workers=2) as batches:
        assert [batch["k"] for batch in batches] == [[0], [1], [2], [3], [4], [5]]
    assert source.computed[0] == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_batch_is_raised_where_it_is_asked_for(workers):
    with Prefetcher(Slow(), 1, 2, 9, workers=workers) as batches:
        assert [next(batches)["k"][0] for _ in range(4)] == [2, 3, 4, 5]
        with pytest.raises(DiffseError, match="step 6"):
            next(batches)


def test_leaving_drops_what_was_not_asked_for_and_ends_the_threads():
    source, before = Slow(), threading.active_count()
    with Prefetcher(source, 1, 10, 10**9, workers=2, ahead=100) as batches:
        next(batches)
    assert len(source.computed) < 50
    assert threading.active_count() <= before  # a thread of an earlier test may have ended meanwhile


def test_only_the_crop_is_read(crops):
    """What comes from the cache is a contiguous piece of a memory-mapped file."""
    piece = crops.cache.read(0, 3, 10)
    assert isinstance(piece, np.memmap)
    assert piece.flags["C_CONTIGUOUS"]
    assert piece.shape == (10, 2, 256, 2)


def test_what_cannot_be_is_refused(root, crops):
    with pytest.raises(DiffseError, match="cannot be shared by 3 processes"):
        crops.batch(0, 2, 0, 3)
    with pytest.raises(DiffseError, match="too short"):
        CropSource(CacheReader(paths.cache(root, "toy"), "train"), 1, FACTOR, SEED)
    with pytest.raises(DiffseError, match="no utterances in the test split"):
        WaveSource(MixtureWaves(paths.mixtures(root, "toy"), "test"), Spectrogram(), FRAMES, SEED)
    with pytest.raises(DiffseError, match="made with exponent"):
        cached_crops(paths.cache(root, "toy"), "train", 64, FACTOR, SEED, Stft(exponent=1.0))


@pytest.mark.parametrize("options", [{}, {"normalise": "clean"}, {"peak_of": "utterance"}, {"short": "repeat"}])
def test_both_forms_of_the_cache_give_the_same_crops(root, tmp_path, options):
    (tmp_path / "data/toy").mkdir(parents=True)
    (tmp_path / "data/toy/mixtures").symlink_to(paths.mixtures(root, "toy"))
    stft_cache.run(SimpleNamespace(cache=Stft(form="waveform")), "toy", tmp_path)
    both = [
        cached_crops(paths.cache(place, "toy"), "train", FRAMES, FACTOR, SEED, Stft(), **options)
        for place in (root, tmp_path)
    ]
    assert [type(source) for source in both] == [CropSource, WaveSource]
    for step in range(4):
        spectrograms, waves = (source.batch(step, 5) for source in both)
        assert (spectrograms["k"], spectrograms["ids"]) == (waves["k"], waves["ids"])
        for signal in ("clean", "noisy"):
            assert spectrograms[signal].shape == waves[signal].shape == (5, 1, 256, FRAMES)
            assert relative(spectrograms[signal], waves[signal]) < STORAGE_ERROR


def test_crops_of_a_waveform_cache_are_exact(root, waves, tmp_path):
    (tmp_path / "data/toy").mkdir(parents=True)
    (tmp_path / "data/toy/mixtures").symlink_to(paths.mixtures(root, "toy"))
    stft_cache.run(SimpleNamespace(cache=Stft(form="waveform", shard_mb=1)), "toy", tmp_path)
    cached = cached_crops(paths.cache(tmp_path, "toy"), "train", FRAMES, FACTOR, SEED, Stft())
    for k in range(2 * len(cached)):
        for found, expected in zip(cached.sample(k), waves.sample(k), strict=True):
            assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="holds no spectrograms"):
        CropSource(cached.waves, FRAMES, FACTOR, SEED)
