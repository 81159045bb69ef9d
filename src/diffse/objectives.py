"""What the network predicts and how it is trained: the only piece that knows both network and process.

An objective has `loss(x_0, y, t, z)` for training and `denoise(x_t, y, t)` for sampling; the clean estimate
x_hat_0 is what samplers work with. Spectrograms are complex [B, 1, F, T], times real [B].
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffse.processes import OUVE, SBVE, expand, perturb
from diffse.spectrogram import Spectrogram

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


def squared_error(error: Tensor) -> Tensor:
    """1/2 sum |e|^2 per example: [B, ...] -> [B]."""
    return 0.5 * error.abs().square().flatten(1).sum(1)


@dataclass(frozen=True)
class ScoreMatching:
    """Denoising score matching (paper 000, eqs. 6-7), for processes whose score is bounded (OUVE).

    The score is sign * F(x_t, y, t) * scaling with scaling 1/s(t) (the paper), 1/t or 1.
    """

    network: Network
    process: OUVE
    scaling: str = "1/sigma"
    sign: int = 1

    def score(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Score of p_t(x_t | y), shape of x_t."""
        output = self.sign * self.network(x_t, y, t)
        if self.scaling == "1/sigma":
            return output / expand(self.process.std(t), x_t)
        return output / expand(t, x_t) if self.scaling == "1/t" else output

    def denoise(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Tweedie's estimate of x_0: (x_t + s^2 score - b y) / a."""
        posterior_mean = x_t + expand(self.process.std(t) ** 2, x_t) * self.score(x_t, y, t)
        return (posterior_mean - expand(self.process.b(t), y) * y) / expand(self.process.a(t), y)

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """1/2 sum |s(t) score + z|^2 per example (eq. 7): [B]."""
        x_t = perturb(self.process, x_0, y, t, z)
        return squared_error(expand(self.process.std(t), x_t) * self.score(x_t, y, t) + z)


@dataclass(frozen=True)
class DataPrediction:
    """Prediction of x_0 with a time-domain term (paper 000, eq. 19 without the PESQ term)."""

    network: Network
    process: SBVE
    spectrogram: Spectrogram
    l1_weight: float = 0.001

    def denoise(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """x_hat_0 = F(x_t, y, t)."""
        return self.network(x_t, y, t)

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """1/(F T) 1/2 sum |x_hat - x_0|^2 + l1_weight 1/L 1/2 sum |waveform error| per example: [B]."""
        x_hat = self.denoise(perturb(self.process, x_0, y, t, z), y, t)
        loss = squared_error(x_hat - x_0) / (x_0.shape[-1] * x_0.shape[-2])
        if self.l1_weight:
            length = (x_0.shape[-1] - 1) * self.spectrogram.hop
            waves = self.spectrogram.synthesise(torch.cat([x_hat, x_0], 1), length)
            loss = loss + self.l1_weight * 0.5 * (waves[:, 0] - waves[:, 1]).abs().mean(-1)
        return loss
