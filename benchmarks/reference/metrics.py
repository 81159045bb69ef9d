"""Scores the plain way: one file after another, one frame after another, everything computed anew.

`published` is what the evaluation scripts of the published systems do with a folder: PESQ, ESTOI and the three
scale-invariant ratios by the usual libraries, and DNSMOS by the wheel `speechmos`. The measures of Hu and
Loizou (2008) are written out with loops, as their published program has them.
"""

import math
import os
import sys
from functools import cache, partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import soundfile
from pesq import pesq
from pystoi import stoi
from scipy.linalg import solve_toeplitz, toeplitz

EPS = np.finfo(np.float64).eps
CENTRES = [
    *(50, 120, 190, 260, 330, 400, 470, 540, 617.372, 703.378, 798.717, 904.128, 1020.38, 1148.30, 1288.72),
    *(1442.54, 1610.70, 1794.16, 1993.93, 2211.08, 2446.71, 2701.97, 2978.04, 3276.17, 3597.63),
]
WIDTHS = [
    *(70, 70, 70, 70, 70, 70, 70, 77.3724, 86.0056, 95.3398, 105.411, 116.256, 127.914, 140.423, 153.823),
    *(168.154, 183.457, 199.776, 217.153, 235.631, 255.255, 276.072, 298.126, 321.465, 346.136),
]


def energy_ratios(s_hat: np.ndarray, s: np.ndarray, n: np.ndarray) -> tuple[float, float, float]:
    """SI-SDR, SI-SIR and SI-SAR in dB of estimate, speech and noise."""
    s_target = np.dot(s_hat, s) * s / np.linalg.norm(s) ** 2
    e_noise = np.dot(s_hat, n) * n / np.linalg.norm(n) ** 2
    e_artefact = s_hat - s_target - e_noise
    target = np.linalg.norm(s_target) ** 2
    return tuple(
        10 * np.log10(target / np.linalg.norm(rest) ** 2)
        for rest in (e_noise + e_artefact, e_noise, e_artefact)
    )


RATIOS = ("si_sdr", "si_sir", "si_sar")
OPINIONS = {"sig": "dnsmos_sig", "bak": "dnsmos_bak", "ovrl": "dnsmos_ovrl", "p808": "dnsmos_p808"}


def published(
    clean: Path, noisy: Path, enhanced: Path, metrics: tuple[str, ...] = ("pesq", "estoi", *RATIOS)
) -> dict[str, list[float]]:
    """Scores of the files of three folders by the libraries, in the order of their names."""
    scores: dict[str, list[float]] = {}
    for path in sorted(noisy.iterdir()):
        x, rate = soundfile.read(clean / path.name)
        y, _ = soundfile.read(path)
        x_hat, _ = soundfile.read(enhanced / path.name)
        for name, value in scored(x, y, x_hat, rate, metrics).items():
            scores.setdefault(name, []).append(value)
    return scores


def scored(
    x: np.ndarray, y: np.ndarray, x_hat: np.ndarray, rate: int, metrics: tuple[str, ...]
) -> dict[str, float]:
    """Scores of one file: clean x, noisy y and enhanced x_hat [samples]."""
    found = {}
    if "pesq" in metrics:
        found["pesq"] = pesq(16000, x, x_hat, "wb")
    if "estoi" in metrics:
        found["estoi"] = stoi(x, x_hat, rate, extended=True)
    if any(name in metrics for name in RATIOS):
        ratios = zip(RATIOS, energy_ratios(x_hat, x, y - x), strict=True)
        found |= {name: value for name, value in ratios if name in metrics}
    if "dnsmos" in metrics:
        opinions = _speechmos().run(x_hat, rate)
        found |= {name: float(opinions[f"{kind}_mos"]) for kind, name in OPINIONS.items()}
    return found


@cache
def _speechmos() -> ModuleType:
    """The wheel's own program, with the two functions of librosa that it calls: librosa is not installed."""
    if "librosa" not in sys.modules:
        feature = SimpleNamespace(melspectrogram=_mel_spectrogram)
        sys.modules["librosa"] = SimpleNamespace(feature=feature, power_to_db=_power_to_db)
    from speechmos import dnsmos

    if os.environ.get("OMP_NUM_THREADS") == "1":  # onnxruntime does not look at it
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = partial(onnxruntime.InferenceSession, sess_options=options)
        dnsmos.ort = SimpleNamespace(InferenceSession=session)
    return dnsmos


