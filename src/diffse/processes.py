"""Gaussian paths between clean speech x_0 and a second end y: x_t = a(t) x_0 + b(t) y + s(t) z.

t is in [0, 1] with shape [B] (or scalar); z is complex noise with E|z|^2 = 1, so s(t) is the standard
deviation of a complex coefficient. Coefficients are computed in float64 and have the shape of t.
A process knows no network and no sampler.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def expand(coefficient: Tensor, like: Tensor) -> Tensor:
    """[B] coefficients as [B, 1, ..., 1] in the real type and on the device of `like` ([B, ...])."""
    real = like.real.dtype if like.is_complex() else like.dtype
    return coefficient.to(like.device, real).reshape(coefficient.shape + (1,) * (like.ndim - coefficient.ndim))


@dataclass(frozen=True)
class OUVE:
    """Ornstein-Uhlenbeck process with exploding variance (paper 000, eqs. 1-5).

    dx = theta (y - x) dt + g(t) dw, g(t) = sigma_min (sigma_max/sigma_min)^t sqrt(2 ln(sigma_max/sigma_min)).
    """

    theta: float = 1.5
    sigma_min: float = 0.05
    sigma_max: float = 0.5

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def a(self, t: Tensor) -> Tensor:
        """Weight of x_0 in the mean (eq. 3)."""
        return torch.exp(-self.theta * t.double())

    def b(self, t: Tensor) -> Tensor:
        """Weight of y in the mean (eq. 3)."""
        return -torch.expm1(-self.theta * t.double())

    def std(self, t: Tensor) -> Tensor:
        """Standard deviation s(t) of the perturbation kernel (eq. 4)."""
        rate = self.theta + self._log_ratio
        growth = torch.exp(-2 * self.theta * t.double()) * torch.expm1(2 * rate * t.double())
        return self.sigma_min * torch.sqrt(growth * self._log_ratio / rate)

    def drift(self, x: Tensor, y: Tensor) -> Tensor:
        """theta (y - x) (eq. 1); shape of x."""
        return self.theta * (y - x)

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) of eq. 1."""
        return self.sigma_min * torch.exp(self._log_ratio * t.double()) * math.sqrt(2 * self._log_ratio)

    def prior(self, y: Tensor, z: Tensor) -> Tensor:
        """State at t = 1 from which sampling starts: y + s(1) z."""
        return y + expand(self.std(torch.ones(1)), y) * z


@dataclass(frozen=True)
class SBVE:
    """Schrödinger bridge with exploding variance (paper 000, eqs. 16-18): f = 0, g(t) = sqrt(c) k^t.

    `epsilon` is the 1e-8 that the published code adds to its denominators; 0 is the paper's mathematics.
    `per_channel` counts the noise of each real channel (paper 001), so that a complex coefficient has twice
    the variance; sigma_t and the weights of the ends stay what they are.
    """

    k: float = 2.6
    c: float = 0.4
    epsilon: float = 0.0
    per_channel: bool = False

    def sigma(self, t: Tensor) -> Tensor:
        """sigma_t with sigma_t^2 = c (k^(2t) - 1) / (2 ln k); the paper's text prints it without the square."""
        return torch.sqrt(self.c * torch.expm1(2 * math.log(self.k) * t.double()) / (2 * math.log(self.k)))

    def sigma_bar(self, t: Tensor) -> Tensor:
        """sqrt(sigma_1^2 - sigma_t^2), exactly 0 at t = 1.

        Computed from 1 - t: a difference of two sigmas need not vanish where two devices round differently.
        """
        rate, t = 2 * math.log(self.k), t.double()
        remaining = self.c * torch.exp(rate * t) * torch.expm1(rate * (1 - t)) / rate
        return torch.sqrt(remaining + self.epsilon)

    @property
    def noise_scale(self) -> float:
        """What multiplies noise of unit variance per complex coefficient."""
        return math.sqrt(2) if self.per_channel else 1.0

    @property
    def _sigma_1(self) -> Tensor:
        return self.sigma(torch.ones(()))

    def a(self, t: Tensor) -> Tensor:
        """w_x(t) (eq. 18)."""
        return self.sigma_bar(t) ** 2 / (self._sigma_1**2 + self.epsilon)

    def b(self, t: Tensor) -> Tensor:
        """w_y(t) (eq. 18)."""
        return self.sigma(t) ** 2 / (self._sigma_1**2 + self.epsilon)

    def std(self, t: Tensor) -> Tensor:
        """Standard deviation of the marginal (eq. 18)."""
        return self.noise_scale * self.sigma_bar(t) * self.sigma(t) / (self._sigma_1 + self.epsilon)

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = sqrt(c) k^t."""
        return self.noise_scale * math.sqrt(self.c) * torch.exp(math.log(self.k) * t.double())

    def prior(self, y: Tensor, z: Tensor | None = None) -> Tensor:
        """State at t = 1: y itself, without noise."""
        return y


def perturb(process: OUVE | SBVE, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """x_t = a(t) x_0 + b(t) y + s(t) z for x_0, y, z [B, ...] and t [B]."""
    return mean(process, x_0, y, t) + expand(process.std(t), y) * z


def mean(process: OUVE | SBVE, x_0: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Mean of the marginal, a(t) x_0 + b(t) y."""
    return expand(process.a(t), y) * x_0 + expand(process.b(t), y) * y
