"""Training crops. Which ones, and in what order, depends on the seed and the sample number alone.

Sample number k = step * batch + place in the batch, counted over all processes. Its utterance is entry
k mod N of the permutation of epoch k div N, its first frame is drawn for k alone; nothing is remembered from
one sample to the next. Restarts, workers and processes therefore cannot change what training sees.
"""

import functools
import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from diffse.data import manifest, shards
from diffse.data.buffers import Buffers
from diffse.data.cache_reader import CacheReader
from diffse.errors import DiffseError
from diffse.settings import Stft
from diffse.spectrogram import Spectrogram

Normalise = Literal["noisy", "clean", "none"]
PeakOf = Literal["crop", "utterance"]
Short = Literal["zeros", "repeat"]
Pair = tuple[torch.Tensor, torch.Tensor]

BLOCK = 128  # frames widened and scaled at a time: they stay in a processor's cache
SILENCE = 1e-5  # a crop whose peak is below (-100 dB) is not scaled up: that would only amplify rounding


class Order:
    """The endless sequence of utterances and crop positions.

    Only raw bits of the Philox generator are used: numpy promises those for ever, its distributions not.
    """

    def __init__(self, utterances: int, seed: int):
        self.utterances, self.seed = utterances, seed
        self._permutation = functools.lru_cache(maxsize=2)(self._permute)

    def item(self, k: int) -> int:
        """Utterance of sample k; every utterance occurs once in each epoch of N samples."""
        epoch, place = divmod(k, self.utterances)
        return int(self._permutation(epoch)[place])

    def start(self, k: int, choices: int) -> int:
        """Position of sample k's crop, uniform on 0 ... choices - 1."""
        return int(self._bits("start", k, 1)[0]) * choices >> 64

    def _permute(self, epoch: int) -> np.ndarray:
        return np.argsort(self._bits("permutation", epoch, self.utterances), kind="stable")

    def _bits(self, purpose: str, number: int, count: int) -> np.ndarray:
        digest = hashlib.sha256(f"{purpose} {self.seed} {number}".encode()).digest()
        return np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)


