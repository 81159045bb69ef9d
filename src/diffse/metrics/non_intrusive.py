"""DNSMOS (P.835 and P.808): predicted opinion scores, without a reference.

The networks come with the `speechmos` wheel (MIT; Reddy et al., ICASSP 2022). They give the scores that its
`dnsmos` module gives, and differ in what that costs: one thread per process, so that processes can share the
cores; work that windows have in common done once; and a mel spectrogram in numpy, which spares the wheel's
heavy audio dependencies.
"""

import functools
import math
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from diffse.metrics import p835
from diffse.metrics.checks import at_rate, require_seconds, require_sound
from diffse.metrics.mel import mel_filters

RATE = 16000  # Hz
MIN_SECONDS = 1.0  # below, the score is mostly that of the repetition
_WINDOW = int(9.01 * RATE)  # samples that the networks hear at once
_HOP = RATE
_N_FFT, _MEL_HOP, _MELS = 321, 160, 120
# Third-order fits of the P.835 network's raw outputs to opinion scores (SIG, BAK, OVRL).
_FITS = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)


def dnsmos(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int) -> tuple[float, ...]:
    """SIG, BAK, OVRL (P.835) and the P.808 score of `enhanced` [samples]; each is a MOS from 1 to 5.

    Other rates are resampled to 16 kHz. Signals shorter than the 9.01 s window are repeated, as in the
    reference implementation. The networks are defined for samples within [-1, 1]: a louder signal is
    scaled down to that. Raises Missing below 1 s and for silence.
    """
    require_sound(enhanced=enhanced)
    require_seconds(enhanced, rate, MIN_SECONDS)
    wave = at_rate(enhanced, rate, RATE).astype(np.float32)
    wave = wave / max(1.0, float(np.max(np.abs(wave))))
    windows = _windows(wave)
    # of a repeated signal a window hears what an earlier one has heard once the period has passed
    distinct = windows[: len(wave) // math.gcd(len(wave), _HOP)]
    raw = p835.raw_scores(distinct, _folder() / "sig_bak_ovr.onnx")
    opinions = [_p808().run(None, {"input_1": mel_features(x[:-160])[None]})[0][0] for x in distinct]
    fitted = [np.polyval(fit, values) for fit, values in zip(_FITS, raw.T.astype(np.float64), strict=True)]
    scores = np.stack([*fitted, np.concatenate(opinions)], axis=1)
    return tuple(scores[np.arange(len(windows)) % len(distinct)].mean(axis=0).tolist())


def _windows(wave: np.ndarray) -> list[np.ndarray]:
    """Windows of 9.01 s every second, of the wave doubled until it fills one."""
    while len(wave) < _WINDOW:
        wave = np.concatenate([wave, wave])
    count = int(len(wave) // RATE - 9.01) + 1
    starts = (number * _HOP for number in range(count))
    return [wave[start : start + _WINDOW] for start in starts if start + _WINDOW <= len(wave)]


def _folder() -> Path:
    """The wheel's networks. Importing its module would load its audio dependencies."""
    return Path(util.find_spec("speechmos").submodule_search_locations[0]) / "dnsmos_models"


@functools.cache
def _p808() -> Any:
    return p835.session(str(_folder() / "model_v8.onnx"))


def mel_features(wave: np.ndarray) -> np.ndarray:
    """Input of the P.808 network: float32 [frames, 120], mel power in dB below its maximum, shifted, scaled."""
    padded = np.pad(wave.astype(np.float32), _N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::_MEL_HOP]
    parts = (frames @ _transform()).reshape(len(frames), 2, -1)
    power = np.square(parts).sum(axis=1) @ mel_filters(RATE, _N_FFT, _MELS, RATE / 2).T
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    relative = np.maximum(decibels - decibels.max(), -80.0)
    return ((relative + 40) / 40).astype(np.float32)


@functools.cache
def _transform() -> np.ndarray:
    """Hann window and discrete Fourier transform of 321 samples, real parts before imaginary ones.

    A product with it takes a third of the time of a fast transform, as 321 is 3 times the prime 107.
    """
    n = np.arange(_N_FFT)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / _N_FFT)
    phase = np.exp(-2j * np.pi * (np.outer(n, n[: _N_FFT // 2 + 1]) % _N_FFT) / _N_FFT) * hann[:, None]
    return np.concatenate([phase.real, phase.imag], axis=1).astype(np.float32)
