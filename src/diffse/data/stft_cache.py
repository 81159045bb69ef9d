"""The STFT cache: compressed spectrograms of the train and valid splits, laid out for training crops.

`data/<corpus>/cache/` holds

* `<split>-00000.npy`, ...: [frames, 2 (clean, noisy), F, 2 (real, imaginary)] of the storage type. Frames
  come first, so a training crop is one contiguous read of a memory-mapped file. Exponent applied, factor 1:
  the recipe's factor and the peak normalisation are scalings at reading. An utterance lies in one shard.
* `peaks-<split>.npy`: [frames, 2] float32, the peak of |clean| and |noisy| over the `hop` samples that begin
  at each frame's centre, for all utterances of the split one behind the other.
* `index.parquet`: id, split, speaker, shard, frame (its first one in the shard), n_frames, n_samples.
* `checksums.npy`: [pages, 32] bytes, SHA-256 of each MiB of these files, in the order of cache.json's `files`.
* `cache.json`: settings, checksums, the measured storage error and statistics of the coefficients.

The setting `form: waveform` stores samples instead: [frames, 2, hop] float32, row t from sample t * hop on, the
last ones followed by zeros. Everything else is the same, the statistics too.

Memory is bounded by one utterance's samples and a block of frames, whatever the corpus' size.
"""

import contextlib
import dataclasses
import hashlib
import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffse import paths, storage
from diffse.data import manifest, shards
from diffse.data.batches import SILENCE
from diffse.data.cache_files import CHECKSUMS, PAGE_BYTES, PageSums
from diffse.data.cache_reader import FORMAT, INDEX, INDEX_COLUMNS, layout
from diffse.errors import DiffseError
from diffse.settings import Params, Stft
from diffse.spectrogram import Spectrogram

SPLITS = ("train", "valid")
_NEEDED = ("id", "split", "speaker", "n_samples", "rate", "shard", "position")  # of the manifest
NO_ERROR_DB = -300.0  # stands for an error of exactly zero
BLOCK = 512  # frames transformed at a time: bounds memory, and stays within the processor's caches
WAVEFORMS_MEASURED = 32  # utterances brought back to audio for the storage error; evenly spread

log = logging.getLogger(__name__)


def spectrogram_of(stft: Stft, factor: float = 1.0) -> Spectrogram:
    """The transform of the settings; `factor` is the scale of the compressed spectrogram."""
    return Spectrogram(stft.n_fft, stft.hop, stft.window, stft.exponent, factor)


# ---------------------------------------------------------------------------------------------- writing


def run(params: Params, corpus: str, root: Path) -> dict[str, Any]:
    """Write `data/<corpus>/cache/` from `data/<corpus>/mixtures/`; returns cache.json less its file list.

    Raises DiffseError for mixtures that are missing, hold nothing to train on or mix sampling rates, and
    when the disk cannot hold the cache. The same mixtures and settings give the same bytes.
    """
    source, target, stft = paths.mixtures(root, corpus), paths.cache(root, corpus), params.cache
    rows = _training_rows(source)
    index = plan(rows, stft)
    _check_disk(target, int(index["n_frames"].sum()) * frame_bytes(stft))
    with storage.atomic_folder(target) as folder, _one_thread():
        index.to_parquet(folder / INDEX, index=False)
        description = {
            "format": FORMAT,
            "corpus": corpus,
            "rate": int(rows["rate"].iloc[0]),
            "stft": dataclasses.asdict(stft),
            "mixtures_sha256": storage.sha256_file(source / "manifest.parquet"),
            "index_sha256": storage.sha256_file(folder / INDEX),
            "splits": _split_totals(rows, index),
            **_write_shards(folder, source, rows, index, stft),
        }
        storage.write_json(folder / "cache.json", description)
    log.info("wrote %s: %d utterances, %d frames", target, len(index), int(index["n_frames"].sum()))
    return {key: value for key, value in description.items() if key != "files"}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Blocks are so small that a second thread costs more in waiting than it takes over."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def frame_bytes(stft: Stft) -> int:
    """Size of one stored frame."""
    shape, dtype = layout(stft)
    return math.prod(shape) * np.dtype(dtype).itemsize


