"""Shards: a few large FLAC files (24 bits) that hold many utterances, one behind the other.

Version control and object stores handle a few dozen files well and a hundred thousand badly. FLAC is lossless,
so what is read back is exactly the integers that were written, and their checksum is known when writing.
"""

import hashlib
from pathlib import Path

import numpy as np
import soundfile

from diffse.audio import AudioError, SureFile
from diffse.errors import DiffseError

MAX_BYTES = 48_000_000  # of samples per shard, three bytes each, before compression
FULL_SCALE = 1 << 23  # of 24-bit integers
_PEAK = (FULL_SCALE - 1) / FULL_SCALE  # largest value that 24 bits can hold on both sides
_COMPRESSION = 0.3  # of 0 to 1; the slowest setting makes noisy speech 2 % smaller and takes a third longer


def quantise(wave: np.ndarray) -> tuple[np.ndarray, float]:
    """Round a wave to 24 bits, scaled by `gain` when its peak would clip (gain 1.0 otherwise).

    wave: float [channels, samples]. Returns (int32 [channels, samples] holding the 24 bits in its upper
    bytes, as libsndfile does, gain). Non-finite samples are a DiffseError.
    """
    peak = max(float(np.max(wave, initial=0.0)), -float(np.min(wave, initial=0.0)))
    if not np.isfinite(peak):
        raise DiffseError("a wave with NaN or infinite samples cannot be stored")
    gain = float(np.float32(_PEAK / peak)) if peak >= 1.0 else 1.0
    # without a gain, scaling by a power of two and rounding to 24 bits is exact in float32 already
    precision = np.float32 if gain == 1.0 and wave.dtype == np.float32 else np.float64
    scaled = np.multiply(wave, gain * FULL_SCALE, dtype=precision)
    np.rint(scaled, out=scaled)
    np.minimum(scaled, FULL_SCALE - 1, out=scaled)  # the positive side is one step shorter
    whole = scaled.astype(np.int32)
    whole <<= 8
    return whole, gain


def to_float(stored: np.ndarray) -> np.ndarray:
    """Integers of `quantise` as float32 with full scale at 1.0; exact."""
    wave = stored.astype(np.float32)  # 24 bits and a power of two: nothing is rounded
    wave *= np.float32(1.0 / (FULL_SCALE << 8))
    return wave


def item_bytes(n_samples: int, channels: int) -> int:
    """Bytes that count against the size of a shard: 24 bits a sample, before compression."""
    return 3 * channels * n_samples


def item_sha256(stored: np.ndarray) -> str:
    """Checksum of an item: its int32 samples, little-endian, channel by channel."""
    return hashlib.sha256(np.ascontiguousarray(stored, dtype="<i4")).hexdigest()


class ShardWriter:
    """Appends items to `shard-00000.flac`, ... in `folder`; a context manager.

    It writes in place: give it the folder of `storage.atomic_folder`. An item never spans two shards, and
    which shard it is in depends on order and lengths alone. `first` is the number of the first shard.
    """

    def __init__(
        self, folder: Path | str, rate: int, channels: int, max_bytes: int = MAX_BYTES, first: int = 0
    ):
        self.folder, self.rate, self.channels, self.max_bytes = Path(folder), rate, channels, max_bytes
        self._stream: soundfile.SoundFile | None = None
        self._file: SureFile | None = None
        self._count = first  # number of the next shard
        self._position = 0  # samples in the open shard

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def add(self, wave: np.ndarray) -> dict:
        """Append float [channels, samples] and return shard, position, n_samples, gain and sha256.

        What is stored is `wave * gain`; gain is below 1 only where the peak would clip.
        """
        stored, gain = quantise(wave)
        return self.add_stored(stored) | {"gain": gain}

    def add_stored(self, stored: np.ndarray, sha256: str = "") -> dict:
        """Append the integers of `quantise` [channels, samples]; `sha256` spares computing it again."""
        channels, n_samples = stored.shape
        if channels != self.channels or n_samples == 0:
            raise ValueError(f"an item of shape {stored.shape} does not fit {self.channels}-channel shards")
        if self._stream is None or item_bytes(self._position + n_samples, channels) > self.max_bytes:
            self._open_next()
        position = self._position
        self._write(stored)
        self._position += n_samples
        return {
            "shard": self._name(),
            "position": position,
            "n_samples": n_samples,
            "sha256": sha256 or item_sha256(stored),
        }

    def _name(self) -> str:
        return f"shard-{self._count - 1:05d}.flac"

    def _open_next(self) -> None:
        self._close()
        self._count += 1
        self._position = 0
        path = str(self.folder / self._name())
        self._guard(lambda: self._open(path))

    def _open(self, path: str) -> None:
        self._file = SureFile(path)
        self._stream = soundfile.SoundFile(
            self._file, "w", self.rate, self.channels, "PCM_24", format="FLAC", compression_level=_COMPRESSION
        )

    def _write(self, stored: np.ndarray) -> None:
        # a stack takes a tenth of the time that a copy of the transpose does
        self._guard(lambda: self._stream.write(np.stack(list(stored), axis=1)))

    def _close(self) -> None:
        stream, file = self._stream, self._file
        self._stream = self._file = None
        try:
            if stream is not None:
                self._guard(stream.close)
        finally:
            if file is not None:
                self._guard(file.close)

    def _guard(self, action) -> None:
        try:
            action()
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            path = self.folder / self._name()
            reason = getattr(error, "strerror", None) or str(error).rstrip(".")
            raise DiffseError(f"{path}: cannot be written ({reason}); is the disk full?") from None


def read_stored(folder: Path | str, shard: str, position: int, n_samples: int) -> np.ndarray:
    """Integers of one item, int32 [channels, samples]. AudioError when the shard is missing or damaged."""
    path = Path(folder) / shard
    try:
        stored, _ = soundfile.read(str(path), int(n_samples), int(position), dtype="int32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = "is missing" if not path.exists() else f"is damaged ({error})"
        raise AudioError(path, f"{reason}; run the stage that writes it again") from None
    if len(stored) != n_samples:
        raise AudioError(path, f"ends before sample {position + n_samples}; run the stage that writes it again")
    return np.ascontiguousarray(stored.T)


def read_item(folder: Path | str, shard: str, position: int, n_samples: int) -> np.ndarray:
    """One item as float32 [channels, samples], as stored (that is, times its gain)."""
    return to_float(read_stored(folder, shard, position, n_samples))


def read_pair(folder: Path | str, row) -> tuple[np.ndarray, np.ndarray]:
    """(clean [samples], noisy [samples]) of a manifest row: a mapping, a Series or a named tuple."""
    fields = row._asdict() if hasattr(row, "_asdict") else row
    clean, noisy = read_item(folder, fields["shard"], fields["position"], fields["n_samples"])
    return clean, noisy


def verify(folder: Path | str, row) -> bool:
    """Whether the item of a manifest row still has the checksum that was written with it."""
    fields = row._asdict() if hasattr(row, "_asdict") else row
    stored = read_stored(folder, fields["shard"], fields["position"], fields["n_samples"])
    return item_sha256(stored) == fields["sha256"]
