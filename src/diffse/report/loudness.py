"""Loudness by ITU-R BS.1770, and signals brought to one loudness without clipping."""

import math
from collections.abc import Sequence

import numpy as np

TARGET_LUFS = -26.0  # of every player, unless a peak would clip
PEAK = 0.98  # largest sample allowed
SILENT_LUFS = -70.0  # the gate of BS.1770: what is softer is played as it is
_BLOCK_SECONDS = 0.4


def lufs(wave: np.ndarray, rate: int) -> float:
    """Integrated loudness of `wave` [samples] in LUFS; -inf for silence.

    A wave shorter than one block of 400 ms is repeated until it fills one.
    """
    import pyloudnorm

    wave = np.asarray(wave, dtype=np.float64)
    if not len(wave) or not wave.any():
        return -math.inf
    shortest = math.ceil(_BLOCK_SECONDS * rate) + 1
    if len(wave) < shortest:
        wave = np.tile(wave, -(-shortest // len(wave)))
    with np.errstate(divide="ignore"):  # a wave below the gate is -inf
        return float(pyloudnorm.Meter(rate).integrated_loudness(wave))


def gains(waves: Sequence[np.ndarray], rate: int, target: float = TARGET_LUFS) -> list[float]:
    """Factors that bring each wave [samples] to `target` LUFS, or all as far below as keeps every peak at PEAK.

    A wave below SILENT_LUFS gets 1: raising it would raise rounding noise only.
    """
    levels = [lufs(wave, rate) for wave in waves]
    factors = [10 ** ((target - level) / 20) if level > SILENT_LUFS else 1.0 for level in levels]
    loud = [
        float(np.max(np.abs(wave))) * factor
        for wave, factor, level in zip(waves, factors, levels, strict=True)
        if level > SILENT_LUFS
    ]
    common = min(1.0, PEAK / max(loud)) if loud else 1.0
    return [
        factor * common if level > SILENT_LUFS else 1.0 for factor, level in zip(factors, levels, strict=True)
    ]
