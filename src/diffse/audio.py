"""Read, write, resample and measure audio. The only module that opens audio files (through libsndfile).

Waves are float32 arrays [channels, samples] with full scale at 1.0. Whatever is wrong with a file is one
`AudioError` that names it: libsndfile alone would return a truncated WAV or Ogg file as if it were whole.
"""

import contextlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from diffse import sphere, storage
from diffse.errors import DiffseError

SUFFIXES = (".wav", ".flac", ".ogg")
_BLOCK = 1 << 20  # samples per channel that a scan holds at once
_UNKNOWN_LENGTH = 1 << 40  # libsndfile reports about 2^63 samples when the header does not tell
_STREAMED = 0x7FFF0000  # programs that write WAV to a pipe leave a length like this or 0xFFFFFFFF
_WRITTEN = 1 << 20  # bytes that are collected before they are written
_OGG_PAGE = 65307  # longest Ogg page, bytes
_OGG_LAST = 0x04  # flag of the page that ends a stream


class AudioError(DiffseError):
    """An audio file that cannot be used. `path` and `reason` are the two halves of its text."""

    def __init__(self, path: Path | str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.reason)  # so that it passes from a worker process


@dataclass(frozen=True)
class Info:
    """What the header of an audio file says."""

    rate: int  # Hz
    channels: int
    samples: int  # per channel


@dataclass(frozen=True)
class Scan:
    """What one pass over all samples of a file shows."""

    rate: int  # Hz
    channels: int
    samples: int  # per channel
    level_dbfs: float  # RMS of the first channel; -inf for digital silence


def info(path: Path | str) -> Info:
    """Rate, channels and length by the header. AudioError: missing, empty, truncated or not audio."""
    _check_bytes(Path(path))
    try:
        found = soundfile.info(_opened(path))
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(path, f"not readable as audio ({_plain(error)}); give wav, flac or ogg") from None
    if found.frames > _UNKNOWN_LENGTH:
        raise AudioError(path, "its header does not give its length; encode it again")
    if found.frames == 0:
        raise AudioError(path, "holds no samples")
    return Info(found.samplerate, found.channels, found.frames)


def read(path: Path | str, start: int = 0, samples: int | None = None) -> tuple[np.ndarray, int]:
    """Read a file, or `samples` of it from sample `start` on, at the file's own rate.

    Returns (wave float32 [channels, samples], rate in Hz). AudioError: missing, empty, truncated, not audio,
    NaN or infinite samples.
    """
    with Recording(path) as recording:
        return recording.read(start, samples), recording.info.rate


class Recording:
    """A file that is opened and checked once, and of which parts are then read. A context manager.

    AudioError: missing, empty, truncated, not audio.
    """

    def __init__(self, path: Path | str):
        self.path, self.info = path, info(path)
        try:
            self._stream = soundfile.SoundFile(_opened(path))
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioError(path, f"damaged or truncated ({_plain(error)})") from None

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; without it, the file is closed when nobody refers to the recording any more."""
        self._stream.close()

    def read(self, start: int = 0, samples: int | None = None) -> np.ndarray:
        """float32 [channels, samples] from sample `start` on. AudioError: as `audio.read`."""
        header = self.info
        wanted = header.samples - start if samples is None else samples
        if start < 0 or wanted < 0 or start + wanted > header.samples:
            raise AudioError(
                self.path, f"has {header.samples} samples; {start} to {start + wanted} were asked for"
            )
        try:
            _go_to(self._stream, start)
            wave = self._stream.read(wanted, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioError(self.path, f"damaged or truncated ({_plain(error)})") from None
        _check_samples(self.path, wave, wanted)
        return np.ascontiguousarray(wave.T)


def _go_to(stream: soundfile.SoundFile, start: int) -> None:
    """Move to sample `start`. In Ogg files libsndfile's seek may miss it by a block (its issue 885)."""
    if stream.format != "OGG":
        stream.seek(start)
        return
    stream.seek(0)
    for block in range(0, start, _BLOCK):
        stream.read(min(_BLOCK, start - block), dtype="float32")


def scan(path: Path | str) -> Scan:
    """Decode a whole file block by block, whatever its length, and measure it. Errors as `read`."""
    header = info(path)
    energy, seen = 0.0, 0
    for block in _blocks(path):
        _check_samples(path, block, len(block))
        energy += float(np.sum(np.square(block[:, 0], dtype=np.float64)))
        seen += len(block)
    if seen != header.samples:
        raise AudioError(path, f"truncated ({seen} of {header.samples} samples)")
    return Scan(header.rate, header.channels, header.samples, decibels(energy / seen))


def _opened(path: Path | str) -> str | io.BytesIO:
    """What libsndfile is to open: the file, or its content where it needs decoding first."""
    fields = sphere.header(Path(path))
    if not sphere.is_compressed(fields):
        return str(path)
    try:
        wave = sphere.decoded(Path(path))
    except ValueError as error:
        raise AudioError(path, str(error)) from None
    if fields.get("sample_count", "0") != str(soundfile.info(io.BytesIO(wave)).frames):
        raise AudioError(path, "truncated (it decodes to another number of samples than its header says)")
    return io.BytesIO(wave)


