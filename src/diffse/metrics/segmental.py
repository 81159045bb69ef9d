"""Measures that compare clean and enhanced speech frame by frame: segmental SNR, LLR, WSS and LSD.

The first three are those of Hu and Loizou ("Evaluation of objective quality measures for speech enhancement",
IEEE TASLP 16(1), 2008), with the choices of the authors' published program: frames of 30 ms every 7.5 ms under
a Hann window, the last whole frame left out.
"""

import functools

import numpy as np

from diffse.metrics.checks import Missing, require_seconds, require_sound
from diffse.metrics.frames import autocorrelation, frames, hann, linear_prediction, quadratic_form

_SECONDS = 0.03  # of a frame
MIN_SECONDS = 0.04  # one frame, and the one that is left out
_SNR_LIMITS = (-10.0, 35.0)  # dB, of a frame
_EPS = float(np.finfo(np.float64).eps)
_LSD_FRAME, _LSD_HOP, _LSD_RANGE = 0.032, 0.008, 80.0  # s, s, dB


def seg_snr(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int) -> float:
    """Segmental SNR in dB (Hansen and Pellom, 1998): mean over frames, each held within -10 and 35 dB."""
    require_sound(clean=clean, enhanced=enhanced)
    require_seconds(clean, rate, MIN_SECONDS)
    s, error = clean.astype(np.float64), clean.astype(np.float64) - enhanced
    signal, noise = (np.sum(_windowed(x, rate) ** 2, axis=1) for x in (s, error))
    return float(np.clip(10 * np.log10(signal / (noise + _EPS) + _EPS), *_SNR_LIMITS).mean())


def llr(clean: np.ndarray, enhanced: np.ndarray, rate: int) -> np.ndarray:
    """Log-likelihood ratio of each frame (2008, eq. 1): [frames]; frames that have none are left out.

    ln(a_e R_c a_e' / a_c R_c a_c') with the prediction filters a of both signals and the clean autocorrelation.
    """
    order = 10 if rate < 10000 else 16
    R_clean, R_enhanced = (
        autocorrelation(_windowed(x.astype(np.float64) + _EPS, rate), order) for x in (clean, enhanced)
    )
    A_clean, A_enhanced = linear_prediction(R_clean), linear_prediction(R_enhanced)
    ratio = quadratic_form(A_enhanced, R_clean) / quadratic_form(A_clean, R_clean)
    return np.log(ratio[np.isfinite(ratio) & (ratio > 0)])


def wss(clean: np.ndarray, enhanced: np.ndarray, rate: int) -> np.ndarray:
    """Weighted spectral slope distance of each frame (Klatt, 1982; 2008, eqs. 2 and 3): [frames]."""
    of_clean, of_enhanced = (
        _band_levels(_windowed(x.astype(np.float64) + _EPS, rate), rate) for x in (clean, enhanced)
    )
    weights = (_klatt_weights(of_clean) + _klatt_weights(of_enhanced)) / 2
    difference = np.diff(of_clean, axis=1) - np.diff(of_enhanced, axis=1)
    return np.sum(weights * difference**2, axis=1) / np.sum(weights, axis=1)


def _windowed(signal: np.ndarray, rate: int) -> np.ndarray:
    """Frames of 30 ms under their window; as published, the last whole one is left out."""
    length = round(_SECONDS * rate)
    return frames(signal, length, length // 4)[:-1] * hann(length)


# Centre frequencies and bandwidths of the 25 critical bands, Hz.
_BANDS = np.array([
    (50, 70), (120, 70), (190, 70), (260, 70), (330, 70), (400, 70), (470, 70), (540, 77.3724),
    (617.372, 86.0056), (703.378, 95.3398), (798.717, 105.411), (904.128, 116.256), (1020.38, 127.914),
    (1148.30, 140.423), (1288.72, 153.823), (1442.54, 168.154), (1610.70, 183.457), (1794.16, 199.776),
    (1993.93, 217.153), (2211.08, 235.631), (2446.71, 255.255), (2701.97, 276.072), (2978.04, 298.126),
    (3276.17, 321.465), (3597.63, 346.136),
])  # fmt: skip


@functools.cache
def _band_filters(rate: int, n_fft: int) -> np.ndarray:
    """Gaussian filters of equal area, cut below -30 dB: [25, n_fft / 2]."""
    bins = np.arange(n_fft // 2)
    centres, widths = (_BANDS[:, place, None] / rate * n_fft for place in (0, 1))
    gauss = np.exp(-11 * ((bins - np.floor(centres)) / widths) ** 2) * (widths[0] / widths)
    return np.where(gauss > np.exp(-30 / (2 * 2.303)), gauss, 0.0)


def _band_levels(windowed: np.ndarray, rate: int) -> np.ndarray:
    """Level of each band in dB: [frames, 25]."""
    n_fft = 1 << (2 * windowed.shape[1] - 1).bit_length()
    power = np.abs(np.fft.rfft(windowed, n_fft)[:, : n_fft // 2]) ** 2
    return 10 * np.log10(np.maximum(power @ _band_filters(rate, n_fft).T, 1e-10))


def _klatt_weights(levels: np.ndarray) -> np.ndarray:
    """Weight of each slope (eq. 3): large near the highest band and near the next peak: [frames, 24]."""
    below = levels[:, :-1]
    return 20 / (20 + levels.max(axis=1, keepdims=True) - below) / (1 + _nearest_peaks(levels) - below)


def _nearest_peaks(levels: np.ndarray) -> np.ndarray:
    """Level of the peak that each slope leads to, as published: [frames, 24].

    Up a rising slope the search stops one band below the peak; down a falling one it stops at the peak.
    """
    rising = np.diff(levels, axis=1) > 0
    peaks = np.empty(rising.shape)
    last = rising.shape[1] - 1
    for i in range(last, -1, -1):  # to the right: where the next slope does not rise, its lower band
        further = rising[:, i + 1] if i < last else False
        peaks[:, i] = np.where(further, peaks[:, min(i + 1, last)], levels[:, i])
    falling = np.empty(rising.shape)
    for i in range(last + 1):  # to the left: behind the last rising slope
        before = rising[:, i - 1] if i > 0 else True
        falling[:, i] = np.where(before, levels[:, i], falling[:, max(i - 1, 0)])
    return np.where(rising, peaks, falling)


def lsd(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int) -> float:
    """Log-spectral distance in dB (Gray and Markel, 1976): the RMS over bins, averaged over frames.

    Frames of 32 ms every 8 ms under a Hann window. Both power spectra are held above -80 dB relative to the
    highest bin of the clean one, so that pauses do not decide.
    """
    require_sound(clean=clean, enhanced=enhanced)
    require_seconds(clean, rate, _LSD_FRAME)
    length, hop = round(_LSD_FRAME * rate), round(_LSD_HOP * rate)
    spectra = [
        np.abs(np.fft.rfft(frames(x.astype(np.float64), length, hop) * hann(length))) ** 2
        for x in (clean, enhanced)
    ]
    floor = spectra[0].max() * 10 ** (-_LSD_RANGE / 10)
    if floor == 0:
        raise Missing("clean signal is silent within whole frames")
    of_clean, of_enhanced = (10 * np.log10(np.maximum(power, floor)) for power in spectra)
    return float(np.sqrt(np.mean((of_clean - of_enhanced) ** 2, axis=1)).mean())
