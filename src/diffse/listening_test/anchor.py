"""The low anchor of ITU-R BS.1534-3: the reference without what lies above 3.5 kHz."""

import numpy as np

from diffse.errors import DiffseError

PASS_HZ, STOP_HZ = 3500.0, 4000.0  # the Recommendation: +-0.1 dB up to 3.5 kHz, -25 dB at 4, -50 dB at 4.5 kHz
_ATTENUATION_DB = 60.0


def low_anchor(wave: np.ndarray, rate: int) -> np.ndarray:
    """`wave` [samples] below 3.5 kHz, without delay. DiffseError for a rate that leaves nothing to remove."""
    from scipy import signal

    if rate <= 2 * STOP_HZ:
        raise DiffseError(
            f"a low anchor at 3.5 kHz needs a rate above {2 * STOP_HZ:g} Hz, this corpus has {rate}"
        )
    taps, beta = signal.kaiserord(_ATTENUATION_DB, (STOP_HZ - PASS_HZ) / (rate / 2))
    taps += 1 - taps % 2  # odd, so that the delay is a whole number of samples
    response = signal.firwin(taps, (PASS_HZ + STOP_HZ) / 2, window=("kaiser", beta), fs=rate)
    return signal.fftconvolve(wave, response, mode="same").astype(np.float32)
