"""UDiffSE: enhancement without pairs, from a clean-speech prior and a noise model learnt on the file itself.

The noisy spectrogram is x = s + n with n ~ N_C(0, diag(W H)). Expectation-maximisation alternates samples of
the posterior of s, drawn by the prior's reverse process with a likelihood step now and then, and an update of
W and H (paper 004, algorithms 1 and 2). Everything is per file: a file's result does not depend on its batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffse import nmf
from diffse.processes import OUVE, expand
from diffse.samplers import Denoiser, Draw, score_from_estimate

Observer = Callable[[Tensor, Tensor, Tensor], None]
EStep = Callable[[Tensor, Tensor | None], Tensor]  # X, V -> samples of s, [samples, B, 1, F, T]
# What the published code chooses, as options of `em`.
PUBLISHED = {
    "samples": 2, "first_likelihood": 2, "grid": "linspace", "start": "marginal", "likelihood_count": "up",
}  # fmt: skip


@dataclass(frozen=True)
class Sampling:
    """How posterior samples are drawn (algorithm 2). Of two values the first is the paper's."""

    steps: int = 30  # N
    corrector_scale: float = 0.5  # the corrector's step is (scale sigma)^2; 0: no corrector
    likelihood_weight: float = 1.5  # lambda
    likelihood_every: int = 2  # l
    likelihood_count: Literal["down", "up"] = "down"  # l divides the steps left, this one included, or done
    likelihood_step: Literal["dt", "full"] = "dt"  # full: without the dt of eq. 14, as line 10 is printed
    grid: Literal["uniform", "linspace"] = "uniform"  # max(i/N, t_eps), or evenly from 1 to t_eps; dt = 1/N
    t_eps: float = 0.03  # below it the prior has not been trained
    start: Literal["unit", "marginal"] = "unit"  # N_C(X, I), or X + s(1) z
    last_noise: bool = False  # noise on the last step too, as line 7 is printed

    def times(self) -> Tensor:
        """Falling times of a pass."""
        if self.grid == "linspace":
            return torch.linspace(1.0, self.t_eps, self.steps)
        return (torch.arange(self.steps, 0, -1) / self.steps).clamp_min(self.t_eps)

    def has_likelihood(self, left: int) -> bool:
        """Whether the step with `left` steps left, itself included, ends with a likelihood step."""
        number = left if self.likelihood_count == "down" else self.steps - left
        return number % self.likelihood_every == 0


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
    factors: tuple[Tensor, Tensor] | None = None,
    observe: Observer | None = None,
    **sampling,
) -> Tensor:
    """Enhance y [B, 1, F, T] (algorithm 1): the mean of the last posterior samples, shape of y.

    `denoise`, the prior's estimate, is called with samples * B states: file b's are b, B + b, ... Before EM
    iteration `first_likelihood` (1: the paper; 2: the published code) they are the prior's own samples.
    `normalise` works on y / max|y| of each file. `factors` are W and H to start from, else uniform on (0, 1).
    `sampling`: fields of `Sampling`. `observe(S, W, H)` gets all samples [samples, B, 1, F, T] and the updated
    noise model of each iteration.
    """
    options = Sampling(**sampling)

    def e_step(X: Tensor, V: Tensor | None) -> Tensor:
        return posterior_samples(denoise, process, X, V, draw, samples, options)

    factors = factors or nmf.initial(draw, rank)
    return alternate(e_step, y, factors, em_iterations, nmf_updates, first_likelihood, normalise, observe)


def alternate(
    e_step: EStep,
    y: Tensor,
    factors: tuple[Tensor, Tensor],
    em_iterations: int,
    nmf_updates: int = 1,
    first_likelihood: int = 1,
    normalise: bool = True,
    observe: Observer | None = None,
) -> Tensor:
    """Expectation-maximisation with any E-step: the mean of its last samples, shape of y; see `em`."""
    scale = _peaks(y) if normalise else 1.0
    X, (W, H) = y / scale, factors
    for iteration in range(1, em_iterations + 1):
        S = e_step(X, W @ H if iteration >= first_likelihood else None)
        W, H = nmf.fitted((X - S).abs().square().mean(0), W, H, nmf_updates)
        if observe is not None:
            observe(S, W, H)
    return S.mean(0) * scale


def evaluations(steps: int = 30, em_iterations: int = 5, samples: int = 4, corrector_scale: float = 0.5) -> int:
    """Network evaluations of one example that `em` spends on one file."""
    return samples * steps * em_iterations * (2 if corrector_scale else 1)


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
    samples: int = 4,
    options: Sampling = Sampling(),
) -> Tensor:
    """Samples of s given X [B, 1, F, T] and noise power V (algorithm 2): [samples, B, 1, F, T].

    V = None leaves the likelihood out.
    """
    noise = stacked(draw, samples)
    X = X.repeat(samples, 1, 1, 1)
    V = None if V is None else V.repeat(samples, 1, 1, 1)
    zero = torch.zeros_like(X)  # the process of a prior ends in 0

    def score(S: Tensor, t: Tensor) -> Tensor:
        return score_from_estimate(process, S, zero, denoise(S, t), t)

    times = options.times().to(X.device)[:, None].expand(-1, len(X))
    S = X + noise() if options.start == "unit" else process.prior(X, noise())
    for left, t in zip(range(len(times), 0, -1), times, strict=True):
        if options.corrector_scale:
            S = _corrector_step(process, S, score(S, t), t, options.corrector_scale, noise())
        S, spread = _predictor_step(process, S, score(S, t), t, 1 / options.steps)
        if left > 1 or options.last_noise:
            S = S + spread * noise()
        if V is not None and options.has_likelihood(left):
            S = S + _likelihood_length(process, t, options, S) * likelihood_score(process, S, X, V, t)
    return S.unflatten(0, (samples, -1))


def likelihood_score(process: OUVE, S: Tensor, X: Tensor, V: Tensor, t: Tensor) -> Tensor:
    """Slope in s_t of the pseudo-likelihood ln N_C(X; s_t/delta, sigma^2/delta^2 + V) (eqs. 13 and 15).

    Eq. 15 is printed with the opposite sign, which would push the state away from the observation.
    """
    delta = expand(process.a(t), S)
    return (X - S / delta) / (delta * ((expand(process.std(t), S) / delta) ** 2 + V))


def _likelihood_length(process: OUVE, t: Tensor, options: Sampling, like: Tensor) -> Tensor:
    """lambda g^2 dt (eq. 14). Without dt the first step overshoots many times and the samples diverge."""
    dt = 1 / options.steps if options.likelihood_step == "dt" else 1.0
    return options.likelihood_weight * dt * expand(process.diffusion(t) ** 2, like)


def stacked(draw: Draw, samples: int) -> Draw:
    """Noise for all copies. Each copy draws by itself, so that a file's noise is the same in any batch."""
    return lambda: torch.cat([draw() for _ in range(samples)])


def _corrector_step(process: OUVE, S: Tensor, score: Tensor, t: Tensor, scale: float, z: Tensor) -> Tensor:
    """s + eps score + sqrt(2 eps) z with eps = (scale sigma)^2 (algorithm 2, line 5)."""
    epsilon = expand((scale * process.std(t)) ** 2, S)
    return S + epsilon * score + torch.sqrt(2 * epsilon) * z


def _predictor_step(process: OUVE, S: Tensor, score: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """One step of the prior's reverse process (algorithm 2, line 7): its mean and the scale of its noise."""
    g = expand(process.diffusion(t), S)
    return S - (process.drift(S, torch.zeros_like(S)) - g**2 * score) * dt, g * dt**0.5
