"""CSIG, CBAK and COVL: opinions on signal, background and whole, predicted from four measures.

Hu and Loizou, "Evaluation of objective quality measures for speech enhancement", IEEE TASLP 16(1), 2008, table
VI. As in the literature on VoiceBank-DEMAND, PESQ is the wide-band one (MOS-LQO) and the signals are at 16 kHz.
"""

import numpy as np

from diffse.metrics import segmental
from diffse.metrics.checks import Missing, at_rate, require_seconds, require_sound

RATE = 16000  # Hz
_KEPT = 0.95  # share of the frames, the best ones, that LLR and WSS are averaged over


def composite(
    clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int, *, pesq: float
) -> tuple[float, float, float]:
    """(CSIG, CBAK, COVL) of signals [samples], each from 1 to 5. `pesq`: their wide-band PESQ."""
    require_sound(clean=clean, enhanced=enhanced)
    require_seconds(clean, rate, segmental.MIN_SECONDS)
    clean, enhanced = at_rate(clean, rate, RATE), at_rate(enhanced, rate, RATE)
    of_llr = _best_mean(segmental.llr(clean, enhanced, RATE))
    of_wss = _best_mean(segmental.wss(clean, enhanced, RATE))
    snr = segmental.seg_snr(clean, enhanced, noisy, RATE)
    opinions = (
        3.093 - 1.029 * of_llr + 0.603 * pesq - 0.009 * of_wss,
        1.634 + 0.478 * pesq - 0.007 * of_wss + 0.063 * snr,
        1.594 + 0.805 * pesq - 0.512 * of_llr - 0.007 * of_wss,
    )
    return tuple(float(np.clip(opinion, 1, 5)) for opinion in opinions)


def _best_mean(distances: np.ndarray) -> float:
    kept = round(len(distances) * _KEPT)
    if kept == 0:
        raise Missing("too few frames with speech")
    return float(np.sort(distances)[:kept].mean())
