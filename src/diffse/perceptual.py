"""A differentiable stand-in for PESQ, as a training loss (paper 000, eq. 19; package torch-pesq).

It follows ITU-T P.862 without its alignment in time. The package takes any signal for speech: it divides by the
power of both signals and averages over windows of 20 frames, so that silence gives NaN and short signals fail.
Both are dealt with here.
"""

import functools
import math

import torch
from torch import Tensor, nn

from diffse.errors import DiffseError

WORST = 45 * (0.1 + 0.0309)  # P.862 limits both disturbances of a frame to 45
_SHORTEST = (512 + 19 * 256) / 16000  # seconds: 20 frames of 512 samples every 256
_SILENCE = 1e-4  # root mean square of a signal within +-1; -80 dB
# Far from audible. The package's filters ring on in digital silence until numbers are too small to divide by,
# and the gradient of a magnitude is NaN there.
_DITHER = 1e-10


def pesq_loss(reference: Tensor, estimate: Tensor, rate: int) -> Tensor:
    """0.1 d_symmetric + 0.0309 d_asymmetric of P.862, between 0 (no audible difference) and `WORST`: [B].

    `reference` and `estimate` are real [B, L] within about +-1 at `rate` Hz, any L >= 1; short ones are
    followed by zeros. Their levels do not matter, as both are first brought to the same one; but a signal below
    -80 dB has no loudness to speak of. A silent reference gives 0 (PESQ knows no such case), a silent estimate
    of speech `WORST`, both without gradient. DiffseError where torch-pesq is not installed.
    """
    heard, answered = (wave.detach().square().mean(1) > _SILENCE**2 for wave in (reference, estimate))
    judged = (heard & answered)[:, None]
    reference, estimate = _lengthened(reference.float(), rate), _lengthened(estimate.float(), rate)
    n = torch.arange(reference.shape[1], device=reference.device, dtype=torch.float64)
    noise = torch.cos(0.7 * n**2).float().expand_as(reference)  # the same on every call and device
    # Replaced before the division: what is masked only after it would still have NaN as its gradient.
    reference, estimate = (torch.where(judged, wave + _DITHER * noise, noise) for wave in (reference, estimate))
    with torch.autocast(reference.device.type, enabled=False):  # powers up to 1e14 need single precision
        loss = _module(rate, reference.device)(reference, estimate).float()
    return torch.where(judged[:, 0], loss, WORST * heard)


def _lengthened(wave: Tensor, rate: int) -> Tensor:
    return nn.functional.pad(wave, (0, max(0, math.ceil(_SHORTEST * rate) - wave.shape[1])))


@functools.lru_cache(maxsize=8)
def _module(rate: int, device: torch.device) -> nn.Module:
    """The package's loss; kept here so that objectives and checkpoints do not hold its tables."""
    try:
        from torch_pesq import PesqLoss
    except ImportError:
        raise DiffseError(
            "the PESQ term of the objective needs torch-pesq: run pip install 'diffse[train]'"
        ) from None
    # Tables born in inference mode could not serve training later.
    with torch.inference_mode(False), torch.no_grad():
        return PesqLoss(1.0, sample_rate=rate).to(device)
