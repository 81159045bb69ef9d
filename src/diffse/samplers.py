"""Samplers: plain functions from y to a clean estimate, given a denoiser.

`denoise(x_t, t)` returns the clean estimate x_hat_0 for states x_t [B, ...] and times t [B]. `draw()` returns
complex noise of the shape of y with E|z|^2 = 1; every draw a sampler makes comes from it, in a fixed order.
`y` is the second end of the process. Samplers know neither settings nor files.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from diffse.processes import OUVE, SBVE, expand, mean

Denoiser = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[], Tensor]
Grid = Literal["uniform", "quadratic", "cosine"]


def time_grid(points: int, t_eps: float, rule: Grid = "uniform", device: torch.device | None = None) -> Tensor:
    """Falling times from exactly 1 to exactly t_eps (1 alone for one point): [points], float32.

    With u uniform on [0, 1], t = t_eps + (1 - t_eps) v: "uniform" v = 1 - u; "quadratic" v = (1 - u)^2, whose
    steps shrink towards t_eps, where the noise changes fastest relative to itself; "cosine" v = (1 + cos(pi u))
    / 2, whose steps shrink towards both ends, where a bridge is pinned.
    """
    if rule == "uniform":
        return torch.linspace(1.0, t_eps, points, device=device)
    u = torch.linspace(0.0, 1.0, points, device=device, dtype=torch.float64)
    v = (1 - u) ** 2 if rule == "quadratic" else (1 + torch.cos(math.pi * u)) / 2
    return (t_eps + (1 - t_eps) * v).float()


def direct(denoise: Denoiser, y: Tensor) -> Tensor:
    """One evaluation, for predictive systems: x_hat_0 at y and t = 1."""
    return denoise(y, torch.ones(len(y), device=y.device, dtype=y.real.dtype))


def score_from_estimate(process: OUVE, x_t: Tensor, y: Tensor, x_hat: Tensor, t: Tensor) -> Tensor:
    """s = (a x_hat_0 + b y - x_t) / s(t)^2, the score of the kernel at the estimate (paper 000, eq. 10)."""
    return (mean(process, x_hat, y, t) - x_t) / expand(process.std(t) ** 2, y)


# ------------------------------------------------------------------------------------ processes with drift


def predictor_corrector(
    denoise: Denoiser,
    process: OUVE,
    y: Tensor,
    draw: Draw,
    *,
    steps: int = 30,
    predictor: Literal["reverse_diffusion", "euler_maruyama", "none"] = "reverse_diffusion",
    corrector: Literal["ald", "langevin", "none"] = "ald",
    corrector_steps: int = 1,
    snr: float = 0.5,
    t_eps: float = 0.03,
    grid: Grid = "uniform",
    fixed_dt: bool = False,
) -> Tensor:
    """Steps of the reverse SDE with Langevin correction before each; returns the mean of the last step.

    The grid has `steps` times from 1 to t_eps; the last step has length t_eps and so ends at 0. `fixed_dt`
    takes 1/steps on every step instead, as StoRM's published code does. `predictor`: reverse diffusion
    discretises the forward SDE and reverses that, Euler-Maruyama discretises the reverse SDE; as published,
    the former takes f = drift dt and G = g sqrt(dt), which makes both the same step. "none" leaves annealed
    Langevin dynamics. Draws: the prior, then per step those of the corrector, then the predictor's.
    Network calls: steps (1 + corrector_steps), without a predictor steps corrector_steps.
    """

    def score(x: Tensor, t: Tensor) -> Tensor:
        return score_from_estimate(process, x, y, denoise(x, t), t)

    x = x_mean = process.prior(y, draw())
    times = time_grid(steps, t_eps, grid, y.device)
    lengths = torch.cat([times[:-1] - times[1:], times[-1:]])
    for t_i, dt in zip(times, lengths, strict=True):
        t = t_i.expand(y.shape[0])
        for _ in range(corrector_steps if corrector != "none" else 0):
            x_mean, noise = _langevin_step(score(x, t), process, x, t, draw(), corrector, snr)
            x = x_mean + noise
        if predictor != "none":
            length = 1.0 / steps if fixed_dt else float(dt)
            x_mean, noise_scale = _reverse_step(score(x, t), process, x, y, t, length)
            x = x_mean + noise_scale * draw()
    return x_mean


def _langevin_step(
    score: Tensor, process: OUVE, x: Tensor, t: Tensor, z: Tensor, kind: str, snr: float
) -> tuple[Tensor, Tensor]:
    """x + eps s and sqrt(2 eps) z with eps = 2 (r s(t))^2 (annealed) or 2 (r |z|/|s|)^2, norms averaged."""
    if kind == "ald":
        epsilon = expand(2 * (snr * process.std(t)) ** 2, x)
    else:
        ratio = z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
        epsilon = 2 * (snr * ratio) ** 2
    return x + epsilon * score, (2 * epsilon) ** 0.5 * z


def _reverse_step(
    score: Tensor, process: OUVE, x: Tensor, y: Tensor, t: Tensor, dt: float
) -> tuple[Tensor, Tensor]:
    """One step of the reverse SDE (paper 000, eq. 2): its mean and the scale of its noise."""
    g = expand(process.diffusion(t), x)
    return x - (process.drift(x, y) - g**2 * score) * dt, g * dt**0.5


def probability_flow_ode(
    denoise: Denoiser,
    process: OUVE,
    y: Tensor,
    draw: Draw,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    t_eps: float = 0.03,
    denoise_last: bool = True,
    last_dt: float | None = None,
) -> Tensor:
    """Probability-flow ODE from t = 1 to t_eps by Runge-Kutta 4(5) with error control.

    dx/dt = drift - g^2 score / 2 (Song et al. 2021, eq. 13, for the SDE of paper 000, eq. 1), from one draw of
    the prior. `denoise_last`: one step of the reverse SDE without noise from t_eps to 0, or of length `last_dt`
    (1/30 in StoRM's published code). Every example has steps of its own, so that its result does not depend on
    its batch; an example whose estimate is not finite ends as NaN. Network calls: as many as the tolerances
    ask for, 2 + 6 per step tried, of the example that needs most.
    """

    def score(x: Tensor, t: Tensor) -> Tensor:
        return score_from_estimate(process, x, y, denoise(x, t), t)

    def slope(t: Tensor, x: Tensor) -> Tensor:
        x, t = x.to(y.dtype), t.to(y.real.dtype)
        g = expand(process.diffusion(t), y)
        return (process.drift(x, y) - 0.5 * g**2 * score(x, t)).to(torch.complex128)

    start = process.prior(y, draw())
    x = runge_kutta_45(slope, start.to(torch.complex128), 1.0, t_eps, rtol, atol).to(y.dtype)
    if not denoise_last:
        return x
    t = torch.full((len(y),), t_eps, device=y.device, dtype=y.real.dtype)
    return _reverse_step(score(x, t), process, x, y, t, t_eps if last_dt is None else last_dt)[0]


def runge_kutta_45(
    slope: Callable[[Tensor, Tensor], Tensor], x: Tensor, start: float, end: float, rtol: float, atol: float
) -> Tensor:
    """Solve dx/dt = slope(t, x) from start to end, for x [B, ...] in double precision and t [B]: shape of x.

    Dormand and Prince's pair with the step control of scipy's `RK45`, but one step length per example: scipy
    controls one norm over all numbers it is given, so that an example's steps would depend on its batch, and
    knows no batches of separate problems. An example whose slope is not finite, or whose steps become too
    short, ends as NaN.
    """
    t = torch.full((len(x),), start, dtype=torch.float64, device=x.device)
    f = slope(t, x)
    h = _first_step(slope, t, x, f, end, rtol, atol)
    rejected, active = torch.zeros_like(t, dtype=torch.bool), torch.ones_like(t, dtype=torch.bool)
    while active.any():
        smallest = 10 * torch.finfo(t.dtype).eps * t.abs()
        h = torch.maximum(h, smallest)
        t_new = (t + math.copysign(1, end - start) * h).clamp(min(start, end), max(start, end))
        step = torch.where(active, t_new - t, torch.zeros_like(t))
        x_new, f_new, error = _dormand_prince(slope, t, x, f, step)
        size = _rms(error / (atol + rtol * torch.maximum(x.abs(), x_new.abs())))
        accepted = active & (size < 1)
        factor = (0.9 * size**-0.2).nan_to_num(nan=0.2).clamp(0.2, 10)  # order 4, so the fifth root
        h = step.abs() * torch.where(rejected, factor.clamp_max(1), factor)
        t, x, f = (_choose(accepted, new, old) for new, old in ((t_new, t), (x_new, x), (f_new, f)))
        rejected = active & ~accepted
        lost = rejected & ((h < smallest) | ~_rms(f).isfinite())
        x = _choose(lost, torch.full_like(x, math.nan), x)
        active = active & ~lost & (t != end)
    return x


def _first_step(
    slope: Callable, t: Tensor, x: Tensor, f: Tensor, end: float, rtol: float, atol: float
) -> Tensor:
    """A length [B] whose error should be about right (Hairer, Nørsett and Wanner 1993, section II.4)."""
    remaining = (end - t).abs()
    scale = atol + rtol * x.abs()
    d_0, d_1 = _rms(x / scale), _rms(f / scale)
    h_0 = torch.where((d_0 < 1e-5) | (d_1 < 1e-5), torch.full_like(d_0, 1e-6), 0.01 * d_0 / d_1)
    h_0 = torch.minimum(h_0, remaining)
    moved = torch.copysign(h_0, end - t)
    d_2 = _rms((slope(t + moved, x + expand(moved, x) * f) - f) / scale) / h_0
    steepest = torch.maximum(d_1, d_2)
    h_1 = torch.where(steepest <= 1e-15, (1e-3 * h_0).clamp_min(1e-6), (0.01 / steepest) ** 0.2)
    return torch.minimum(torch.minimum(100 * h_0, h_1), remaining)


def _dormand_prince(
    slope: Callable, t: Tensor, x: Tensor, f: Tensor, step: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step [B] from (t, x) with slope f there: the new state, its slope and the estimate of its error."""
    from scipy.integrate import RK45

    def weighted(weights: list[float], slopes: list[Tensor]) -> Tensor:
        return expand(step, x) * sum(w * k for w, k in zip(weights, slopes, strict=True) if w)

    slopes = [f]
    for c, row in zip(RK45.C[1:].tolist(), RK45.A[1:].tolist(), strict=True):
        slopes.append(slope(t + c * step, x + weighted(row[: len(slopes)], slopes)))
    x_new = x + weighted(RK45.B.tolist(), slopes)
    slopes.append(slope(t + step, x_new))
    return x_new, slopes[-1], weighted(RK45.E.tolist(), slopes)


def _rms(x: Tensor) -> Tensor:
    """Root mean square per example: [B, ...] -> [B]."""
    return x.abs().square().flatten(1).mean(1).sqrt()


def _choose(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` for the examples of `which` [B], `old` for the others."""
    return torch.where(which.reshape(which.shape + (1,) * (old.ndim - 1)), new, old)


# ------------------------------------------------------------------------------------------------ bridges


def bridge_ode(
    denoise: Denoiser,
    process: SBVE,
    y: Tensor,
    *,
    steps: int = 50,
    t_eps: float = 1e-4,
    evaluate_at: Literal["previous", "target"] = "previous",
    grid: Grid = "uniform",
    result: Literal["state", "estimate"] = "state",
) -> Tensor:
    """Probability-flow ODE of the bridge (paper 000, eqs. 20-21) on steps + 1 times from 1 to t_eps.

    The network is called at the time of the state (`previous`, as eq. 20 says) or at the time it goes to
    (`target`, as SGMSE's published code does). `result`: the last state, or the network's last estimate, as
    EDM2SE's published code (the same at t_eps = 0). Network calls: steps.
    """
    x = x_hat = process.prior(y)
    for tau, t in _pairs(steps, t_eps, grid, y):
        x_hat = denoise(x, t if evaluate_at == "target" else tau)
        a, b, c = _ode_coefficients(process, tau, t)
        x = expand(a, y) * x + expand(b, y) * x_hat + expand(c, y) * y
    return x_hat if result == "estimate" else x


def _pairs(steps: int, t_eps: float, grid: Grid, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(time of the state, time it goes to) of every step, both [B]."""
    times = [t.expand(y.shape[0]) for t in time_grid(steps + 1, t_eps, grid, y.device)]
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
    grid: Grid = "uniform",
    result: Literal["state", "estimate"] = "state",
) -> Tensor:
    """Reverse SDE of the bridge (first-order solver) on steps + 1 times from 1 to t_eps; last step noise-free.

    x_t = r x_tau + (1 - r) x_hat_0 + sigma_t sqrt(1 - r) z with r = sigma_t^2 / sigma_tau^2. One draw per step,
    the last one unused; `result` as in `bridge_ode`. Network calls: steps.
    """
    x = x_hat = process.prior(y)
    pairs = _pairs(steps, t_eps, grid, y)
    for index, (tau, t) in enumerate(pairs):
        x_hat = denoise(x, t if evaluate_at == "target" else tau)
        ratio = process.sigma(t) ** 2 / (process.sigma(tau) ** 2 + process.epsilon)
        z = draw()
        noise = process.noise_scale * process.sigma(t) * torch.sqrt(1 - ratio) * (index + 1 < len(pairs))
        x = expand(ratio, y) * x + expand(1 - ratio, y) * x_hat + expand(noise, y) * z
    return x_hat if result == "estimate" else x
