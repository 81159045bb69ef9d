"""DNSMOS (P.835 and P.808): predicted opinion scores, without a reference.

The networks come with the `speechmos` wheel (MIT; Reddy et al., ICASSP 2022). They are run here as its
`dnsmos` module runs them, with two differences: one thread per process, so that processes can share the
cores, and a mel spectrogram in numpy, which spares the wheel's heavy audio dependencies.
"""

import functools
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

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
    scores = np.array([_score(window) for window in _windows(wave)])
    return tuple(float(score) for score in scores.mean(axis=0))


def _windows(wave: np.ndarray) -> list[np.ndarray]:
    """Windows of 9.01 s every second, of the wave doubled until it fills one."""
    while len(wave) < _WINDOW:
        wave = np.concatenate([wave, wave])
    count = int(len(wave) // RATE - 9.01) + 1
    starts = (number * _HOP for number in range(count))
    return [wave[start : start + _WINDOW] for start in starts if start + _WINDOW <= len(wave)]


def _score(window: np.ndarray) -> list[float]:
    p835, p808 = _networks()
    raw = p835.run(None, {"input_1": window[None]})[0][0]
    opinion = p808.run(None, {"input_1": mel_features(window[:-160])[None]})[0][0][0]
    return [float(np.polyval(fit, value)) for fit, value in zip(_FITS, raw, strict=True)] + [float(opinion)]


@functools.cache
def _networks() -> tuple[Any, Any]:
    """The P.835 and P.808 networks, each on one thread."""
    import onnxruntime

    # the folder alone: importing the package's module would load its audio dependencies
    folder = Path(util.find_spec("speechmos").submodule_search_locations[0]) / "dnsmos_models"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    names = ("sig_bak_ovr.onnx", "model_v8.onnx")
    return tuple(
        onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        for name in names
    )


def mel_features(wave: np.ndarray) -> np.ndarray:
    """Input of the P.808 network: float32 [frames, 120], mel power in dB below its maximum, shifted, scaled."""
    padded = np.pad(wave.astype(np.float32), _N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::_MEL_HOP]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_N_FFT) / _N_FFT)).astype(np.float32)
    power = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2 @ mel_filters(RATE, _N_FFT, _MELS, RATE / 2).T
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    relative = np.maximum(decibels - decibels.max(), -80.0)
    return ((relative + 40) / 40).astype(np.float32)
