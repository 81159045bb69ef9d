"""EDM2SE: a preconditioned bridge objective (paper 001, section 3).

Its equations speak of the real and imaginary parts as separate channels, each with noise of unit variance.
Here z is complex with E|z|^2 = 1, so the paper's sigma_t is s(t) / sqrt(2), and its process with c = 0.4 is
SBVE(per_channel=True).
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from diffse.errors import DiffseError
from diffse.objectives import Conditions
from diffse.processes import SBVE, expand, perturb
from diffse.spectrogram import Spectrogram

SIGMA_FLOOR = 1e-4  # ln sigma_t must stay finite at both ends; the published code's value there


class Coefficients(NamedTuple):
    """Preconditioning at times t [B], each [B] in float64."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor
    c_noise: Tensor


@dataclass(frozen=True)
class EDM2SE:
    """D(x_t, y, t) = c_skip x_t + c_out F(c_in(t) x_t, c_in(1) y, c_noise) (paper 001, eq. 16).

    Args:
        network: F, with a method `logvar` where `uncertainty` is wanted.
        process: SBVE(per_channel=True) is the paper's.
        spectrogram: for the time-domain term; the published factor is 0.15 * 0.5 / 0.08 = 0.9375.
        sigma_x, sigma_n: standard deviations of clean speech and of environmental noise, of one real
            channel of the compressed spectrogram. The defaults belong to VoiceBank-DEMAND at that factor.
        skip: 1 predicts the environmental noise, 0 the clean speech.
        l1_weight: weight of the time-domain term.
        c_in: "unit_variance" is the paper's; "published" lacks the square root.
        weighting: "paper" is 1 / c_out^2; "published" is 1 / c_out for skip 1.
        across_batch: weight every example's error by every example's weight, as the published code does.
        uncertainty: minimise w l / exp(u) + u with u the network's log-variance, instead of w l.

    Raises DiffseError for impossible values and for a network without the head that `uncertainty` needs.
    """

    network: nn.Module
    process: SBVE
    spectrogram: Spectrogram
    sigma_x: float = 0.402
    sigma_n: float = 0.342
    skip: Literal[0, 1] = 1
    l1_weight: float = 0.001
    c_in: Literal["unit_variance", "published"] = "unit_variance"
    weighting: Literal["paper", "published"] = "paper"
    across_batch: bool = False
    uncertainty: bool = True

    def __post_init__(self) -> None:
        if not (self.sigma_x > 0 and self.sigma_n > 0):
            raise DiffseError(
                f"EDM2SE sigma_x {self.sigma_x} and sigma_n {self.sigma_n}: both must be positive; "
                "measure them on the training spectrograms"
            )
        if self.skip not in (0, 1):
            raise DiffseError(f"EDM2SE skip is {self.skip}; it is 1 (predict noise) or 0 (predict speech)")
        if self.c_in not in ("unit_variance", "published"):
            raise DiffseError(f"EDM2SE c_in '{self.c_in}': it is 'unit_variance' or 'published'")
        if self.weighting not in ("paper", "published"):
            raise DiffseError(f"EDM2SE weighting '{self.weighting}': it is 'paper' or 'published'")
        if self.uncertainty and not hasattr(self.network, "logvar"):
            raise DiffseError(
                f"EDM2SE with uncertainty: {type(self.network).__name__} has no log-variance head; "
                "use the mp_adm network or set uncertainty: false"
            )

    def prepare(self, y: Tensor) -> Conditions:
        """The bridge ends in y, and the network sees it: y [B, 1, F, T]."""
        return Conditions(end=y, seen=y)

    def coefficients(self, t: Tensor) -> Coefficients:
        """c_in, c_skip, c_out and c_noise at t [B] (eqs. 16, 21-23)."""
        w_x, w_y = self.process.a(t), self.process.b(t)
        sigma = (self.process.std(t) / math.sqrt(2)).clamp_min(SIGMA_FLOOR)
        # x_t = w_x x + w_y (x + n) + sigma z, with independent speech x and environmental noise n
        rest = (w_y * self.sigma_n) ** 2 + sigma**2
        variance = ((w_x + w_y) * self.sigma_x) ** 2 + rest
        c_in = 1 / variance if self.c_in == "published" else variance.rsqrt()
        if self.skip:
            c_out = torch.sqrt(((1 - w_x - w_y) * self.sigma_x) ** 2 + rest)
        else:
            c_out = torch.full_like(sigma, self.sigma_x)
        return Coefficients(c_in, torch.full_like(sigma, self.skip), c_out, sigma.log() / 4)

    def denoise(self, x_t: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """x_hat_0 = D(x_t, y, t) (eq. 16), shape of x_t."""
        at_t, at_1 = self.coefficients(t), self.coefficients(torch.ones_like(t))
        c_noise = at_t.c_noise.to(x_t.device, x_t.real.dtype)
        seen = expand(at_1.c_in, x_t) * conditions.seen
        output = self.network(expand(at_t.c_in, x_t) * x_t, seen, c_noise)
        scaled = expand(at_t.c_out, x_t) * output
        return scaled + x_t if self.skip else scaled

    def weight(self, t: Tensor) -> Tensor:
        """lambda(t) of the squared error (eqs. 24-25): [B], float64."""
        c_out = self.coefficients(t).c_out
        return 1 / c_out if self.weighting == "published" and self.skip else c_out**-2

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """`loss_given` the conditions of y: [B]."""
        return self.loss_given(x_0, self.prepare(y), t, z)

    def loss_given(self, x_0: Tensor, conditions: Conditions, t: Tensor, z: Tensor) -> Tensor:
        """lambda l / exp(u) + u per example (eqs. 9, 15): [B].

        l is the mean squared error of the real and imaginary parts plus l1_weight times the mean absolute
        error of the waveforms. With `across_batch` only the mean over the batch has a meaning.
        """
        x_t = perturb(self.process, x_0, conditions.end, t, z)
        error = self._error(self.denoise(x_t, conditions, t), x_0)
        weight = self.weight(t).to(error)
        u = torch.zeros_like(error)
        if self.uncertainty:
            u = self.network.logvar(self.coefficients(t).c_noise.to(error))
        if self.across_batch:
            return weight * torch.exp(-u) * error.sum() + len(error) * u
        return weight * torch.exp(-u) * error + u

    def _error(self, x_hat: Tensor, x_0: Tensor) -> Tensor:
        """Unweighted error per example: [B]."""
        difference = x_hat - x_0
        error = torch.view_as_real(difference).square().flatten(1).mean(1)
        if self.l1_weight:
            length = (x_0.shape[-1] - 1) * self.spectrogram.hop
            waves = self.spectrogram.synthesise(torch.cat([x_hat, x_0], 1), length)
            error = error + self.l1_weight * (waves[:, 0] - waves[:, 1]).abs().mean(-1)
        return error
