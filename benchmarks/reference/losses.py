"""The papers' losses, each with what its sampler needs: a score or an estimate of x_0.

Spectrograms are complex [B, 1, F, T]; `loss(x_0, y, t, z)` is the mean over the batch.
"""

import math

import torch
from torch import Tensor

from .formulas import OU, Bridge, Transform, column


def half_square(error: Tensor) -> Tensor:
    """Mean over the batch of 1/2 sum |e|^2."""
    return torch.mean(0.5 * torch.sum(torch.square(torch.abs(error)).reshape(len(error), -1), dim=1))


class Score:
    """Denoising score matching (paper 000, eqs. 6-7); `prior`: of clean speech alone (paper 004, eqs. 4-6)."""

    def __init__(self, network, process: OU, prior: bool = False) -> None:
        self.network, self.process, self.prior = network, process, prior

    def score(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        seen = y[:, :0] if self.prior else y
        return self.network(x_t, seen, t) / column(self.process.std(t))

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        end = torch.zeros_like(y) if self.prior else y
        sigma = column(self.process.std(t))
        x_t = self.process.mean(x_0, end, t) + sigma * z
        return half_square(sigma * self.score(x_t, y, t) + z)


class Weighted(Score):
    """Weighted generative-supervised loss (paper 003), with Tweedie's estimate."""

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        first, last = (self.process.std(torch.full_like(t, time)) for time in (0.03, 1.0))
        alpha = column(torch.clamp((last - self.process.std(t)) / (last - first), 0, 1))
        sigma = column(self.process.std(t))
        x_t = self.process.mean(x_0, y, t) + sigma * z
        score = self.score(x_t, y, t)
        mu = x_t + sigma**2 * score
        growth = column(torch.exp(self.process.theta * t))
        supervised = growth * mu + (1 - growth) * y - x_0
        generative = sigma * score + z
        return half_square(torch.sqrt(1 - alpha) * generative) + half_square(torch.sqrt(alpha) * supervised)


class Denoiser:
    """Prediction of the mean mu_t (paper 000, eqs. 8-10), with or without the functions of EDM (M3, M4)."""

    def __init__(self, network, process: OU, edm: bool, label_sigma: bool, sigma_data: float) -> None:
        self.network, self.process, self.edm = network, process, edm
        self.label_sigma, self.sigma_data = label_sigma, sigma_data

    def mean(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        sigma = self.process.std(t)
        label = torch.log(sigma) / 4 if self.label_sigma else t
        if not self.edm:
            return self.network(x_t, y, label)
        c_in = column(1 / torch.sqrt(sigma**2 + self.sigma_data**2))
        c_skip = column(self.sigma_data**2 / (sigma**2 + self.sigma_data**2))
        c_out = column(sigma * self.sigma_data / torch.sqrt(sigma**2 + self.sigma_data**2))
        return c_skip * x_t + c_out * self.network(c_in * x_t, c_in * y, label)

    def score(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return (self.mean(x_t, y, t) - x_t) / column(self.process.std(t)) ** 2

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        sigma = self.process.std(t)
        mu = self.process.mean(x_0, y, t)
        error = self.mean(mu + column(sigma) * z, y, t) - mu
        if self.edm:
            weight = (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2
            return half_square(torch.sqrt(column(weight)) * error)
        return half_square(error)


class DataPrediction:
    """Prediction of x_0 over the bridge, with waveform and PESQ terms (paper 000, eq. 19)."""

    def __init__(self, network, process: Bridge, transform: Transform, l1: float, pesq: float, rate: int):
        self.network, self.process, self.transform = network, process, transform
        self.l1, self.pesq = l1, pesq
        if pesq:
            from torch_pesq import PesqLoss

            self.pesq_loss = PesqLoss(1.0, sample_rate=rate)

    def estimate(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return self.network(x_t, y, t)

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        x_hat = self.estimate(self.process.perturb(x_0, y, t, z), y, t)
        loss = half_square(x_hat - x_0) / (x_0.shape[2] * x_0.shape[3])
        length = (x_0.shape[3] - 1) * self.transform.hop
        clean, estimate = self.transform.inverse(x_0, length), self.transform.inverse(x_hat, length)
        loss = loss + self.l1 * torch.mean(0.5 * torch.sum(torch.abs(estimate - clean), dim=1) / length)
        if self.pesq:
            loss = loss + self.pesq * torch.mean(self.pesq_loss(clean, estimate))
        return loss


class EDM2SE:
    """Preconditioned bridge (paper 001, eqs. 9, 14-25)."""

    def __init__(self, network, process: Bridge, transform: Transform, skip: int, sigmas, l1: float) -> None:
        self.network, self.process, self.transform = network, process, transform
        self.skip, self.l1 = skip, l1
        self.sigma_x, self.sigma_n = sigmas

    def _sigma(self, t: Tensor) -> Tensor:
        return torch.clamp(self.process.std(t), min=1e-4)

    def _c_in(self, t: Tensor) -> Tensor:
        w_x, w_y = self.process.weights(t)
        speech, noise = (w_x + w_y) ** 2 * self.sigma_x**2, w_y**2 * self.sigma_n**2
        return column(1 / torch.sqrt(speech + noise + self._sigma(t) ** 2))

    def _c_out(self, t: Tensor) -> Tensor:
        if not self.skip:
            return torch.full_like(t, self.sigma_x)
        w_x, w_y = self.process.weights(t)
        speech, noise = (1 - w_x - w_y) ** 2 * self.sigma_x**2, w_y**2 * self.sigma_n**2
        return torch.sqrt(speech + noise + self._sigma(t) ** 2)

    def estimate(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        label = torch.log(self._sigma(t)) / 4
        output = self.network(self._c_in(t) * x_t, self._c_in(torch.ones_like(t)) * y, label)
        return self.skip * x_t + column(self._c_out(t)) * output

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        x_hat = self.estimate(self.process.perturb(x_0, y, t, z), y, t)
        parts = torch.view_as_real(x_hat) - torch.view_as_real(x_0)
        error = torch.mean(parts**2, dim=(1, 2, 3, 4))
        length = (x_0.shape[3] - 1) * self.transform.hop
        clean, estimate = self.transform.inverse(x_0, length), self.transform.inverse(x_hat, length)
        error = error + self.l1 * torch.mean(torch.abs(estimate - clean), dim=1)
        u = self.network.logvar(torch.log(self._sigma(t)) / 4)
        return torch.mean(error / self._c_out(t) ** 2 / torch.exp(u) + u)


class Storm:
    """Stochastic regeneration and refinement (paper 002, section III)."""

    def __init__(self, predictor, score_network, process: OU, options) -> None:
        self.predictor, self.network, self.process, self.options = predictor, score_network, process, options

    def predict(self, y: Tensor) -> Tensor:
        ones = torch.ones(len(y))
        if self.options.fine_tune:
            return self.predictor(y, y[:, :0], ones)
        with torch.no_grad():
            return self.predictor(y, y[:, :0], ones)

    def score(self, x_t: Tensor, y: Tensor, y_d: Tensor, t: Tensor) -> Tensor:
        seen = {"both": [y, y_d], "noisy": [y], "estimate": [y_d]}[self.options.conditioning]
        return self.network(x_t, torch.cat(seen, dim=1), t) / column(self.process.std(t))

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        y_d = self.predict(y)
        start, end = (x_0 - y_d, y - y_d) if self.options.refine else (x_0, y_d)
        sigma = column(self.process.std(t))
        x_t = self.process.mean(start, end, t) + sigma * z
        loss = half_square(sigma * self.score(x_t, y, y_d, t) + z)
        if self.options.fine_tune and self.options.supervision:
            loss = loss + self.options.supervision * half_square(y_d - x_0)
        return loss


class Regression:
    """One mapping from noisy to clean (paper 002, section IV-B)."""

    def __init__(self, network) -> None:
        self.network = network

    def predict(self, y: Tensor) -> Tensor:
        return self.network(y, y[:, :0], torch.ones(len(y)))

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        return half_square(self.predict(y) - x_0)


class WaveRegression(Regression):
    """The same with a network on waveforms between two transforms."""

    def __init__(self, network, transform: Transform) -> None:
        self.network, self.transform = network, transform

    def predict(self, y: Tensor) -> Tensor:
        length = (y.shape[3] - 1) * self.transform.hop
        return self.transform.forward(self.network(self.transform.inverse(y, length)[:, None])[:, 0])


class Autoencoder:
    """Evidence lower bound of clean speech (Leglaive et al. 2020)."""

    def __init__(self, network, transform: Transform, beta: float) -> None:
        self.network, self.transform, self.beta = network, transform, beta

    def power(self, X: Tensor) -> Tensor:
        return torch.abs(self.transform.decompress(X)) ** 2 + 1e-10

    def latent_noise(self, z: Tensor) -> Tensor:
        """Standard normal [B, T, L] out of complex noise [B, 1, F, T]."""
        return math.sqrt(2) * z[:, 0, : self.network.latent].real.transpose(1, 2)

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        power = self.power(x_0)[:, 0]
        log_v, mean, log_var = self.network(power, self.latent_noise(z))
        ratio = power / torch.exp(log_v)
        distance = torch.sum(ratio - torch.log(ratio) - 1, dim=(1, 2))
        divergence = 0.5 * torch.sum(mean**2 + torch.exp(log_var) - log_var - 1, dim=(1, 2))
        return torch.mean((distance + self.beta * divergence) / (power.shape[1] * power.shape[2]))
