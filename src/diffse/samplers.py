"""Samplers: plain functions from y to a clean estimate, given a denoiser.

`denoise(x_t, t)` returns the clean estimate x_hat_0 for states x_t [B, ...] and times t [B]. `draw()` returns
complex noise of the shape of y with E|z|^2 = 1; every draw a sampler makes comes from it, in a fixed order.
Samplers know neither settings nor files.
"""

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from diffse.processes import OUVE, SBVE, expand, mean

Denoiser = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[], Tensor]


def score_from_estimate(process: OUVE, x_t: Tensor, y: Tensor, x_hat: Tensor, t: Tensor) -> Tensor:
    """s = (a x_hat_0 + b y - x_t) / s(t)^2, the score of the kernel at the estimate (paper 000, eq. 10)."""
    return (mean(process, x_hat, y, t) - x_t) / expand(process.std(t) ** 2, y)


def predictor_corrector(
    denoise: Denoiser,
    process: OUVE,
    y: Tensor,
    draw: Draw,
    *,
    steps: int = 30,
    corrector: Literal["ald", "langevin", "none"] = "ald",
    corrector_steps: int = 1,
    snr: float = 0.5,
    t_eps: float = 0.03,
    fixed_dt: bool = False,
) -> Tensor:
    """Reverse diffusion with Langevin correction before each step; returns the mean of the last step.

    The grid is linspace(1, t_eps, steps); the last step has length t_eps and so ends at 0. `fixed_dt` takes
    1/steps on every step instead, as StoRM's published code does. Network calls: steps (1 + corrector_steps).
    """

    def score(x: Tensor, t: Tensor) -> Tensor:
        return score_from_estimate(process, x, y, denoise(x, t), t)

    x = process.prior(y, draw())
    grid = torch.linspace(1.0, t_eps, steps, device=y.device)
    lengths = torch.cat([grid[:-1] - grid[1:], grid[-1:]])
    x_mean = x
    for t_i, dt in zip(grid, lengths, strict=True):
        t = t_i.expand(y.shape[0])
        for _ in range(corrector_steps if corrector != "none" else 0):
            x = _langevin_step(score(x, t), process, x, t, draw(), corrector, snr)
        x_mean, noise_scale = _reverse_diffusion_step(
            score(x, t), process, x, y, t, 1.0 / steps if fixed_dt else float(dt)
        )
        x = x_mean + noise_scale * draw()
    return x_mean


def _langevin_step(
    score: Tensor, process: OUVE, x: Tensor, t: Tensor, z: Tensor, kind: str, snr: float
) -> Tensor:
    """x + eps s + sqrt(2 eps) z with eps = 2 (r s(t))^2 (annealed) or 2 (r |z|/|s|)^2, norms averaged."""
    if kind == "ald":
        epsilon = expand(2 * (snr * process.std(t)) ** 2, x)
    else:
        ratio = z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
        epsilon = 2 * (snr * ratio) ** 2
    return x + epsilon * score + (2 * epsilon) ** 0.5 * z


def _reverse_diffusion_step(
    score: Tensor, process: OUVE, x: Tensor, y: Tensor, t: Tensor, dt: float
) -> tuple[Tensor, Tensor]:
    """One step of the reverse SDE (paper 000, eq. 2): its mean and the scale of its noise."""
    g = expand(process.diffusion(t), x)
    return x - (process.drift(x, y) - g**2 * score) * dt, g * dt**0.5


def bridge_ode(
    denoise: Denoiser,
    process: SBVE,
    y: Tensor,
    *,
    steps: int = 50,
    t_eps: float = 1e-4,
    evaluate_at: Literal["previous", "target"] = "previous",
) -> Tensor:
    """Probability-flow ODE of the bridge (paper 000, eqs. 20-21) on linspace(1, t_eps, steps + 1).

    The network is called at the time of the state (`previous`, as eq. 20 says) or at the time it goes to
    (`target`, as the published code does). Network calls: steps.
    """
    x = process.prior(y)
    for tau, t in _bridge_grid(steps, t_eps, y):
        x_hat = denoise(x, t if evaluate_at == "target" else tau)
        a, b, c = _ode_coefficients(process, tau, t)
        x = expand(a, y) * x + expand(b, y) * x_hat + expand(c, y) * y
    return x


def _bridge_grid(steps: int, t_eps: float, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    grid = torch.linspace(1.0, t_eps, steps + 1, device=y.device)
    times = [t.expand(y.shape[0]) for t in grid]
    return list(itertools.pairwise(times))


def _ode_coefficients(process: SBVE, tau: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of x_tau, x_hat_0 and y in x_t (eq. 21).

    At tau = 1 the state is y and the weights of x_tau and y grow without bound while their sum stays
    finite; the limit x_t = w_x x_hat_0 + w_y y is taken there.
    """
    epsilon = process.epsilon
    sigma_1 = process.sigma(torch.ones_like(t))
    sigma_t, sigma_tau = process.sigma(t), process.sigma(tau)
    bar_t, bar_tau = process.sigma_bar(t), process.sigma_bar(tau)
    scale = 1 / (sigma_1**2 + epsilon)
    b = scale * (bar_t**2 - bar_tau * sigma_t * bar_t / (sigma_tau + epsilon))
    start = bar_tau == 0
    safe = torch.where(start, torch.ones_like(bar_tau), bar_tau)
    a = sigma_t * bar_t / (sigma_tau * safe + epsilon)
    c = scale * (sigma_t**2 - sigma_tau * sigma_t * bar_t / (safe + epsilon))
    return torch.where(start, torch.zeros_like(a), a), b, torch.where(start, scale * sigma_t**2, c)


def bridge_sde(
    denoise: Denoiser,
    process: SBVE,
    y: Tensor,
    draw: Draw,
    *,
    steps: int = 50,
    t_eps: float = 1e-4,
    evaluate_at: Literal["previous", "target"] = "previous",
) -> Tensor:
    """Reverse SDE of the bridge (first-order solver) on linspace(1, t_eps, steps + 1); last step noise-free.

    x_t = r x_tau + (1 - r) x_hat_0 + sigma_t sqrt(1 - r) z with r = sigma_t^2 / sigma_tau^2.
    """
    x = process.prior(y)
    pairs = _bridge_grid(steps, t_eps, y)
    for index, (tau, t) in enumerate(pairs):
        x_hat = denoise(x, t if evaluate_at == "target" else tau)
        ratio = process.sigma(t) ** 2 / (process.sigma(tau) ** 2 + process.epsilon)
        z = draw()
        noise = process.sigma(t) * torch.sqrt(1 - ratio) * (index + 1 < len(pairs))
        x = expand(ratio, y) * x + expand(1 - ratio, y) * x_hat + expand(noise, y) * z
    return x
