"""UDiffSE (paper 004) and the RVAE baseline, one file at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from .formulas import OU, column
from .losses import Autoencoder, Score

Draw = Callable[[], Tensor]


def initial_noise_model(draw: Draw, rank: int) -> tuple[Tensor, Tensor]:
    """Uniform W [1, 1, F, rank] and H [1, 1, rank, T], from the same noise as everything else."""
    W = torch.exp(-(torch.abs(draw()[..., :rank]) ** 2))
    return W, torch.exp(-(torch.abs(draw()[..., :rank, :]) ** 2))


def multiplicative_update(P, W, H, added=0.0, exponent: float = 1.0) -> tuple[Tensor, Tensor]:
    """Itakura-Saito NMF (Févotte et al. 2009): W, then H, then columns of W to sum 1."""
    V = W @ H + added
    ratio = ((P * V**-2) @ H.transpose(-1, -2)) / (V**-1 @ H.transpose(-1, -2))
    W = torch.clamp(W * ratio**exponent, min=1e-10)
    V = W @ H + added
    ratio = (W.transpose(-1, -2) @ (P * V**-2)) / (W.transpose(-1, -2) @ V**-1)
    H = torch.clamp(H * ratio**exponent, min=1e-10)
    scale = W.sum(-2, keepdim=True)
    return W / scale, H * scale.transpose(-1, -2)


@torch.no_grad()
def em(model: Score, y: Tensor, draw: Draw, options) -> Tensor:
    """Algorithm 1 on one file y [1, 1, F, T], its samples in one batch of the network."""
    peak = torch.max(torch.abs(y))
    X = y / peak
    W, H = initial_noise_model(draw, options.rank)
    for _ in range(options.em_iterations):
        S = posterior_samples(model, X, W @ H, draw, options)
        P = torch.mean(torch.abs(X - S) ** 2, dim=0, keepdim=True)
        for _ in range(options.nmf_updates):
            W, H = multiplicative_update(P, W, H)
    return torch.mean(S, dim=0, keepdim=True) * peak


def posterior_samples(model: Score, X: Tensor, V: Tensor, draw: Draw, options) -> Tensor:
    """Algorithm 2: samples [samples, 1, F, T] of speech given X and the noise power V."""
    process: OU = model.process
    N, count = options.steps, options.samples
    X = X.repeat(count, 1, 1, 1)

    def noise() -> Tensor:
        return torch.cat([draw() for _ in range(count)])

    S = X + noise()
    for i in range(N, 0, -1):
        t = torch.ones(count) * max(i / N, options.t_eps)
        sigma, g = column(process.std(t)), column(process.diffusion(t))
        epsilon = (options.corrector_scale * sigma) ** 2
        S = S + epsilon * model.score(S, S, t) + torch.sqrt(2 * epsilon) * noise()
        S = S - (-process.theta * S - g**2 * model.score(S, S, t)) / N
        if i > 1:
            S = S + g * (1 / N) ** 0.5 * noise()
        if i % options.likelihood_every == 0:
            delta = column(torch.exp(-process.theta * t))
            slope = (X - S / delta) / (delta * ((sigma / delta) ** 2 + V))
            S = S + options.likelihood_weight * g**2 * slope / N
    return S


def vem(model: Autoencoder, y: Tensor, draw: Draw, options) -> Tensor:
    """Variational EM on one file y [1, 1, F, T]: Adam on q(z), multiplicative updates of W, H and the gains."""
    network, P = model.network, model.power(y)
    W, H = initial_noise_model(draw, options.rank)
    with torch.no_grad():
        _, mean, log_var = network.encode(P[:, 0], torch.zeros(1, y.shape[3], network.latent))
    mean.requires_grad_(), log_var.requires_grad_()
    optimizer = torch.optim.Adam([mean, log_var], lr=options.lr)
    g = torch.ones_like(P[:, :, :1])
    for _ in range(options.iterations):
        for _ in range(options.gradient_steps):
            z = mean + torch.exp(log_var / 2) * model.latent_noise(draw())
            V = g * torch.exp(network.decode(z))[:, None] + W @ H
            divergence = 0.5 * torch.sum(mean**2 + torch.exp(log_var) - log_var - 1)
            optimizer.zero_grad()
            (torch.sum(P / V + torch.log(V)) + divergence).backward()
            optimizer.step()
        with torch.no_grad():
            v = torch.exp(network.decode(mean + torch.exp(log_var / 2) * model.latent_noise(draw())))[:, None]
            W, H = multiplicative_update(P, W, H, g * v, 0.5)
            V = g * v + W @ H
            ratio = torch.sum(P * V**-2 * v, dim=2, keepdim=True) / torch.sum(V**-1 * v, dim=2, keepdim=True)
            g = torch.clamp(g * torch.sqrt(ratio), min=1e-10)
    with torch.no_grad():
        v = g * torch.exp(network.decode(mean))[:, None]
        return model.transform.compress(v / (v + W @ H) * model.transform.decompress(y))
