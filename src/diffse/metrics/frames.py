"""Frames of a signal, and their linear prediction, for all frames at once."""

import numpy as np


def frames(signal: np.ndarray, length: int, hop: int) -> np.ndarray:
    """View of `signal` [samples] as whole frames [frames, length], one every `hop` samples."""
    if len(signal) < length:
        return np.empty((0, length), signal.dtype)
    return np.lib.stride_tricks.sliding_window_view(signal, length)[::hop]


def hann(length: int) -> np.ndarray:
    """Symmetric Hann window without its two zeros: [length]."""
    return np.hanning(length + 2)[1:-1]


def autocorrelation(x: np.ndarray, order: int) -> np.ndarray:
    """Lags 0 to `order` of each frame of x [frames, length]: [frames, order + 1]."""
    size = 1 << (x.shape[1] + order).bit_length()
    power = np.abs(np.fft.rfft(x, size)) ** 2
    return np.fft.irfft(power, size)[:, : order + 1]


def linear_prediction(R: np.ndarray) -> np.ndarray:
    """Prediction error filters A [frames, order + 1], A[:, 0] = 1, of autocorrelations R [frames, order + 1].

    Levinson-Durbin recursion. A frame whose prediction is perfect or whose R is zero gives NaN.
    """
    A = np.zeros_like(R)
    A[:, 0] = 1.0
    error = R[:, 0].copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in range(1, R.shape[1]):
            reflection = -np.einsum("fk,fk->f", A[:, :i], R[:, i:0:-1]) / error
            A[:, 1 : i + 1] += reflection[:, None] * A[:, i - 1 :: -1][:, :i]
            error = error * (1 - reflection**2)
    return A


def quadratic_form(A: np.ndarray, R: np.ndarray) -> np.ndarray:
    """a T(r) a' of each frame, T(r) the Toeplitz matrix of its autocorrelation: [frames]."""
    order = A.shape[1] - 1
    lags = np.abs(np.arange(order + 1)[:, None] - np.arange(order + 1))
    return np.einsum("fi,fij,fj->f", A, R[:, lags], A)
