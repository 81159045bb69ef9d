"""The variational baseline of unsupervised enhancement: an autoencoder of clean speech and NMF noise.

Trained on clean speech alone (`ELBO`); at enhancement noise and latent variables are fitted to the file by
variational expectation-maximisation (`vem`). Leglaive et al. (ICASSP 2020) and Bie et al. (TASLP 2022), which
paper 004 compares itself with. Works on the power of spectrograms without compression.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffse import nmf
from diffse.objectives import Conditions, no_conditions
from diffse.spectrogram import Spectrogram

FLOOR = 1e-10  # added to the power: the likelihood of a variance near 0 at power 0 has no bound


class Autoencoder(Protocol):
    """What is needed of a network; see `networks.rvae.RVAE`."""

    latent: int

    def __call__(self, power: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...
    def encode(self, power: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...
    def decode(self, z: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class ELBO:
    """Negative evidence lower bound of clean speech, with weight `beta` of the Kullback-Leibler term.

    Enhancement goes through `vem`: there is no `denoise`.
    """

    network: Autoencoder
    spectrogram: Spectrogram
    beta: float = 1.0

    def prepare(self, y: Tensor) -> Conditions:
        """The network sees nothing of the noisy input."""
        return Conditions(y, no_conditions(y))

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """1/(F T) (sum p/v - ln(p/v) - 1 + beta KL) per example, p the power of x_0: [B]; y, t do not matter.

        x_0 is compressed. One sample of the latent variables is drawn, with z's noise (see `latent_noise`).
        """
        return self.loss_given(x_0, self.prepare(y), t, z)

    def loss_given(self, x_0: Tensor, conditions: Conditions, t: Tensor, z: Tensor) -> Tensor:
        """`loss` for prepared conditions: [B]."""
        P = power(self.spectrogram, x_0)[:, 0]
        log_v, mean, log_var = self.network(P, latent_noise(z, self.network.latent))
        log_ratio = P.log() - log_v
        distance = (log_ratio.exp() - log_ratio - 1).flatten(1).sum(1)
        return (distance + self.beta * kl_divergence(mean, log_var)) / P[0].numel()


def power(spectrogram: Spectrogram, X: Tensor) -> Tensor:
    """Compressed X -> positive power of the spectrogram without compression, of the same shape."""
    return spectrogram.decompress(X).abs().square() + FLOOR


def kl_divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL from N(0, I) of Gaussians with independent components [B, ...]: [B]."""
    return 0.5 * (mean.square() + log_var.exp() - log_var - 1).flatten(1).sum(1)


def latent_noise(z: Tensor, latent: int) -> Tensor:
    """Complex noise [B, 1, F, T] with E|z|^2 = 1 -> standard normal [B, T, latent], latent <= F."""
    return math.sqrt(2) * z[:, 0, :latent].real.mT


# ------------------------------------------------------------------------------------------- enhancement


def vem(
    network: Autoencoder,
    spectrogram: Spectrogram,
    y: Tensor,
    draw: Callable[[], Tensor],
    *,
    iterations: int = 40,
    rank: int = 8,
    lr: float = 0.03,
    gradient_steps: int = 5,
    observe: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Variational EM on y [B, 1, F, T] (compressed); the Wiener estimate of speech, shape of y.

    Model: x_ft ~ N_C(0, g_t v_ft(z) + (W H)_ft). E-step: `gradient_steps` steps of Adam with rate `lr` on mean
    and variance of q(z), which start at the encoder's for the noisy file; M-step: one multiplicative update of
    W, H and g. Fitting q itself rather than the encoder's weights, as the papers do, keeps files apart in a
    batch. `observe(free_energy [B])` is called in each E-step.
    """
    # A caller in inference mode is the rule; gradients need ordinary tensors.
    with torch.inference_mode(False), torch.enable_grad():
        y = y.clone()
        X = spectrogram.decompress(y)
        P = power(spectrogram, y)
        W, H = nmf.initial(draw, rank)
        fit = _Fit(network, P, W, H, torch.ones_like(P[:, :, :1]), _Latent(network, P, lr))
        for _ in range(iterations):
            for _ in range(gradient_steps):
                energy = fit.e_step(draw())
                if observe is not None:
                    observe(energy)
            fit.m_step(draw())
        return spectrogram.compress(fit.wiener_gain() * X)


class _Latent:
    """q(z) of a batch: independent Gaussians with their own means and variances, and the steps on them."""

    def __init__(self, network: Autoencoder, P: Tensor, lr: float) -> None:
        with torch.no_grad():
            none = P.new_zeros(len(P), P.shape[-1], network.latent)
            _, mean, log_var = network.encode(P[:, 0], none)
        self.mean, self.log_var = mean.requires_grad_(), log_var.requires_grad_()
        self.optimiser = torch.optim.Adam([self.mean, self.log_var], lr=lr)

    def sample(self, z: Tensor) -> Tensor:
        return self.mean + torch.exp(self.log_var / 2) * latent_noise(z, self.mean.shape[-1])

    def step(self, energy: Tensor) -> None:
        gradients = torch.autograd.grad(energy.sum(), [self.mean, self.log_var])
        self.mean.grad, self.log_var.grad = gradients
        self.optimiser.step()


@dataclass
class _Fit:
    """What is fitted to a batch of files: noise W H, gains g [B, 1, 1, T] and q(z)."""

    network: Autoencoder
    P: Tensor
    W: Tensor
    H: Tensor
    g: Tensor
    latent: _Latent

    def speech(self, z: Tensor) -> Tensor:
        """v(z) [B, 1, F, T] before the gains."""
        return self.network.decode(z).exp()[:, None]

    def e_step(self, noise: Tensor) -> Tensor:
        """One step down the free energy -ln p(x|z) + KL (one sample of z), which is returned: [B]."""
        V = self.g * self.speech(self.latent.sample(noise)) + self.W @ self.H
        kl = kl_divergence(self.latent.mean, self.latent.log_var)
        energy = (self.P / V + V.log()).flatten(1).sum(1) + kl
        self.latent.step(energy)
        return energy.detach()

    @torch.no_grad()
    def m_step(self, noise: Tensor) -> None:
        """Update of W and H, then of g, at one sample of z; the exponent 1/2 never raises the divergence."""
        v = self.speech(self.latent.sample(noise))
        self.W, self.H = nmf.update(self.P, self.W, self.H, added=self.g * v, exponent=0.5)
        numerator, denominator = nmf.slopes(self.P, self.g * v + self.W @ self.H)
        ratio = (numerator * v).sum(-2, keepdim=True) / (denominator * v).sum(-2, keepdim=True)
        self.g = (self.g * ratio.sqrt()).clamp_min(nmf.FLOOR)

    @torch.no_grad()
    def wiener_gain(self) -> Tensor:
        """g v / (g v + W H) at the mean of q, in [0, 1]: [B, 1, F, T]."""
        v = self.g * self.speech(self.latent.mean)
        return v / (v + self.W @ self.H)
