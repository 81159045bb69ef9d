"""SQUIM: STOI, PESQ and SI-SDR estimated without a reference.

Kumar et al., "TorchAudio-Squim: reference-less speech quality and intelligibility measures in TorchAudio",
ICASSP 2023; the network is torchaudio's, its weights are the user's.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import nn

from diffse.errors import DiffseError
from diffse.metrics import weights
from diffse.metrics.checks import at_rate, require_seconds, require_sound
from diffse.metrics.tools import Tools, one_thread

RATE = 16000  # Hz
MIN_SECONDS = 0.5


def squim(
    clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int, *, tools: Tools
) -> tuple[float, ...]:
    """Estimates of STOI, wide-band PESQ and SI-SDR (dB) of `enhanced` [samples]; other rates are resampled."""
    network = _network(tools.file("squim"))
    require_sound(enhanced=enhanced)
    require_seconds(enhanced, rate, MIN_SECONDS)
    wave = torch.from_numpy(at_rate(enhanced, rate, RATE).astype(np.float32))[None]
    with one_thread():
        return tuple(float(score) for score in network(wave))


@functools.cache
def _network(path: Path) -> nn.Module:
    from torchaudio.models import squim_objective_base

    state = weights.read(path)
    if not isinstance(state, dict):
        raise DiffseError(f"{path}: not weights of SQUIM")
    network = squim_objective_base()
    weights.load(network, state, path)
    return network