def _training_rows(source: Path) -> Any:
    rows = manifest.read(source, only=_NEEDED)
    for split in SPLITS:
        if not (rows["split"] == split).any():
            raise DiffseError(
                f"{source}: no utterances in the {split} split, so this corpus cannot be trained on; take it "
                "out of train_corpora or give it recordings for that split"
            )
    rows = rows[rows["split"].isin(SPLITS)].sort_values("split", kind="stable", ignore_index=True)
    if rows["rate"].nunique() != 1:
        found = ", ".join(str(rate) for rate in sorted(rows["rate"].unique()))
        raise DiffseError(f"{source}: sampling rates {found} Hz in one corpus; prepare it again")
    return rows


def plan(rows: Any, stft: Stft) -> Any:
    """Place every utterance: the index table, known before any audio is read.

    A shard takes utterances until the next would exceed `shard_mb`; one that alone exceeds it gets a shard
    of its own.
    """
    transform, limit = spectrogram_of(stft), stft.shard_mb * 2**20 // frame_bytes(stft)
    index = rows[["id", "split", "speaker", "n_samples"]].copy()
    index["n_frames"] = [transform.frames(int(n)) for n in rows["n_samples"]]
    places, split, number, filled = [], None, 0, 0
    for row in index.itertuples():
        if row.split != split:
            split, number, filled = row.split, 0, 0
        elif filled + row.n_frames > limit:
            number, filled = number + 1, 0
        places.append((f"{split}-{number:05d}.npy", filled))
        filled += row.n_frames
    index["shard"] = [name for name, _ in places]
    index["frame"] = [frame for _, frame in places]
    return index[INDEX_COLUMNS]


def _check_disk(target: Path, needed: int) -> None:
    """Fail before the work, not after hours of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise DiffseError(
            f"{target}: the cache needs {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free; make room"
        )


def _split_totals(rows: Any, index: Any) -> dict[str, dict[str, Any]]:
    totals = {}
    for split in SPLITS:
        of_split = index[index["split"] == split]
        totals[split] = {
            "utterances": len(of_split),
            "frames": int(of_split["n_frames"].sum()),
            "seconds": round(float(of_split["n_samples"].sum()) / int(rows["rate"].iloc[0]), 3),
        }
    return totals


def _write_shards(folder: Path, source: Path, rows: Any, index: Any, stft: Stft) -> dict[str, Any]:
    """Encode every utterance into its shard, measuring on the way; returns the measured part of cache.json."""
    measured = _Measurements(spectrogram_of(stft), len(rows))
    files = _ArrayFiles(folder)
    peaks = {
        split: _NpyWriter(folder / f"peaks-{split}.npy", (_frames(index, "split", split), 2), "float32")
        for split in SPLITS
    }
    (tail, dtype), shard = layout(stft), None
    for pair, place in _pairs(source, rows, index):
        if shard is None or shard.path.name != place.shard:
            files.finish(shard)
            shape = (_frames(index, "shard", place.shard), *tail)
            shard = _NpyWriter(folder / place.shard, shape, dtype)
        measured.begin(place.split, pair)
        for exact in encode(pair, measured.transform):
            stored = exact.astype(stft.storage) if stft.form == "spectrogram" else exact
            if stft.form == "spectrogram":
                shard.append(stored)
            measured.add(exact, stored)
        measured.end()
        if stft.form == "waveform":
            shard.append(in_rows(pair, stft.hop, place.n_frames))
        peaks[place.split].append(frame_peaks(pair, stft.hop, place.n_frames))
    for writer in (shard, *peaks.values()):
        files.finish(writer)
    return {**files.summary(), **measured.summary()}


class _ArrayFiles:
    """What cache.json says about the arrays, and the checksums of their pages."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._facts: dict[str, dict[str, Any]] = {}
        self._page_sums: list[np.ndarray] = []

    def finish(self, writer: "_NpyWriter | None") -> None:
        if writer is not None:
            page_sums = writer.close()
            facts = {"frames": writer.shape[0], "sha256": writer.sha256, "pages": len(page_sums)}
            self._facts[writer.path.name] = facts
            self._page_sums.append(page_sums)

    def summary(self) -> dict[str, Any]:
        np.save(self.folder / CHECKSUMS, np.concatenate(self._page_sums))
        return {
            "files": self._facts,
            "page_bytes": PAGE_BYTES,
            "checksums_sha256": storage.sha256_file(self.folder / CHECKSUMS),
        }


