"""What every metric asks of its signals before it computes anything, and how it says that it cannot."""

import numpy as np

SILENT_PEAK = 1e-6  # a signal whose peak is below -120 dBFS is silence


class Missing(Exception):
    """A score that cannot be computed; `reason` says why. It is a gap in the table, never a number.

    `lasting`: the same signals will give the same gap again, so that it may be remembered. It is False where a
    program of the user failed.
    """

    def __init__(self, reason: str, lasting: bool = True):
        super().__init__(reason)
        self.reason = reason
        self.lasting = lasting


def require_sound(**signals: np.ndarray) -> None:
    """Raise Missing when one of the named signals [samples] is empty, not finite or silent."""
    for name, signal in signals.items():
        if signal.size == 0:
            raise Missing(f"{name} signal is empty")
        peak = float(np.max(np.abs(signal)))
        if not np.isfinite(peak):
            raise Missing(f"{name} signal has NaN or infinite samples")
        if peak < SILENT_PEAK:
            raise Missing(f"{name} signal is silent")


def require_seconds(signal: np.ndarray, rate: int, seconds: float) -> None:
    """Raise Missing when `signal` [samples] at `rate` Hz is shorter than `seconds`."""
    if len(signal) < seconds * rate:
        raise Missing(f"shorter than {round(seconds, 2):g} s")


def at_rate(signal: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """`signal` [samples] at `wanted` Hz; itself when it has that rate already."""
    if rate == wanted:
        return signal
    from diffse.audio import resample

    return resample(signal, rate, wanted)