class CropSource:
    """Crops from the STFT cache: one contiguous read and one scaling each.

    frames: T >= 2; factor: beta of the compressed spectrogram; normalise: the signal whose peak, within the
    crop (paper 000, section V-A) or the utterance, becomes 1. Shorter utterances stand in the middle of zeros,
    or are repeated.
    """

    def __init__(
        self,
        cache: CacheReader,
        frames: int,
        factor: float,
        seed: int,
        normalise: Normalise = "noisy",
        peak_of: PeakOf = "crop",
        short: Short = "zeros",
    ):
        if cache.stft.form != "spectrogram":
            raise ValueError("a waveform cache holds no spectrograms; see `cached_crops`")
        self.cache = cache
        self.frames, self.factor, self.normalise = _at_least_two(frames), factor, normalise
        self.peak_of, self.short = peak_of, short
        self.ids, self.order, self.buffers = self.cache.ids, Order(len(self.cache), seed), Buffers()

    def __len__(self) -> int:
        return len(self.ids)

    def sample(self, k: int) -> Pair:
        """(clean, noisy) of sample k: complex64 [F, T], normalised and scaled."""
        return _alone(self, self.cache.stft.n_fft // 2 + 1, k)

    def fill(self, k: int, clean: torch.Tensor, noisy: torch.Tensor) -> None:
        """Write sample k into two complex64 [F, T]; fastest where a frame's bins are neighbours in memory."""
        item = self.order.item(k)
        available = int(self.cache.n_frames[item])
        length = min(available, self.frames)
        start = self.order.start(k, available - length + 1)
        stored = torch.from_numpy(self.cache.read(item, start, length))
        scale = self._scale(item, start, length)
        if length == self.frames:
            _scaled(stored, scale, clean, noisy)
            return
        X = torch.empty((2, length, stored.shape[2]), dtype=torch.complex64).mT
        _scaled(stored, scale, *X)
        for signal, target in zip(X, (clean, noisy), strict=True):
            _place(signal, target, self.short)

    def batch(self, step: int, batch: int, rank: int = 0, world: int = 1) -> dict[str, Any]:
        """Process `rank`'s part of the batch of a step; see `collate`."""
        return collate(self, self.cache.stft.n_fft // 2 + 1, step, batch, rank, world)

    def _scale(self, item: int, start: int, length: int) -> float:
        if self.normalise == "none":
            return self.factor
        signal = 1 if self.normalise == "noisy" else 0
        available = int(self.cache.n_frames[item])
        if self.peak_of == "utterance":
            start, length = 0, available
        hops = peak_hops(length, available)
        return self.factor * gain(self.cache.peak(item, start, hops, signal)) ** self.cache.stft.exponent


class MixtureWaves:
    """The audio of one split of the mixtures, read from their shards."""

    def __init__(self, mixtures_folder: Path | str, split: str):
        rows = manifest.read(mixtures_folder, only=("id", "split", "n_samples", "shard", "position"))
        rows = rows[rows["split"] == split]
        if rows.empty:
            raise DiffseError(f"{mixtures_folder}: no utterances in the {split} split")
        self.folder, self.ids = Path(mixtures_folder), rows["id"].tolist()
        self.n_samples = rows["n_samples"].to_numpy()
        self._shard, self._position = rows["shard"].tolist(), rows["position"].to_numpy()

    def read_samples(self, item: int, first: int, last: int) -> np.ndarray:
        """Samples first ... last - 1 of utterance `item`: float32 [2 (clean, noisy), last - first]."""
        position = int(self._position[item]) + first
        return shards.read_item(self.folder, self._shard[item], position, last - first)


class WaveSource:
    """The same crops from audio, transformed when they are asked for, which takes more time per crop.

    waves: `MixtureWaves`, or the `CacheReader` of a waveform cache. The transform, with its factor, is the
    argument `spectrogram`.
    """

    def __init__(
        self,
        waves: MixtureWaves | CacheReader,
        spectrogram: Spectrogram,
        frames: int,
        seed: int,
        normalise: Normalise = "noisy",
        peak_of: PeakOf = "crop",
        short: Short = "zeros",
    ):
        self.waves, self.spectrogram, self.normalise = waves, spectrogram, normalise
        self.frames, self.peak_of, self.short = _at_least_two(frames), peak_of, short
        self.ids, self.order, self.buffers = waves.ids, Order(len(waves.ids), seed), Buffers()

    def __len__(self) -> int:
        return len(self.ids)

    def sample(self, k: int) -> Pair:
        """(clean, noisy) of sample k: complex64 [F, T], normalised and scaled."""
        return _alone(self, self.spectrogram.freq_bins, k)

    def fill(self, k: int, clean: torch.Tensor, noisy: torch.Tensor) -> None:
        """Write sample k into two complex64 [F, T]."""
        item = self.order.item(k)
        available = self.spectrogram.frames(int(self.waves.n_samples[item]))
        length = min(available, self.frames)
        start = self.order.start(k, available - length + 1)
        X = self._analyse(item, start, length, peak_hops(length, available))
        for signal, target in enumerate((clean, noisy)):
            _place(X[signal], target, self.short)

    def batch(self, step: int, batch: int, rank: int = 0, world: int = 1) -> dict[str, Any]:
        """Process `rank`'s part of the batch of a step; see `collate`."""
        return collate(self, self.spectrogram.freq_bins, step, batch, rank, world)

    def _analyse(self, item: int, start: int, length: int, hops: int) -> torch.Tensor:
        """Frames start ... start + length - 1 of an utterance: [2, F, length]."""
        hop, n_samples = self.spectrogram.hop, int(self.waves.n_samples[item])
        first, last, before = self.spectrogram.span(n_samples, start, length)
        pair = self.waves.read_samples(item, first, last)
        if self.normalise != "none":
            measured = pair[:, before * hop : (before + hops) * hop]
            if self.peak_of == "utterance":
                measured = self.waves.read_samples(item, 0, n_samples)
            peak = np.abs(measured[1 if self.normalise == "noisy" else 0]).max(initial=0.0)
            pair = pair * np.float32(gain(float(peak)))
        return self.spectrogram.analyse(torch.from_numpy(pair))[..., before : before + length]


def cached_crops(
    cache_folder: Path | str, split: str, frames: int, factor: float, seed: int, expected: Stft, **options: Any
) -> CropSource | WaveSource:
    """Crops of a cache, whichever its form; options are those of the two classes.

    DiffseError when the cache is missing or damaged, or was made with another transform than `expected`.
    """
    cache = CacheReader(cache_folder, split)
    cache.expect(expected)
    if cache.stft.form == "spectrogram":
        return CropSource(cache, frames, factor, seed, **options)
    stft = cache.stft
    transform = Spectrogram(stft.n_fft, stft.hop, stft.window, stft.exponent, factor)
    return WaveSource(cache, transform, frames, seed, **options)


def peak_hops(length: int, available: int) -> int:
    """Hops of samples whose peak normalises a crop of `length` out of `available` frames.

    Those between the first and the last frame's centre, as published; all when the whole utterance is taken.
    """
    return length if length == available else length - 1


def gain(peak: float) -> float:
    """What makes the peak 1; 1 for silence, which has no peak to speak of."""
    return 1 / peak if peak > SILENCE else 1.0


def _scaled(stored: torch.Tensor, scale: float, clean: torch.Tensor, noisy: torch.Tensor) -> None:
    """Write stored frames [T, 2, F, 2], scaled, into two complex64 [F, T]."""
    for first in range(0, len(stored), BLOCK):
        last = first + BLOCK
        for signal, target in enumerate((clean, noisy)):
            rows = torch.view_as_real(target.mT[first:last])
            rows.copy_(stored[first:last, signal]).mul_(scale)  # in two: 16 bits would round the product


def _place(X: torch.Tensor, target: torch.Tensor, short: Short) -> None:
    """Copy [F, length] into [F, T]: a shorter crop between zeros, or repeated."""
    length, frames = X.shape[-1], target.shape[-1]
    if length == frames:
        target.copy_(X)
    elif short == "repeat":
        torch.index_select(X, -1, torch.arange(frames) % length, out=target)
    else:
        left = (frames - length) // 2
        target.zero_()
        target[:, left : left + length] = X


def _alone(source: "CropSource | WaveSource", freq_bins: int, k: int) -> Pair:
    clean, noisy = torch.empty((2, source.frames, freq_bins), dtype=torch.complex64).mT
    source.fill(k, clean, noisy)
    return clean, noisy


def _at_least_two(frames: int) -> int:
    if frames < 2:
        raise DiffseError(f"training crops of {frames} frames are too short; set frames to 2 or more")
    return frames


def collate(
    source: CropSource | WaveSource, freq_bins: int, step: int, batch: int, rank: int = 0, world: int = 1
) -> dict[str, Any]:
    """Process `rank`'s part of the global batch of `step`: samples step * batch + rank, + rank + world, ...

    Returns k: list of b sample numbers; ids: list of b; clean, noisy: complex64 [b, 1, F, T], in memory frame
    after frame, as a cache stores them: whoever needs another order turns them where they are used, on a GPU
    for next to nothing. The parts of all processes together are the batch that a single process gets.
    """
    if not 0 <= rank < world <= batch:
        raise DiffseError(f"batch {batch} cannot be shared by {world} processes (rank {rank}); raise the batch")
    numbers = list(range(step * batch + rank, (step + 1) * batch, world))
    clean, noisy = source.buffers.take((2, len(numbers), 1, source.frames, freq_bins)).mT
    for place, k in enumerate(numbers):
        source.fill(k, clean[place, 0], noisy[place, 0])
    ids = [source.ids[source.order.item(k)] for k in numbers]
    return {"k": numbers, "ids": ids, "clean": clean, "noisy": noisy}


class Prefetcher:
    """Iterates over the batches of steps first ... last - 1, computing up to `ahead` of them in advance.

    `workers` threads compute them (0: none, each batch when it is asked for); the results and their order are
    the same for any number. A context manager; leaving it stops the threads. What a worker raises is raised
    where its batch is asked for.
    """

    def __init__(
        self,
        source: CropSource | WaveSource,
        batch: int,
        first: int,
        last: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 1,
        ahead: int = 4,
    ):
        self.source, self.batch, self.rank, self.world = source, batch, rank, world
        self._steps = iter(range(first, last))
        self._pool = ThreadPoolExecutor(workers, "batches") if workers else None
        self._ahead = max(ahead, workers)
        self._pending: deque[Future] = deque()

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; batches not asked for are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if self._pool is None:
            return self._compute(next(self._steps))
        while len(self._pending) < self._ahead and (step := next(self._steps, None)) is not None:
            self._pending.append(self._pool.submit(self._compute, step))
        if not self._pending:
            raise StopIteration
        return self._pending.popleft().result()

    def _compute(self, step: int) -> dict[str, Any]:
        return self.source.batch(step, self.batch, self.rank, self.world)