def _frames(index: Any, column: str, value: str) -> int:
    return int(index.loc[index[column] == value, "n_frames"].sum())


def _pairs(source: Path, rows: Any, index: Any) -> Iterator[tuple[np.ndarray, Any]]:
    """([2, n_samples] clean and noisy, index row) of each utterance, with progress."""
    from diffse.progress import tqdm

    utterances = zip(rows.itertuples(index=False), index.itertuples(index=False), strict=True)
    for row, place in tqdm(utterances, total=len(rows), desc="cache", unit="utt", disable=None):
        yield np.stack(shards.read_pair(source, row)), place


def encode(pair: np.ndarray, transform: Spectrogram) -> Iterator[np.ndarray]:
    """[2, n_samples] -> the compressed spectrogram in blocks of [T, 2, F, 2] float32, time first."""
    n_samples = pair.shape[1]
    n_frames = transform.frames(n_samples)
    for start in range(0, n_frames, BLOCK):
        length = min(BLOCK, n_frames - start)
        first, last, before = transform.span(n_samples, start, length)
        X = transform.analyse(torch.from_numpy(pair[:, first:last]))[..., before : before + length]
        yield torch.view_as_real(X.permute(2, 0, 1).contiguous()).numpy()


def in_rows(pair: np.ndarray, hop: int, n_frames: int) -> np.ndarray:
    """[2, n_samples] -> [n_frames, 2, hop]: the `hop` samples from each frame's centre on, zeros at the end."""
    padded = np.zeros((2, n_frames * hop), np.float32)
    padded[:, : pair.shape[1]] = pair
    return padded.reshape(2, n_frames, hop).transpose(1, 0, 2)


def frame_peaks(pair: np.ndarray, hop: int, n_frames: int) -> np.ndarray:
    """[2, n_samples] -> [n_frames, 2]: largest |sample| of the `hop` samples from each frame's centre on."""
    return np.abs(in_rows(pair, hop, n_frames)).max(axis=2)


class _NpyWriter:
    """A .npy file of known shape, written piece by piece along its first axis."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str):
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype).newbyteorder("<")
        self._hash, self._page_sums, self._written = hashlib.sha256(), PageSums(), 0
        self._stream = open(path, "w+b")  # noqa: SIM115 (closed by `close`)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)
        self._stream.seek(0)
        head = memoryview(self._stream.read())
        self._hash.update(head)
        self._page_sums.update(head)

    def append(self, piece: np.ndarray) -> None:
        data = np.ascontiguousarray(piece, self.dtype).data.cast("B")
        self._stream.write(data)
        self._hash.update(data)
        self._page_sums.update(data)
        self._written += len(piece)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def close(self) -> np.ndarray:
        """Checksums of the file's pages, uint8 [pages, 32]."""
        self._stream.close()
        if self._written != self.shape[0]:
            raise RuntimeError(f"{self.path}: {self._written} frames written, {self.shape[0]} announced")
        return self._page_sums.finish()


# -------------------------------------------------------------------------------------------- measuring


