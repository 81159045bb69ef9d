"""Processes, the amplitude transform and moving averages, as printed."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def column(coefficient: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1]."""
    return coefficient[:, None, None, None]


@dataclass(frozen=True)
class OU:
    """Ornstein-Uhlenbeck process (paper 000, eqs. 1-5)."""

    theta: float
    sigma_min: float
    sigma_max: float

    def mean(self, x_0: Tensor, y: Tensor, t: Tensor) -> Tensor:
        decay = column(torch.exp(-self.theta * t))
        return decay * x_0 + (1 - decay) * y

    def std(self, t: Tensor) -> Tensor:
        log_ratio = math.log(self.sigma_max / self.sigma_min)
        rate = self.theta + log_ratio
        growth = torch.exp(-2 * self.theta * t) * (torch.exp(2 * rate * t) - 1)
        return torch.sqrt(self.sigma_min**2 * growth * log_ratio / rate)

    def diffusion(self, t: Tensor) -> Tensor:
        log_ratio = math.log(self.sigma_max / self.sigma_min)
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t * math.sqrt(2 * log_ratio)


@dataclass(frozen=True)
class Bridge:
    """Schrödinger bridge with exploding variance (paper 000, eqs. 16-18); `channels` 2 is paper 001's noise."""

    k: float
    c: float
    channels: int = 1

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(self.c * (self.k ** (2 * t) - 1) / (2 * math.log(self.k)))

    def sigma_bar(self, t: Tensor) -> Tensor:
        return torch.sqrt((self.sigma(torch.ones_like(t)) ** 2 - self.sigma(t) ** 2).clamp_min(0))

    def weights(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Of x_0 and y in the mean."""
        last = self.sigma(torch.ones_like(t)) ** 2
        return self.sigma_bar(t) ** 2 / last, self.sigma(t) ** 2 / last

    def std(self, t: Tensor) -> Tensor:
        """Of the noise of one channel."""
        return self.sigma_bar(t) * self.sigma(t) / self.sigma(torch.ones_like(t))

    def perturb(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        w_x, w_y = self.weights(t)
        noise = math.sqrt(self.channels) * column(self.std(t)) * z
        return column(w_x) * x_0 + column(w_y) * y + noise


@dataclass(frozen=True)
class Transform:
    """STFT with factor |X|^exponent e^{i angle X} (paper 000, section V-A)."""

    n_fft: int
    hop: int
    window: str
    exponent: float
    factor: float

    def _window(self) -> Tensor:
        hann = torch.hann_window(self.n_fft, periodic=True)
        return hann if self.window == "hann" else hann.sqrt()

    def forward(self, wave: Tensor) -> Tensor:
        """[B, L] -> compressed [B, 1, F, T]."""
        X = torch.stft(wave, self.n_fft, self.hop, window=self._window(), center=True, return_complex=True)
        return self.compress(X)[:, None]

    def inverse(self, X: Tensor, length: int) -> Tensor:
        """Compressed [B, 1, F, T] -> [B, length]."""
        spectrum = self.decompress(X)[:, 0]
        return torch.istft(spectrum, self.n_fft, self.hop, window=self._window(), center=True, length=length)

    def compress(self, X: Tensor) -> Tensor:
        return self.factor * X.abs() ** self.exponent * torch.exp(1j * X.angle())

    def decompress(self, X: Tensor) -> Tensor:
        X = X / self.factor
        return X.abs() ** (1 / self.exponent) * torch.exp(1j * X.angle())


class ExponentialAverage:
    """Decay min(decay, (1 + n)/(10 + n)), parameter by parameter."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.shadow = [parameter.detach().clone() for parameter in network.parameters()]

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, parameter in zip(self.shadow, network.parameters(), strict=True):
            average.sub_((1 - decay) * (average - parameter))


class PowerAverage:
    """beta = (1 - batch/seen)^(gamma + 1) for each length (paper 001, eqs. 11-12), parameter by parameter."""

    def __init__(self, network: nn.Module, gammas: list[float], batch: int) -> None:
        self.gammas, self.batch, self.seen = gammas, batch, 0
        self.averages = [[p.detach().clone() for p in network.parameters()] for _ in gammas]

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.seen += self.batch
        for gamma, averages in zip(self.gammas, self.averages, strict=True):
            beta = (1 - self.batch / self.seen) ** (gamma + 1)
            for average, parameter in zip(averages, network.parameters(), strict=True):
                average.lerp_(parameter, 1 - beta)
