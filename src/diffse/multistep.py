"""A sampler with few network evaluations, for any process: exponential steps that remember the last estimate.

Given the clean estimate, the probability-flow ODE of x_t = a(t) x_0 + b(t) y + s(t) z has a closed solution:
the state's deviation from its mean shrinks with s(t). Only the change of the estimate along a step is left to
approximate: order 1 takes it as constant (Song et al. 2021, DDIM), order 2 as linear in log(a/s), from the last
two estimates (Lu et al. 2022, DPM-Solver++ 2M), at no further evaluation.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from diffse.processes import OUVE, SBVE, expand, mean
from diffse.samplers import Denoiser, Grid, time_grid


def multistep(
    denoise: Denoiser,
    process: OUVE | SBVE,
    y: Tensor,
    draw: Callable[[], Tensor],
    *,
    steps: int = 10,
    order: Literal[1, 2] = 2,
    eta: float = 0.0,
    t_start: float = 1.0,
    t_eps: float = 0.03,
    grid: Grid = "uniform",
) -> Tensor:
    """The estimate at the last of `steps` times from `t_start` to t_eps; the shape of y [B, ...].

    x_u = mean_u(D) + sqrt(s(u)^2 - v^2) / s(t) (x_t - mean_t(D)) + v z, where D is the estimate, extrapolated
    at order 2, and v = `eta` s(u) sqrt(1 - (a(t) s(u) / (a(u) s(t)))^2): 0 follows the probability-flow ODE, 1
    the law of the reverse SDE. `t_start` below 1 begins at y + s(t_start) z, as the prior does at 1. Draws: one
    for the start, then one per step with noise. Network calls: steps.
    """
    times = time_grid(steps, t_eps, grid, y.device).double()
    times = t_eps + (times - t_eps) * (t_start - t_eps) / (1 - t_eps)
    x = y + expand(process.std(times[:1]), y) * draw()
    log_ratio = torch.log(process.a(times)) - torch.log(process.std(times))
    log_ratio = log_ratio.nan_to_num(nan=-math.inf)  # where a bridge is pinned, both are 0
    at = [t.expand(len(y)) for t in times]
    before, x_hat = None, denoise(x, at[0].to(y.real.dtype))
    for index, (t, u) in enumerate(itertools.pairwise(at)):
        estimate = x_hat
        if order == 2 and before is not None:
            ratio = (log_ratio[index + 1] - log_ratio[index]) / (log_ratio[index] - log_ratio[index - 1])
            estimate = x_hat + float(ratio) / 2 * (x_hat - before)
        shrink, spread = _scales(process, t, u, eta)
        x = mean(process, estimate, y, u) + expand(shrink, y) * (x - mean(process, estimate, y, t))
        if eta:
            x = x + expand(spread, y) * draw()
        before, x_hat = x_hat, denoise(x, u.to(y.real.dtype))
    return x_hat


def _scales(process: OUVE | SBVE, t: Tensor, u: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Weight of the deviation at t in that at u < t, and of new noise, both [B]."""
    now, then = process.std(t), process.std(u)
    pinned = now == 0  # the bridge at t = 1: there is no deviation to carry, and all the spread is new
    carried = process.a(t) * then / (process.a(u) * torch.where(pinned, torch.ones_like(now), now))
    spread = eta * then * torch.sqrt((1 - carried**2).clamp_min(0))
    shrink = torch.sqrt((then**2 - spread**2).clamp_min(0)) / torch.where(pinned, torch.ones_like(now), now)
    return torch.where(pinned, torch.zeros_like(now), shrink), spread
