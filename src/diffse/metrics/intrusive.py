"""Metrics that compare with the clean signal: PESQ and the scale-invariant ratios.

Each takes (clean, enhanced, noisy, rate): float arrays [samples] of one length and their rate in Hz. It
returns a float, or raises `Missing` with the reason. Signals enter as they are: no mean is removed and no
delay is searched (PESQ does that itself).
"""

import numpy as np

from diffse.metrics.checks import Missing, at_rate, require_seconds, require_sound

PESQ_RATE = 16000  # Hz, of both forms
_PESQ_MIN_SECONDS = 0.25
_PESQ_UTTERANCES = 50  # that the ITU code has room for; it writes past its arrays beyond
_PESQ_SAFE_SECONDS = 19.0  # an utterance and the pause behind it take at least 0.38 s
_DIGITAL_ZERO = 1e-20  # energy ratio (-200 dB) below which a residual is the rounding of the arithmetic


def pesq(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int) -> float:
    """PESQ, wide band (ITU-T P.862.2), as MOS-LQO; at 16 kHz, other rates are resampled."""
    return _pesq(clean, enhanced, rate, "wb")


def pesq_nb(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int) -> float:
    """PESQ, narrow band (ITU-T P.862), mapped to MOS-LQO by P.862.1; at 16 kHz, other rates are resampled."""
    return _pesq(clean, enhanced, rate, "nb")


def _pesq(clean: np.ndarray, enhanced: np.ndarray, rate: int, mode: str) -> float:
    from pesq import PesqError
    from pesq import pesq as itu_pesq

    require_sound(clean=clean, enhanced=enhanced)
    require_seconds(clean, rate, _PESQ_MIN_SECONDS)
    clean, enhanced = at_rate(clean, rate, PESQ_RATE), at_rate(enhanced, rate, PESQ_RATE)
    if len(clean) > _PESQ_SAFE_SECONDS * PESQ_RATE and _most_utterances(clean) >= _PESQ_UTTERANCES:
        raise Missing(f"more than the {_PESQ_UTTERANCES} utterances that PESQ can hold")
    try:
        return float(itu_pesq(PESQ_RATE, clean, enhanced, mode))
    except PesqError as error:
        message = error.args[0] if error.args else type(error).__name__
        raise Missing(f"PESQ: {message.decode() if isinstance(message, bytes) else message}") from None
    except ValueError:  # what pesq makes of a disturbance that is not a number
        raise Missing("PESQ: its result is not a number") from None


def _most_utterances(clean: np.ndarray) -> int:
    """Most utterances that PESQ's voice activity detection could find in `clean` [samples] at 16 kHz.

    It joins frames of 4 ms over pauses up to 50 frames and keeps runs of 50 or more. Its threshold depends
    on its filters, so all thresholds are tried: on speech this gives 1.2 to 1.8 times its own count.
    """
    frames = clean[: len(clean) // 64 * 64].reshape(-1, 64)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    most = 0
    for threshold_db in range(-60, 0, 3):
        active = np.flatnonzero(power > power.max() * 10 ** (threshold_db / 10))
        gaps = np.flatnonzero(np.diff(active) > 50)
        first = np.concatenate([active[:1], active[gaps + 1]])
        last = np.concatenate([active[gaps], active[-1:]])
        most = max(most, int(np.count_nonzero(last - first >= 45)))
    return most


def si_sdr(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio in dB: |s_target|^2 / |e_noise + e_artefact|^2."""
    target, residual = _target(clean, enhanced)
    return _decibels(target, residual)


def si_sir(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int) -> float:
    """Scale-invariant signal-to-interference ratio in dB: |s_target|^2 / |e_noise|^2."""
    target, _ = _target(clean, enhanced)
    return _decibels(target, _noise_part(clean, enhanced, noisy))


def si_sar(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int) -> float:
    """Scale-invariant signal-to-artefact ratio in dB: |s_target|^2 / |e_artefact|^2."""
    target, residual = _target(clean, enhanced)
    return _decibels(target, residual - _noise_part(clean, enhanced, noisy))


def _target(clean: np.ndarray, enhanced: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """s_target = <s_hat, s> s / |s|^2 and the rest s_hat - s_target, in double precision."""
    require_sound(clean=clean, enhanced=enhanced)
    s, s_hat = clean.astype(np.float64), enhanced.astype(np.float64)
    target = np.dot(s_hat, s) / np.dot(s, s) * s
    return target, s_hat - target


def _noise_part(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """e_noise = <s_hat, n> n / |n|^2 with n = noisy - clean."""
    require_sound(noisy=noisy)
    n, s_hat = noisy.astype(np.float64) - clean, enhanced.astype(np.float64)
    energy = np.dot(n, n)
    if energy == 0:
        raise Missing("noisy signal equals the clean one")
    return np.dot(s_hat, n) / energy * n


def _decibels(signal: np.ndarray, residual: np.ndarray) -> float:
    """Ratio of the energies in dB. An infinite ratio is Missing: no mean could hold it."""
    above, below = float(np.dot(signal, signal)), float(np.dot(residual, residual))
    if below <= _DIGITAL_ZERO * above:
        raise Missing("nothing left in the denominator: the ratio is infinite")
    if above <= _DIGITAL_ZERO * below:
        raise Missing("nothing of the clean signal is left: the ratio is minus infinity")
    return 10 * float(np.log10(above / below))
