"""UDiffSE: enhancement without pairs, from a clean-speech prior and a noise model learnt on the file itself.

The noisy spectrogram is x = s + n with n ~ N_C(0, diag(W H)). Expectation-maximisation alternates samples of
the posterior of s, drawn by the prior's reverse process with a likelihood step now and then, and an update of
W and H (paper 004, algorithms 1 and 2). Everything is per file: a file's result does not depend on its batch.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from diffse import nmf
from diffse.processes import OUVE, expand
from diffse.samplers import Denoiser, Draw, score_from_estimate

Observer = Callable[[Tensor, Tensor, Tensor], None]
# Choices of the published code, as options of `posterior_samples`.
PUBLISHED = {"grid": "linspace", "start": "marginal", "likelihood_count": "up"}


def em(
    denoise: Denoiser,
    process: OUVE,
    y: Tensor,
    draw: Draw,
    *,
    em_iterations: int = 5,
    samples: int = 4,
    rank: int = 4,
    nmf_updates: int = 1,
    first_likelihood: int = 1,
    normalise: bool = True,
    W: Tensor | None = None,
    H: Tensor | None = None,
    observe: Observer | None = None,
    published: bool = False,
    **sampling,
) -> Tensor:
    """Enhance y [B, 1, F, T] (algorithm 1): the mean of the last posterior samples, shape of y.

    `denoise` is the prior's estimate, called with samples * B states: file b's copies are b, B + b, ...
    `normalise`: work on y / max|y| of each file. W [B, 1, F, rank] and H [B, 1, rank, T] start the noise model
    (uniform on (0, 1) unless given). Before EM iteration `first_likelihood`, samples are the prior's own:
    1 is the paper, 2 the published code. `sampling`: options of `posterior_samples`, where `published` sets
    those of the published code. `observe(S, W, H)` is called after each iteration with all samples
    [samples, B, 1, F, T] and the updated noise model. Network evaluations: see `evaluations`.
    """
    sampling = (PUBLISHED if published else {}) | sampling
    scale = _peaks(y) if normalise else torch.ones_like(_peaks(y))
    X = y / scale
    if W is None or H is None:
        W, H = nmf.initial(draw, rank)
    for iteration in range(1, em_iterations + 1):
        V = W @ H if iteration >= first_likelihood else None
        S = posterior_samples(denoise, process, X, V, draw, samples=samples, **sampling)
        P = (X - S).abs().square().mean(0)
        for _ in range(nmf_updates):
            W, H = nmf.update(P, W, H)
        if observe is not None:
            observe(S, W, H)
    return S.mean(0) * scale


def evaluations(
    steps: int = 30, em_iterations: int = 5, samples: int = 4, corrector_scale: float = 0.5, **_: object
) -> int:
    """Network evaluations of one example that `em` spends on one file."""
    return em_iterations * samples * steps * (2 if corrector_scale else 1)


def _peaks(y: Tensor) -> Tensor:
    """max|y| of each file, [B, 1, 1, 1]; 1 for a silent one."""
    peak = y.abs().amax((1, 2, 3), keepdim=True)
    return torch.where(peak > 0, peak, 1)


def posterior_samples(
    denoise: Denoiser,
    process: OUVE,
    X: Tensor,
    V: Tensor | None,
    draw: Draw,
    *,
    samples: int = 4,
    steps: int = 30,
    corrector_scale: float = 0.5,
    likelihood_weight: float = 1.5,
    likelihood_every: int = 2,
    likelihood_step: Literal["dt", "full"] = "dt",
    likelihood_count: Literal["down", "up"] = "down",
    grid: Literal["uniform", "linspace"] = "uniform",
    t_eps: float = 0.03,
    start: Literal["unit", "marginal"] = "unit",
    last_noise: bool = False,
) -> Tensor:
    """Samples of s given X [B, 1, F, T] and noise power V (algorithm 2): [samples, B, 1, F, T].

    V = None leaves the likelihood out. Choices, the paper's first and the published code's second:
    `grid`: times max(i/N, t_eps), or N times from 1 to t_eps evenly; a step has length 1/N in both.
    `start`: N_C(X, I), or X + s(1) z. `likelihood_count`: a likelihood step when the number of steps left,
    this one included, divides by `likelihood_every`, or when the number of steps done does.
    `likelihood_step`: "dt" has the 1/N of eq. 14; "full" leaves it out as line 10 of algorithm 2 does, and
    diverges. `last_noise` adds the predictor's noise on the last step too, as algorithm 2 literally says.
    """
    noise = _stacked(draw, samples)
    X = X.repeat(samples, 1, 1, 1)
    V = None if V is None else V.repeat(samples, 1, 1, 1)
    zero = torch.zeros_like(X)
    S = X + noise() if start == "unit" else process.prior(X, noise())
    for left, time in zip(range(steps, 0, -1), _times(steps, grid, t_eps), strict=True):
        t = torch.full((X.shape[0],), time, device=X.device)
        if corrector_scale:
            score = score_from_estimate(process, S, zero, denoise(S, t), t)
            S = _corrector_step(process, S, score, t, corrector_scale, noise())
        score = score_from_estimate(process, S, zero, denoise(S, t), t)
        S, spread = _predictor_step(process, S, score, t, 1 / steps)
        if left > 1 or last_noise:
            S = S + spread * noise()
        number = left if likelihood_count == "down" else steps - left
        if V is not None and number % likelihood_every == 0:
            length = likelihood_weight * (1 / steps if likelihood_step == "dt" else 1.0)
            S = S + length * expand(process.diffusion(t) ** 2, S) * likelihood_score(process, S, X, V, t)
    return S.unflatten(0, (samples, -1))


def likelihood_score(process: OUVE, S: Tensor, X: Tensor, V: Tensor, t: Tensor) -> Tensor:
    """Slope in s_t of the pseudo-likelihood ln N_C(X; s_t/delta, sigma^2/delta^2 + V) (eqs. 13 and 15).

    Eq. 15 is printed with the opposite sign, which would push the state away from the observation.
    """
    delta = expand(process.a(t), S)
    return (X - S / delta) / (delta * ((expand(process.std(t), S) / delta) ** 2 + V))


def _stacked(draw: Draw, samples: int) -> Draw:
    """Noise for all copies. Each copy draws by itself, so that a file's noise is the same in any batch."""
    return lambda: torch.cat([draw() for _ in range(samples)])


def _times(steps: int, grid: str, t_eps: float) -> list[float]:
    if grid == "linspace":
        return torch.linspace(1.0, t_eps, steps).tolist()
    return [max(i / steps, t_eps) for i in range(steps, 0, -1)]


def _corrector_step(process: OUVE, S: Tensor, score: Tensor, t: Tensor, scale: float, z: Tensor) -> Tensor:
    """s + eps score + sqrt(2 eps) z with eps = (scale sigma)^2 (algorithm 2, line 5)."""
    epsilon = expand((scale * process.std(t)) ** 2, S)
    return S + epsilon * score + torch.sqrt(2 * epsilon) * z


def _predictor_step(process: OUVE, S: Tensor, score: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """One step of the prior's reverse process (algorithm 2, line 7): its mean and the scale of its noise."""
    g = expand(process.diffusion(t), S)
    return S - (process.drift(S, torch.zeros_like(S)) - g**2 * score) * dt, g * dt**0.5
