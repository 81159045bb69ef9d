"""Enhancement of arrays with a trained system: the same length, rate, channels and level out as in.

    enhancer = Enhancer.from_checkpoint("models/bridge_demo.demo")
    clean = enhancer(noisy, rate)                                  # [samples] or [channels, samples]

Each channel, and each chunk of a long signal, is enhanced by itself: divided by its peak, padded to whole
blocks of frames, sampled, and multiplied by its peak again. Items of equal padded length share a batch; the
noise of an item depends on (seed, key) alone. The result is therefore the same batched or alone.
"""

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffse import audio, chunking, recipes, settings, winograd
from diffse.compiling import compile_
from diffse.errors import DiffseError
from diffse.precision import Precision, autocast
from diffse.spectrogram import pad_frames

BLOCK = 64  # frames: every length is padded to a multiple, so that items of like length can share a batch
SILENCE = 1e-9  # peak below which a signal is returned as it is


class Enhancer:
    """A trained system behind one call.

    Args:
        system: what `recipes.load_system` returns. device: where the network runs.
        batch: items per network call; None takes the recipe's setting.
        seed: of the samplers' noise. resample: take other rates than the system's, and return them.
        precision: of the networks' arithmetic; None takes the recipe's.
    """

    def __init__(
        self,
        system: recipes.System,
        device: str | torch.device = "cpu",
        batch: int | None = None,
        seed: int | None = None,
        resample: bool = True,
        precision: Precision | None = None,
    ) -> None:
        if batch is not None and batch < 1:
            raise DiffseError(f"batch is {batch}; at least 1 is needed")
        self.system, self.device, self.resample = system, torch.device(device), resample
        self.seed = system.enhance.seed if seed is None else seed
        self.batch = batch or system.enhance.batch
        self.precision = precision or system.enhance.precision
        if self.device.type == "cpu":
            system.network.to(memory_format=winograd.memory_format(system.network))
        if system.enhance.compile:
            compile_(system.network)
        self._counted = _Counted(system.objective, autocast(self.device, self.precision))
        self._sample = recipes.build_sampler(system.enhance.sampler, system.train, self._counted)
        self._multiple = math.lcm(BLOCK, system.network.frame_multiple)
        self.rate = system.train.rate

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str | None = None,
        steps: int | None = None,
        sampler: object | None = None,
        enhance: settings.Enhance | None = None,
        predictor: str | Path | None = None,
        ema: float | None = None,
        **options,
    ) -> "Enhancer":
        """Load a checkpoint folder (or the model folder that holds it).

        `steps` changes the number of sampling steps, `sampler` the whole sampler, `enhance` all settings of
        that name (settings objects); otherwise those stored with the checkpoint hold. `predictor`: checkpoint
        whose predictor a StoRM system is to use; `ema`: length of the average of the weights, reconstructed
        from snapshots. `device`: "cpu", "cuda", ...; by default the first GPU where there is one. Raises
        DiffseError for what is not a sound checkpoint.
        """
        device = checked_device(device)
        system = recipes.load_system(path, device, enhance, sampler, ema)
        if predictor is not None:
            system = recipes.with_predictor(system, predictor, device)
        if steps is not None:
            if steps < 1:
                raise DiffseError(f"steps is {steps}; at least 1 is needed")
            if not hasattr(system.enhance.sampler, "steps"):
                raise DiffseError(f"sampler '{system.enhance.sampler.name}' has no number of steps to change")
            changed = dataclasses.replace(system.enhance.sampler, steps=steps)
            system = dataclasses.replace(system, enhance=dataclasses.replace(system.enhance, sampler=changed))
        return cls(system, device, **options)

    @property
    def evaluations(self) -> float:
        """Examples that go through the networks for one signal; measured so far where error control decides."""
        stated = recipes.evaluations(self.system.train, self.system.enhance.sampler)
        return self._counted.per_signal if stated is None else stated

    # ------------------------------------------------------------------------------------------- arrays

    def __call__(self, wave: np.ndarray, rate: int, key: str = "") -> np.ndarray:
        """Enhance one signal, [samples] or [channels, samples], at `rate` Hz; float32 of the same shape.

        Raises DiffseError for empty or non-finite signals, and for another rate when resampling is off.
        """
        return self.many([wave], rate, [key])[0]

    def many(
        self,
        waves: Sequence[np.ndarray],
        rate: int,
        keys: Sequence[str],
        tell: Callable[[], object] = lambda: None,
    ) -> list[np.ndarray]:
        """Enhance several signals of one rate together; the same results as one by one.

        `tell()` is called whenever one more of them is finished, in the order of their lengths.
        """
        shaped = [self._checked(wave, key) for wave, key in zip(waves, keys, strict=True)]
        overlap = self._overlap(rate)
        plans = [chunking.plan(wave.shape[1], self.chunk_size(rate), overlap) for wave in shaped]
        jobs = [
            (wave[channel, start:stop], self._key(key, channel, number), place)
            for place, (wave, key, chunks) in enumerate(zip(shaped, keys, plans, strict=True))
            for number, (start, stop) in enumerate(chunks)
            for channel in range(len(wave))
        ]
        left = Counter(place for *_, place in jobs)

        def finished(number: int) -> None:
            place = jobs[number][2]
            left[place] -= 1
            if not left[place]:
                tell()

        done = iter(self._chunks([wave for wave, *_ in jobs], rate, [key for _, key, _ in jobs], finished))
        results = []
        for wave, original, chunks in zip(shaped, waves, plans, strict=True):
            parts = [(span, np.stack([next(done) for _ in wave])) for span in chunks]
            joined = np.concatenate(list(chunking.join(parts, overlap)), -1)
            results.append(joined.reshape(np.shape(original)))
        return results

    def stream(
        self, read: Callable[[int, int], np.ndarray], length: int, rate: int, key: str = ""
    ) -> Iterator[np.ndarray]:
        """Enhance a signal too long to hold: `read(start, stop)` gives [channels, samples]; pieces in order."""
        overlap = self._overlap(rate)

        def chunks() -> Iterator[tuple[tuple[int, int], np.ndarray]]:
            for number, (start, stop) in enumerate(chunking.plan(length, self.chunk_size(rate), overlap)):
                wave = self._checked(read(start, stop), key)
                channels = [self._key(key, channel, number) for channel in range(len(wave))]
                yield (start, stop), np.stack(self._chunks(list(wave), rate, channels))

        return chunking.join(chunks(), overlap)

    def chunk_size(self, rate: int) -> int:
        """Samples of a chunk at `rate` Hz."""
        return max(2, round(self.system.enhance.chunk_seconds * rate))

    def _overlap(self, rate: int) -> int:
        return min(round(self.system.enhance.overlap_seconds * rate), self.chunk_size(rate) // 2)

    def _key(self, key: str, channel: int, chunk: int) -> str:
        return f"{key}\n{channel}\n{chunk}"

    def _checked(self, wave: np.ndarray, key: str) -> np.ndarray:
        """The signal as float32 [channels, samples]."""
        shaped = np.atleast_2d(np.asarray(wave, dtype=np.float32))
        name = key or "signal"
        if shaped.ndim != 2 or shaped.size == 0:
            raise DiffseError(
                f"{name}: shape {np.shape(wave)}; give [samples] or [channels, samples], not empty"
            )
        if not np.isfinite(shaped).all():
            raise DiffseError(f"{name}: has NaN or infinite samples; repair the recording")
        return shaped

    # ------------------------------------------------------------------------------------------- chunks

    def _chunks(
        self,
        waves: list[np.ndarray],
        rate: int,
        keys: list[str],
        finished: Callable[[int], None] = lambda number: None,
    ) -> list[np.ndarray]:
        """Enhance short mono signals [samples] at `rate`, in batches of equal padded length.

        `finished` gets the place of each one when it is done.
        """
        if rate != self.rate and not self.resample:
            raise DiffseError(
                f"audio has {rate} Hz, but this checkpoint is for {self.rate} Hz; "
                "resample it first, or allow resampling"
            )
        inner = [self._to_inner_rate(wave, rate) for wave in waves]
        results: list[np.ndarray] = [np.empty(0)] * len(waves)
        for places in self._batches([len(wave) for wave in inner]):
            enhanced = self._batch([inner[i] for i in places], [keys[i] for i in places])
            for i, wave in zip(places, enhanced, strict=True):
                results[i] = _fit(audio.resample(wave, self.rate, rate), len(waves[i]))
                finished(i)
        return results

    def _to_inner_rate(self, wave: np.ndarray, rate: int) -> np.ndarray:
        """At the system's rate; one sample at least, where a lower rate would leave none."""
        inner = audio.resample(wave, rate, self.rate)
        return inner if len(inner) else wave[:1]

    def _batches(self, lengths: list[int]) -> Iterable[list[int]]:
        """Places of items that go through the network together: equal padded length, at most `batch`."""
        by_frames: dict[int, list[int]] = {}
        for place, length in enumerate(lengths):
            by_frames.setdefault(self._padded_frames(length), []).append(place)
        for frames in sorted(by_frames):
            places = by_frames[frames]
            size = self._batch_size(frames)
            yield from (places[i : i + size] for i in range(0, len(places), size))

    def _padded_frames(self, length: int) -> int:
        return -(-self.system.spectrogram.frames(length) // self._multiple) * self._multiple

    def _batch_size(self, frames: int) -> int:
        """On a CPU a batch holds no more frames than one full chunk: larger ones gain nothing there."""
        if self.device.type != "cpu":
            return self.batch
        full = self._padded_frames(self.chunk_size(self.rate))
        return max(1, min(self.batch, full // frames))

    @torch.inference_mode()
    def _batch(self, waves: list[np.ndarray], keys: list[str]) -> list[np.ndarray]:
        """Enhance mono signals [samples] of equal padded length, at the system's rate."""
        peaks = [float(np.abs(wave).max()) for wave in waves]
        scaled = [wave / max(peak, SILENCE) for wave, peak in zip(waves, peaks, strict=True)]
        y = torch.cat([self._analyse(wave) for wave in scaled]).to(self.device)
        generators = [torch.Generator().manual_seed(noise_seed(self.seed, key)) for key in keys]

        def draw() -> Tensor:
            shape = y.shape[1:]
            noise = [torch.randn(shape, dtype=torch.complex64, generator=generator) for generator in generators]
            return torch.stack(noise).to(self.device)

        self._counted.signals += len(waves)
        x = self._sample(y, draw)
        results = []
        for x_item, wave, peak in zip(x, waves, peaks, strict=True):
            enhanced = self._synthesise(x_item[0], len(wave)).cpu().numpy()
            results.append(wave.copy() if peak <= SILENCE else enhanced * np.float32(peak))
        return results

    def _analyse(self, wave: np.ndarray) -> Tensor:
        """[samples] -> compressed spectrogram [1, 1, F, T], padded to whole blocks of frames."""
        X = self.system.spectrogram.analyse(torch.from_numpy(np.ascontiguousarray(wave)))
        return pad_frames(X, self._multiple, self.system.enhance.padding)[None, None]

    def _synthesise(self, X: Tensor, length: int) -> Tensor:
        """Compressed [F, T padded] -> [length]. Added frames are cut off first: they would fade the end."""
        spectrogram = self.system.spectrogram
        if self.system.enhance.synthesis == "cut":
            X = X[:, : spectrogram.frames(length)]
        return spectrogram.synthesise(X, max(length, spectrogram.freq_bins))[:length]


class _Counted:
    """An objective that counts the examples it denoises, with networks that compute inside a context."""

    def __init__(self, objective: recipes.Objective, computing: AbstractContextManager) -> None:
        self._objective, self._computing, self.signals, self.examples = objective, computing, 0, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._objective, name)

    def denoise(self, x_t: Tensor, conditions: object, t: Tensor) -> Tensor:
        self.examples += len(x_t)
        with self._computing:
            return self._objective.denoise(x_t, conditions, t)

    def prepare(self, y: Tensor) -> object:
        if hasattr(self._objective, "predictor"):
            self.examples += len(y)
        with self._computing:
            return self._objective.prepare(y)

    @property
    def per_signal(self) -> float:
        return round(self.examples / self.signals, 1) if self.signals else 0.0


def noise_seed(seed: int, key: str) -> int:
    """Seed of one item's noise: from (seed, key), not from its place in a batch."""
    digest = hashlib.sha256(f"sampling noise {seed} {key}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def checked_device(name: str | None) -> str:
    """A usable device name; DiffseError for one that is not here."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DiffseError(f"device '{name}' cannot be used ({reason}); choose another with --device") from None
    return name


def _fit(wave: np.ndarray, length: int) -> np.ndarray:
    """Cut or pad with zeros to `length` samples: resampling to and fro can be off by one."""
    return wave[:length] if len(wave) >= length else np.pad(wave, (0, length - len(wave)))


def enhance_paths(*args, **options) -> dict:
    """Enhance files and folders; see `diffse.enhance_files.enhance_paths`."""
    from diffse import enhance_files, pages

    pages.keep()
    return enhance_files.enhance_paths(*args, **options)


def run(params: settings.Params, system: str, corpus: str, root: Path) -> dict:
    """Enhance the test split of a corpus; see `diffse.enhance_corpus.run`."""
    from diffse import enhance_corpus, pages

    pages.keep()
    return enhance_corpus.run(params, system, corpus, root)
