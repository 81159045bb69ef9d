"""What is done to a finished mixture so that training sees more than studio files: level, band, codec.

All of it keeps the alignment with the clean signal: band limits have no delay, and that of a codec is measured
once on a known signal and cut off.
"""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffse import audio
from diffse.errors import DiffseError
from diffse.settings_corpora import Augmentation

# name -> (libsndfile's format, its subtype, whether its strength can be set, rates in Hz that it takes)
_CODECS: dict[str, tuple[str, str, bool, tuple[int, ...]]] = {
    "mp3": ("MP3", "MPEG_LAYER_III", True, (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)),
    "vorbis": ("OGG", "VORBIS", True, ()),
    "opus": ("OGG", "OPUS", True, (8000, 12000, 16000, 24000, 48000)),
    "mulaw": ("WAV", "ULAW", False, ()),
    "alaw": ("WAV", "ALAW", False, ()),
    "gsm": ("WAV", "GSM610", False, ()),
    "adpcm": ("WAV", "IMA_ADPCM", False, ()),
}
_PROBE_SECONDS = 2.0
_LONGEST_DELAY = 0.1  # s that a codec may be late


@dataclass(frozen=True)
class Drawn:
    """What one row gets. Neutral values change nothing."""

    gain_db: float = 0.0  # of both signals
    band_hz: float = 0.0  # 0: not limited
    codec: str = ""
    compression: float = 0.0  # libsndfile's scale, from 0 (best) to 1 (smallest)


def draw(settings: Augmentation, split: str, seed: int) -> Drawn:
    """What the row with this seed gets; each kind from draws of its own."""
    if split not in settings.splits or settings == Augmentation():
        return Drawn()
    rng = np.random.default_rng([seed, 4])
    gain_db = float(rng.uniform(*settings.level_db))
    banded, band_hz = rng.random() < settings.band_share, float(rng.choice(settings.band_hz or (0.0,)))
    coded, codec = rng.random() < settings.codec_share, str(rng.choice(settings.codecs or ("",)))
    compression = float(rng.uniform(*settings.compression))
    if not coded:
        codec, compression = "", 0.0
    elif not _CODECS[codec][2]:
        compression = 0.0
    return Drawn(gain_db, band_hz if banded else 0.0, codec, compression)


def band_limited(wave: np.ndarray, rate: int, band_hz: float) -> np.ndarray:
    """`wave` [samples] without what lies above `band_hz`, at its own rate and without delay."""
    if 2.0 * band_hz >= rate:
        return wave
    low = audio.resample(wave, rate, round(2.0 * band_hz))
    return _fitted(audio.resample(low, round(2.0 * band_hz), rate), len(wave))


def coded(wave: np.ndarray, rate: int, codec: str, compression: float) -> np.ndarray:
    """`wave` float32 [samples] as it comes out of a codec, as long as it was and without the codec's delay.

    DiffseError where libsndfile was built without the codec.
    """
    return _shifted(_through(wave, rate, codec, compression), delay(rate, codec), len(wave))


@lru_cache(maxsize=64)
def delay(rate: int, codec: str) -> int:
    """Samples by which a codec is late at this rate, measured on low-passed noise."""
    from scipy.signal import correlate

    rng = np.random.default_rng(0)
    probe = np.convolve(rng.standard_normal(int(_PROBE_SECONDS * rate)), np.hanning(9) / 4.0, mode="same")
    probe = (0.1 * probe).astype(np.float32)
    answer = _through(probe, rate, codec, 0.3)
    longest = int(_LONGEST_DELAY * rate)
    answer = _fitted(answer, len(probe) + longest)
    return int(np.argmax(correlate(answer, probe, "valid")))


def _through(wave: np.ndarray, rate: int, codec: str, compression: float) -> np.ndarray:
    """Encode and decode in memory, at the nearest rate that the codec takes."""
    import soundfile

    kind, subtype, adjustable, rates = _CODECS[codec]
    inner = min(rates, key=lambda known: (known < rate, abs(known - rate))) if rates else rate
    given = {"compression_level": compression} if adjustable else {}
    stream = io.BytesIO()
    try:
        peak = max(1.0, float(np.max(np.abs(wave))))  # codecs of integers clip
        soundfile.write(stream, audio.resample(wave / peak, rate, inner), inner, subtype, format=kind, **given)
        stream.seek(0)
        answer, _ = soundfile.read(stream, dtype="float32")
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DiffseError(f"codec '{codec}' does not work here ({reason}); take it out of 'codecs'") from None
    return audio.resample(answer, inner, rate) * np.float32(peak)


def _shifted(wave: np.ndarray, first: int, n_samples: int) -> np.ndarray:
    return _fitted(wave[first:], n_samples)


def _fitted(wave: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut, or filled with zeros, to `n_samples`."""
    return np.pad(wave[:n_samples], (0, max(0, n_samples - len(wave))))
