"""The papers' samplers, as printed. `draw()` returns complex noise with E|z|^2 = 1 of the shape of y."""

from collections.abc import Callable

import torch
from torch import Tensor

from .formulas import OU, Bridge, column

Draw = Callable[[], Tensor]


@torch.no_grad()
def predictor_corrector(
    score, process: OU, y: Tensor, draw: Draw, steps: int, snr: float, t_eps: float
) -> Tensor:
    """Annealed Langevin correction and reverse diffusion (paper 000, section II). score(x_t, t)."""
    x = y + column(process.std(torch.ones(len(y)))) * draw()
    times = torch.linspace(1, t_eps, steps)
    x_mean = x
    for i in range(steps):
        t = torch.ones(len(y)) * times[i]
        dt = float(times[i] - times[i + 1]) if i + 1 < steps else float(times[i])
        epsilon = 2 * (snr * column(process.std(t))) ** 2
        x_mean = x + epsilon * score(x, t)
        x = x_mean + torch.sqrt(2 * epsilon) * draw()
        drift, g = process.theta * (y - x), column(process.diffusion(t))
        x_mean = x - (drift * dt - g**2 * dt * score(x, t))
        x = x_mean + g * dt**0.5 * draw()
    return x_mean


@torch.no_grad()
def bridge_ode(estimate, process: Bridge, y: Tensor, steps: int, t_eps: float, last_estimate: bool) -> Tensor:
    """Probability-flow ODE of the bridge (paper 000, eqs. 20-21). estimate(x_t, t)."""
    x = y
    times = torch.linspace(1, t_eps, steps + 1)
    x_hat = y
    for i in range(steps):
        tau, t = torch.ones(len(y)) * times[i], torch.ones(len(y)) * times[i + 1]
        x_hat = estimate(x, tau)
        s_1 = process.sigma(torch.ones_like(t))
        s_t, s_tau = process.sigma(t), process.sigma(tau)
        bar_t, bar_tau = process.sigma_bar(t), process.sigma_bar(tau)
        if i == 0:  # both ends meet at tau = 1, where eq. 21 has the limit of the mean
            w_x, w_y = process.weights(t)
            x = column(w_x) * x_hat + column(w_y) * y
            continue
        a = s_t * bar_t / (s_tau * bar_tau)
        b = (bar_t**2 - bar_tau * s_t * bar_t / s_tau) / s_1**2
        c = (s_t**2 - s_tau * s_t * bar_t / bar_tau) / s_1**2
        x = column(a) * x + column(b) * x_hat + column(c) * y
    return x_hat if last_estimate else x