def _blocks(path: Path | str) -> Iterator[np.ndarray]:
    try:
        with soundfile.SoundFile(_opened(path)) as stream:
            yield from stream.blocks(_BLOCK, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(path, f"damaged or truncated ({_plain(error)})") from None


def checksum(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes. AudioError when it cannot be read."""
    try:
        return storage.sha256_file(path)
    except FileNotFoundError:
        raise AudioError(path, "no such file") from None
    except OSError as error:
        raise AudioError(path, f"cannot be read ({error.strerror})") from None


class SureFile:
    """A new file for libsndfile to write to, which alone passes over what fails while it closes a file.

    What the system refuses is kept and raised by `close` (OSError); the file is then not to be used.
    """

    def __init__(self, path: Path | str):
        self.name = str(path)  # soundfile takes the format from it
        self._stream = open(path, "w+b", buffering=_WRITTEN)  # noqa: SIM115 (closed by `close`)
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:  # not by `_kept`, nor in `tell`: an encoder calls both for every few thousand samples
            return self._stream.write(data)
        except OSError as error:
            return self._keep(error)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._kept(lambda: self._stream.seek(offset, whence))  # writes what is buffered

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)

    def close(self) -> None:
        self._kept(lambda: storage.start_writing(self._stream))
        self._kept(self._stream.close)
        if self._error is not None:
            raise self._error

    def _kept(self, action: Callable[[], int | None]) -> int:
        try:
            return action() or 0
        except OSError as error:
            return self._keep(error)

    def _keep(self, error: OSError) -> int:
        self._error = self._error or error
        return 0


def write(path: Path | str, wave: np.ndarray, rate: int, subtype: str | None = None) -> None:
    """Write `wave` ([channels, samples] or [samples]) atomically; the suffix of `path` gives the format.

    `subtype` is libsndfile's name ("PCM_16", "PCM_24", "FLOAT"); None takes the format's default, 16 bits
    for wav and flac. Integer formats clip what lies beyond full scale. DiffseError when it cannot be written.
    """
    frames = np.asarray(wave).T
    with storage.atomic_file(path) as temporary:
        try:
            with contextlib.closing(SureFile(temporary)) as stream:
                soundfile.write(stream, frames, rate, subtype)
        except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, OSError) as error:
            raise DiffseError(
                f"{path}: cannot be written ({_plain(error)}); check name, space, rights"
            ) from None


def resample(wave: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample the last axis of `wave` [..., samples] with soxr's highest quality; float32 in and out."""
    if from_rate == to_rate:
        return wave
    flat = np.ascontiguousarray(wave, dtype=np.float32).reshape(-1, wave.shape[-1])
    out = soxr.resample(flat.T, from_rate, to_rate, quality="VHQ").T
    return np.ascontiguousarray(out).reshape(*wave.shape[:-1], out.shape[-1])


def rms_dbfs(wave: np.ndarray) -> float:
    """Root mean square over all samples in dB relative to full scale; -inf for silence or no samples."""
    if wave.size == 0:
        return -np.inf
    return decibels(float(np.mean(np.square(wave, dtype=np.float64))))


def decibels(power: float) -> float:
    """A power in dB; -inf for none."""
    return 10.0 * float(np.log10(power)) if power > 0.0 else -np.inf


def _plain(error: Exception) -> str:
    """The cause without the path, which libsndfile's message repeats."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()).rstrip(".")


def _check_samples(path: Path | str, wave: np.ndarray, wanted: int) -> None:
    if len(wave) != wanted:
        raise AudioError(path, f"truncated ({len(wave)} of {wanted} samples)")
    bad = wave.size - int(np.count_nonzero(np.isfinite(wave)))
    if bad:
        raise AudioError(path, f"{bad} samples are NaN or infinite")


def _check_bytes(path: Path) -> None:
    """Find what libsndfile passes over: a missing end."""
    if path.is_dir():
        raise AudioError(path, "is a folder, not an audio file")
    try:
        size = path.stat().st_size
        with open(path, "rb") as stream:
            head = stream.read(12)
            if head[:4] == b"RIFF" and head[8:] == b"WAVE":
                missing = _wav_missing(stream, size)
            elif head.startswith(sphere.MAGIC):
                lacking = sphere.missing_bytes(sphere.header(path), size)
                missing = f"{lacking} bytes of audio are missing" if lacking else ""
            elif head[:4] == b"OggS":
                missing = _ogg_missing(stream, size)
            else:
                missing = ""
    except FileNotFoundError:
        raise AudioError(path, "no such file") from None
    except OSError as error:
        raise AudioError(path, f"cannot be read ({error.strerror})") from None
    if size == 0:
        raise AudioError(path, "is empty (0 bytes)")
    if missing:
        raise AudioError(path, f"truncated ({missing})")


def _wav_missing(stream, size: int) -> str:
    """What a WAV file lacks by the length of its data chunk; the stream stands behind 'WAVE'."""
    while len(head := stream.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name == b"data":
            missing = stream.tell() + length - size
            cut = missing > 0 and length < _STREAMED
            return f"{missing} of {length} bytes of audio are missing" if cut else ""
        stream.seek(length + length % 2, os.SEEK_CUR)
    return "it ends before its audio"


def _ogg_missing(stream, size: int) -> str:
    """What an Ogg file lacks: its last page must be whole and carry the end flag."""
    stream.seek(max(0, size - _OGG_PAGE))
    tail = stream.read()
    start = tail.rfind(b"OggS")
    page = tail[start:] if start >= 0 else b""
    if len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        return "its last page is cut"
    return "" if page[5] & _OGG_LAST else "its end is missing"
