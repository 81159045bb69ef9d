"""STOI and ESTOI: short-time objective intelligibility.

Taal et al., IEEE TASLP 19(7), 2011 (STOI); Jensen and Taal, IEEE/ACM TASLP 24(11), 2016 (ESTOI). The numbers
are those of pystoi 0.4.1 (tests compare them), with all frames computed at once, which is five times as fast.
ESTOI is without the noise that pystoi adds from NumPy's global generator: where the enhanced signal is digital
silence, pystoi's score is partly chance, and the expected value stands here.
"""

import functools
import math

import numpy as np

from diffse.metrics.checks import Missing, require_seconds, require_sound
from diffse.metrics.frames import frames, hann

RATE = 10000  # Hz
_FRAME, _HOP, _N_FFT = 256, 128, 512
_BANDS, _LOWEST = 15, 150.0  # third octaves; centre of the lowest, Hz
_SEGMENT = 30  # frames that are compared at once
_DYNAMIC_RANGE = 40.0  # dB below the loudest frame, where a frame counts as silent
_CLIP = 1 + 10 ** (15 / 20)  # -15 dB signal-to-distortion ratio
_LARGEST_FACTOR = 1000  # of the resampling
_EPS = float(np.finfo(np.float64).eps)
MIN_SECONDS = (_SEGMENT * _HOP + _FRAME) / RATE


def stoi(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int) -> float:
    """Short-time objective intelligibility (2011, eqs. 1-6), at most 1."""
    x, y = _segments(clean, enhanced, rate)
    y = y * (_norm(x, 2) / (_norm(y, 2) + _EPS))
    x, y = (_centred(z, 2) for z in (x, np.minimum(y, x * _CLIP)))
    correlation = np.sum(x * y, axis=2) / ((_norm(x, 2) + _EPS) * (_norm(y, 2) + _EPS))[..., 0]
    return float(correlation.mean())


def estoi(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int) -> float:
    """Extended short-time objective intelligibility (2016, eqs. 4-8), in [-1, 1]."""
    x, y = (_unit(_unit(z, 2), 1) for z in _segments(clean, enhanced, rate))
    return float(np.sum(x * y) / (_SEGMENT * len(x)))


def _centred(z: np.ndarray, axis: int) -> np.ndarray:
    return z - z.mean(axis=axis, keepdims=True)


def _norm(z: np.ndarray, axis: int) -> np.ndarray:
    return np.sqrt(np.sum(z * z, axis=axis, keepdims=True))


def _unit(z: np.ndarray, axis: int) -> np.ndarray:
    """Without mean and of length 1 along `axis`; zero where nothing but rounding is left."""
    level = np.abs(z).max(axis=axis, keepdims=True)
    z = _centred(z, axis)
    length = _norm(z, axis)
    heard = length > 100 * _EPS * level
    return np.where(heard, z / np.where(heard, length, 1.0), 0.0)


def _segments(clean: np.ndarray, enhanced: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Third-octave envelopes of both signals without silent frames: two [segments, bands, 30]."""
    require_sound(clean=clean, enhanced=enhanced)
    require_seconds(clean, rate, MIN_SECONDS)
    signals = [_resampled(x.astype(np.float64), rate) for x in (clean, enhanced)]
    x, y = _without_silence(*signals)
    envelopes = [_envelopes(z) for z in (x, y)]
    if envelopes[0].shape[1] < _SEGMENT:
        raise Missing("too few frames with speech")
    return tuple(
        np.lib.stride_tricks.sliding_window_view(z, _SEGMENT, axis=1).transpose(1, 0, 2) for z in envelopes
    )


def _without_silence(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both signals from those frames alone in which x is within 40 dB of its loudest."""
    of_x, of_y = (frames(z[:-1], _FRAME, _HOP) * hann(_FRAME) for z in (x, y))
    energy = 20 * np.log10(np.linalg.norm(of_x, axis=1) + _EPS)
    heard = energy > energy.max() - _DYNAMIC_RANGE
    return _overlap_add(of_x[heard]), _overlap_add(of_y[heard])


def _overlap_add(parts: np.ndarray) -> np.ndarray:
    """Signal [samples] of frames that overlap by half."""
    signal = np.zeros((len(parts) + 1, _HOP))
    signal[:-1] += parts[:, :_HOP]
    signal[1:] += parts[:, _HOP:]
    return signal.reshape(-1)


def _envelopes(signal: np.ndarray) -> np.ndarray:
    """Magnitude in each third octave (2011, eq. 1): [bands, frames]."""
    spectrum = np.fft.rfft(frames(signal[:-1], _FRAME, _HOP) * hann(_FRAME), _N_FFT)
    return np.sqrt(_band_matrix() @ (np.abs(spectrum) ** 2).T)


@functools.cache
def _band_matrix() -> np.ndarray:
    """Which bins each third octave adds up: [bands, n_fft / 2 + 1] of 0 and 1."""
    frequencies = np.fft.rfftfreq(_N_FFT, 1 / RATE)
    edges = _LOWEST * 2.0 ** ((2 * np.arange(_BANDS + 1) - 1) / 6)
    bins = np.argmin(np.abs(frequencies - edges[:, None]), axis=1)
    places = np.arange(len(frequencies))
    return ((places >= bins[:-1, None]) & (places < bins[1:, None])).astype(np.float64)


def _resampled(signal: np.ndarray, rate: int) -> np.ndarray:
    """At 10 kHz, by the filter that pystoi and the authors' program use.

    Blocks of output are products of blocks of input and one matrix, which is faster than a polyphase filter.
    """
    if rate == RATE:
        return signal
    up, down = RATE // math.gcd(RATE, rate), rate // math.gcd(RATE, rate)
    if up > _LARGEST_FACTOR:  # an odd rate: its matrix would take gigabytes
        from scipy.signal import resample_poly

        return resample_poly(signal, up, down, window=_kaiser_sinc(up, down))
    first, hop, matrix = _resampler(up, down)
    count = -(-len(signal) * RATE // rate)
    blocks = -(-count // matrix.shape[1])
    padded = np.pad(signal, (-first, max(0, first + (blocks - 1) * hop + len(matrix) - len(signal))))
    windows = np.ascontiguousarray(frames(padded, len(matrix), hop)[:blocks])
    return (windows @ matrix).reshape(-1)[:count]


@functools.cache
def _resampler(up: int, down: int) -> tuple[int, int, np.ndarray]:
    """(first sample that a block hears, hop of blocks, matrix [samples of a block, its samples at 10 kHz])."""
    taps = _kaiser_sinc(up, down) * up
    half, periods = len(taps) // 2, max(1, 128 // down)
    first, last = -(half // up), ((periods * up - 1) * down + half) // up
    places = half + np.arange(periods * up) * down - np.arange(first, last + 1)[:, None] * up
    inside = (places >= 0) & (places < len(taps))
    return first, periods * down, np.where(inside, taps[np.clip(places, 0, len(taps) - 1)], 0.0)


def _kaiser_sinc(up: int, down: int) -> np.ndarray:
    """Low-pass filter with 60 dB rejection and sum 1, as Octave's `resample` designs it."""
    cutoff = 1 / (2 * max(up, down))
    half = int(np.ceil((60 - 8) / (28.714 * cutoff / 10)))
    taps = np.kaiser(2 * half + 1, 0.1102 * (60 - 8.7)) * np.sinc(2 * cutoff * np.arange(-half, half + 1))
    return taps / taps.sum()
