"""How loud a signal is, in the three ways in which an SNR can be asked for."""

import math
from typing import Literal

import numpy as np

Kind = Literal["power", "active", "loudness"]

LOUDNESS_SECONDS = 0.4  # one block of ITU-R BS.1770; shorter signals have no loudness
_TRIES, _EXACT_DB = 6, 0.001  # of a gain
_MARGIN_DB = 15.9  # between the active level and the threshold of activity, ITU-T P.56
_SMOOTHING = 0.03  # s, of P.56's envelope, applied twice
_HANGOVER = 0.2  # s that count as active behind each crossing of the threshold
_STEPS_DB = np.arange(-45.0, 16.0, 3.0)  # thresholds that are tried, relative to the RMS


def power(wave: np.ndarray) -> float:
    """Mean square over all samples."""
    return float(np.mean(np.square(wave, dtype=np.float64)))


def snr_db(kind: Kind, speech: np.ndarray, noise: np.ndarray, rate: int) -> float:
    """SNR of two signals [samples] by `kind`; inf without noise.

    `power`: mean powers over the whole of both. `active`: the speech counts only where someone speaks (ITU-T
    P.56), so that pauses do not make it quieter; the noise counts throughout. `loudness`: difference of the
    integrated loudness (ITU-R BS.1770), as EARS-WHAM asks for it. ValueError where one has no loudness.
    """
    if kind == "loudness":
        return loudness(speech, rate) - loudness(noise, rate)
    level = active_level_db(speech, rate) if kind == "active" else _decibels(power(speech))
    return level - _decibels(power(noise))


def noise_gain(kind: Kind, speech: np.ndarray, noise: np.ndarray, wanted_db: float, rate: int) -> np.float32:
    """Factor of `noise` that gives an SNR of `wanted_db` by `kind`. ValueError as in `snr_db`."""
    if kind == "power":  # without a way through decibels, which would change the last bits
        ratio = power(speech) / power(noise)
        return np.float32(math.sqrt(ratio / 10.0 ** (wanted_db / 10.0)))
    gain = np.float32(10.0 ** ((snr_db(kind, speech, noise, rate) - wanted_db) / 20.0))
    for _ in range(_TRIES):  # the gate of loudness lets other blocks through at another gain
        try:
            missing_db = snr_db(kind, speech, noise * gain, rate) - wanted_db
        except ValueError:  # beside a whisper: what the noise had before its gain holds
            return gain
        if abs(missing_db) < _EXACT_DB:
            break
        gain *= np.float32(10.0 ** (missing_db / 20.0))
    return gain


def loudness(wave: np.ndarray, rate: int) -> float:
    """Integrated loudness in LUFS, ITU-R BS.1770-4. ValueError: shorter than 0.4 s, or below its gate."""
    import pyloudnorm

    if len(wave) < LOUDNESS_SECONDS * rate:
        raise ValueError(f"shorter than {LOUDNESS_SECONDS:g} s, which loudness needs")
    # at least as many samples as a block has, or pyloudnorm refuses the last fraction of one
    value = float(pyloudnorm.Meter(rate).integrated_loudness(wave.astype(np.float64)))
    if not math.isfinite(value):
        raise ValueError("too quiet to have a loudness (below -70 LUFS)")
    return value


def active_level_db(wave: np.ndarray, rate: int) -> float:
    """Active speech level in dB relative to full scale (ITU-T P.56, method B); -inf for silence.

    The energy is divided by the time of activity: where the twice smoothed envelope is above a threshold, or
    was so within 0.2 s. The threshold is the one that lies 15.9 dB below the level that it gives. Thresholds
    here are relative to the signal's RMS, so that the level follows a gain exactly; P.56 takes powers of two.
    """
    from scipy.signal import lfilter

    energy = float(np.sum(np.square(wave, dtype=np.float64)))
    if energy == 0.0:
        return -math.inf
    decay = math.exp(-1.0 / (rate * _SMOOTHING))
    envelope = np.abs(wave.astype(np.float64))
    for _ in range(2):
        envelope = lfilter([1.0 - decay], [1.0, -decay], envelope)
    rms_db = _decibels(energy / len(wave))
    thresholds = rms_db + _STEPS_DB
    thresholds = thresholds[thresholds <= _decibels(float(np.max(envelope)) ** 2)]
    levels = np.array(
        [_level_above(envelope, energy, 10.0 ** (step / 20.0), int(_HANGOVER * rate)) for step in thresholds]
    )
    margins = levels - thresholds  # they fall with the threshold
    above = int(np.count_nonzero(margins >= _MARGIN_DB)) - 1
    if above < 0 or above + 1 == len(levels):
        return rms_db
    part = (margins[above] - _MARGIN_DB) / (margins[above] - margins[above + 1])
    return float(levels[above] + part * (levels[above + 1] - levels[above]))


def _level_above(envelope: np.ndarray, energy: float, threshold: float, hangover: int) -> float:
    """Level in dB over the time of activity."""
    loud = envelope >= threshold
    index = np.arange(len(envelope))
    last = np.maximum.accumulate(np.where(loud, index, -1 - hangover))
    active = int(np.count_nonzero(index - last <= hangover))
    return _decibels(energy / max(1, active))


def _decibels(value: float) -> float:
    return 10.0 * math.log10(value) if value > 0.0 else -math.inf
