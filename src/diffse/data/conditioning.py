"""What is done to clean speech before it is mixed, where a corpus asks for it."""

from functools import lru_cache

import numpy as np


def highpass(wave: np.ndarray, rate: int, hz: float) -> np.ndarray:
    """`wave` float32 [samples] without what lies below `hz`: second-order Butterworth, as in EARS-WHAM v2."""
    from scipy.signal import sosfilt

    return sosfilt(_butterworth(rate, hz), wave.astype(np.float64)).astype(np.float32)


@lru_cache(maxsize=8)
def _butterworth(rate: int, hz: float) -> np.ndarray:
    from scipy.signal import butter

    return butter(2, hz, "highpass", fs=rate, output="sos")


def ramped(wave: np.ndarray, rate: int, seconds: float) -> np.ndarray:
    """`wave` with a linear rise and fall of `seconds` at its ends, for parts cut out of running speech."""
    n = min(round(seconds * rate), len(wave) // 2)
    rise = np.linspace(0.0, 1.0, n, endpoint=False, dtype=np.float32)
    return np.concatenate([wave[:n] * rise, wave[n : len(wave) - n], wave[len(wave) - n :] * rise[::-1]])
