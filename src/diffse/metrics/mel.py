"""Mel filters on Slaney's scale, as the networks that predict opinions were trained with."""

import functools

import numpy as np

# Slaney's scale: 3 mel per 200 Hz up to 1 kHz, then 27 mel per factor 6.4.
_BREAK_HZ, _BREAK_MEL, _STEP = 1000.0, 15.0, np.log(6.4) / 27


@functools.cache
def mel_filters(rate: int, n_fft: int, mels: int, top: float) -> np.ndarray:
    """Triangles of equal area from 0 to `top` Hz: [mels, n_fft // 2 + 1]; zero beyond half the rate."""
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(top), mels + 2))
    distance = edges[:, None] - np.fft.rfftfreq(n_fft, 1 / rate)
    widths = np.diff(edges)[:, None]
    triangles = np.maximum(0, np.minimum(-distance[:-2] / widths[:-1], distance[2:] / widths[1:]))
    return triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]


def _hz_to_mel(hz: float) -> float:
    return _BREAK_MEL + float(np.log(hz / _BREAK_HZ)) / _STEP if hz > _BREAK_HZ else 3 * hz / 200


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel > _BREAK_MEL, _BREAK_HZ * np.exp(_STEP * (mel - _BREAK_MEL)), 200 * mel / 3)