class _Measurements:
    """What storing costs, and how large the coefficients are, gathered utterance by utterance."""

    def __init__(self, transform: Spectrogram, utterances: int):
        self.transform = transform
        self._every = -(-utterances // WAVEFORMS_MEASURED)
        self._number = 0
        self._spectrogram_db: list[float] = []
        self._waveform_db: list[float] = []
        self._levels = np.zeros(3)  # energies of clean, noise and noisy, each utterance's noisy peak at 1
        self._coefficients = self._utterances = 0

    def begin(self, split: str, pair: np.ndarray) -> None:
        """The next utterance: clean and noisy [2, n_samples]."""
        peak = float(np.abs(pair[1]).max())
        self._pair = pair if self._number % self._every == 0 else None
        # Silence has no peak to normalise by.
        self._gain = peak**-self.transform.exponent if split == "train" and peak > SILENCE else None
        self._energies = np.zeros((2, 2))  # of the error and of the spectrogram; clean and noisy
        self._blocks: list[np.ndarray] = []

    def add(self, exact: np.ndarray, stored: np.ndarray) -> None:
        """A block of the utterance's frames [T, 2, F, 2], and the same as stored."""
        error = stored.astype(np.float32) - exact
        for signal in range(2):
            self._energies[:, signal] += _energy(error[:, signal]), _energy(exact[:, signal])
        if self._pair is not None:
            self._blocks.append(stored)
        if self._gain is not None:
            clean, noisy = exact[:, 0], exact[:, 1]
            self._levels += [self._gain**2 * _energy(part) for part in (clean, noisy - clean, noisy)]
            self._coefficients += clean.size

    def end(self) -> None:
        """The utterance is complete."""
        self._number += 1
        self._utterances += self._gain is not None
        self._spectrogram_db += [level for column in self._energies.T for level in error_db(*column)]
        if self._pair is not None:
            restored = decode(np.concatenate(self._blocks), self.transform, self._pair.shape[1])
            for wave, exact in zip(restored, self._pair, strict=True):
                self._waveform_db += error_db(_energy(wave - exact), _energy(exact))

    def summary(self) -> dict[str, Any]:
        """Errors in dB (energy of the error / energy), and sigma_x, sigma_n, sigma_y of paper 001."""
        sigma_x, sigma_n, sigma_y = np.sqrt(self._levels / max(self._coefficients, 1)).tolist()
        return {
            "storage_error_db": {
                "spectrogram": _spread(self._spectrogram_db),
                "waveform": _spread(self._waveform_db),
            },
            "statistics": {
                "split": "train",
                "factor": 1.0,
                "normalise": "noisy",  # each utterance by its own peak
                "sigma_x": sigma_x,  # per real channel
                "sigma_n": sigma_n,  # of noisy minus clean coefficients
                "sigma_y": sigma_y,
                "utterances": self._utterances,
            },
        }


def _energy(values: np.ndarray) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def error_db(error: float, energy: float) -> list[float]:
    """[10 log10 of an error's energy / energy], floored at NO_ERROR_DB; [] for a silent signal."""
    if energy == 0:
        return []
    return [max(10 * math.log10(error / energy), NO_ERROR_DB) if error > 0 else NO_ERROR_DB]


def _spread(values: list[float]) -> dict[str, Any]:
    if not values:
        return {"max": NO_ERROR_DB, "mean": NO_ERROR_DB, "n": 0}
    return {"max": round(max(values), 3), "mean": round(math.fsum(values) / len(values), 3), "n": len(values)}


def decode(stored: np.ndarray, transform: Spectrogram, n_samples: int) -> np.ndarray:
    """Stored frames [T, 2, F, 2] of a whole utterance -> [2, n_samples] float32; inverse of `encode`."""
    X = torch.view_as_complex(torch.from_numpy(np.ascontiguousarray(stored, np.float32)))
    return transform.synthesise(X.permute(1, 2, 0), n_samples).numpy()