def _mel_spectrogram(y: np.ndarray, sr: int, n_fft: int, hop_length: int, n_mels: int) -> np.ndarray:
    from diffse.metrics.mel import mel_filters

    frames = np.lib.stride_tricks.sliding_window_view(np.pad(y, n_fft // 2), n_fft)[::hop_length]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    return mel_filters(sr, n_fft, n_mels, sr / 2) @ (np.abs(np.fft.rfft(frames * window, axis=1)) ** 2).T


def _power_to_db(power: np.ndarray, ref: object) -> np.ndarray:
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    return np.maximum(decibels - decibels.max(), -80.0)


def framed(x: np.ndarray, rate: int) -> list[np.ndarray]:
    """Windowed frames of 30 ms every 7.5 ms; the last whole one is left out."""
    length = round(0.03 * rate)
    hop = length // 4
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, length + 1) / (length + 1)))
    count = int(len(x) / hop - length / hop)
    return [x[k * hop : k * hop + length] * window for k in range(count)]


def segmental_snr(clean: np.ndarray, enhanced: np.ndarray, rate: int) -> float:
    """Mean over frames of the SNR in dB, held within -10 and 35."""
    values = []
    for x, x_hat in zip(framed(clean, rate), framed(enhanced, rate), strict=True):
        ratio = np.sum(x**2) / (np.sum((x - x_hat) ** 2) + EPS)
        values.append(min(max(10 * math.log10(ratio + EPS), -10), 35))
    return float(np.mean(values))


def llr(clean: np.ndarray, enhanced: np.ndarray, rate: int) -> list[float]:
    """Log-likelihood ratio of each frame; prediction by solving the normal equations."""
    order = 10 if rate < 10000 else 16
    values = []
    for x, x_hat in zip(framed(clean + EPS, rate), framed(enhanced + EPS, rate), strict=True):
        R = [np.array([np.dot(z[: len(z) - k], z[k:]) for k in range(order + 1)]) for z in (x, x_hat)]
        a, a_hat = (np.concatenate([[1], -solve_toeplitz(r[:-1], r[1:])]) for r in R)
        T = toeplitz(R[0])
        values.append(math.log((a_hat @ T @ a_hat) / (a @ T @ a)))
    return values


def wss(clean: np.ndarray, enhanced: np.ndarray, rate: int) -> list[float]:
    """Weighted spectral slope distance of each frame."""
    values = []
    for x, x_hat in zip(framed(clean + EPS, rate), framed(enhanced + EPS, rate), strict=True):
        levels = [band_levels(z, rate) for z in (x, x_hat)]
        weights = sum(slope_weights(level) for level in levels) / 2
        difference = np.diff(levels[0]) - np.diff(levels[1])
        values.append(float(np.sum(weights * difference**2) / np.sum(weights)))
    return values


def band_levels(frame: np.ndarray, rate: int) -> np.ndarray:
    """Energy of 25 critical bands in dB."""
    n_fft = 2 ** math.ceil(math.log2(2 * len(frame)))
    half = n_fft // 2
    power = np.abs(np.fft.fft(frame, n_fft)[:half]) ** 2
    levels = []
    for centre, width in zip(CENTRES, WIDTHS, strict=True):
        bins = (np.arange(half) - math.floor(centre / (rate / 2) * half)) / (width / (rate / 2) * half)
        weight = np.exp(-11 * bins**2 + math.log(WIDTHS[0]) - math.log(width))
        weight[weight <= math.exp(-30 / (2 * 2.303))] = 0
        levels.append(10 * math.log10(max(np.sum(power * weight), 1e-10)))
    return np.array(levels)


def slope_weights(levels: np.ndarray) -> np.ndarray:
    """Klatt's weights: by the distance to the highest band and to the nearest peak."""
    slopes, peaks = np.diff(levels), []
    for i in range(len(slopes)):
        n = i
        if slopes[i] > 0:
            while n < len(slopes) and slopes[n] > 0:
                n += 1
            peaks.append(levels[n - 1])
        else:
            while n >= 0 and slopes[n] <= 0:
                n -= 1
            peaks.append(levels[n + 1])
    below = levels[:-1]
    return 20 / (20 + levels.max() - below) / (1 + np.array(peaks) - below)


def composite(clean: np.ndarray, enhanced: np.ndarray, rate: int) -> tuple[float, float, float]:
    """CSIG, CBAK and COVL with wide-band PESQ."""

    def best(values: list[float]) -> float:
        return float(np.mean(sorted(values)[: round(0.95 * len(values))]))

    of_llr, of_wss = best(llr(clean, enhanced, rate)), best(wss(clean, enhanced, rate))
    mos, snr = pesq(rate, clean, enhanced, "wb"), segmental_snr(clean, enhanced, rate)
    opinions = (
        3.093 - 1.029 * of_llr + 0.603 * mos - 0.009 * of_wss,
        1.634 + 0.478 * mos - 0.007 * of_wss + 0.063 * snr,
        1.594 + 0.805 * mos - 0.512 * of_llr - 0.007 * of_wss,
    )
    return tuple(min(max(opinion, 1), 5) for opinion in opinions)
