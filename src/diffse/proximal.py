"""UDiffSE's EM with few network calls: an E-step of proximal steps in place of posterior sampling.

The published E-step (`diffse.posterior`) follows the prior's reverse process and pushes the state towards the
observation now and then, which takes small steps and a corrector. Here each step joins the prior's estimate of
clean speech with the observation in closed form, as a Wiener filter joins two Gaussian laws, and brings the
result to the next time with new noise (Zhu et al. 2023, "Denoising diffusion models for plug-and-play image
restoration", algorithm 1 with all noise drawn anew). What comes out is no sample of the exact posterior;
docs/results/fronts has what it is worth.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from diffse import nmf, posterior
from diffse.processes import OUVE, expand, perturb
from diffse.samplers import Denoiser, time_grid


def em_proximal(
    denoise: Denoiser,
    process: OUVE,
    y: Tensor,
    draw: Callable[[], Tensor],
    *,
    steps: int = 10,
    em_iterations: int = 5,
    samples: int = 1,
    rank: int = 4,
    nmf_updates: int = 1,
    prior_weight: float = 3.0,
    t_eps: float = 0.03,
    normalise: bool = True,
    observe: posterior.Observer | None = None,
) -> Tensor:
    """Enhance y [B, 1, F, T]: the mean of the last estimates, shape of y.

    As `posterior.em` but for the E-step, which is `proximal_samples`. Draws: W and H, then per EM iteration
    and step one for each sample. Network evaluations per file: em_iterations * samples * steps.
    """

    def e_step(X: Tensor, V: Tensor | None) -> Tensor:
        assert V is not None  # no iteration leaves the likelihood out here
        return proximal_samples(denoise, process, X, V, draw, samples, steps, prior_weight, t_eps)

    factors = nmf.initial(draw, rank)
    return posterior.alternate(
        e_step, y, factors, em_iterations, nmf_updates, normalise=normalise, observe=observe
    )


def proximal_samples(
    denoise: Denoiser,
    process: OUVE,
    X: Tensor,
    V: Tensor,
    draw: Callable[[], Tensor],
    samples: int = 1,
    steps: int = 10,
    prior_weight: float = 3.0,
    t_eps: float = 0.03,
) -> Tensor:
    """Estimates of s given X [B, 1, F, T] and noise power V, one per chain of noise: [samples, B, 1, F, T].

    From N_C(delta(1) X, sigma(1)^2) on, each of `steps` times from 1 to t_eps takes D = denoise(s_t, t), then
    the proximal point `joined`, then s_u = delta(u) s_hat + sigma(u) z at the next time u. The result is the
    last s_hat.
    """
    noise = posterior.stacked(draw, samples)
    X, V = X.repeat(samples, 1, 1, 1), V.repeat(samples, 1, 1, 1)
    zero, S_hat = torch.zeros_like(X), X  # the process of a prior ends in 0
    for t in time_grid(steps, t_eps, device=X.device)[:, None].expand(-1, len(X)):
        S = perturb(process, S_hat, zero, t, noise())
        S_hat = joined(denoise(S, t), X, V, (expand(process.std(t) / process.a(t), X)) ** 2 / prior_weight)
    return S_hat.unflatten(0, (samples, -1))


def joined(D: Tensor, X: Tensor, V: Tensor, spread: Tensor) -> Tensor:
    """argmin over s of |X - s|^2 / V + |s - D|^2 / spread: the mean of s with prior N_C(D, spread) given X.

    `spread` stands for the variance of the clean speech that the state leaves open. The state's noise alone
    would allow (sigma / delta)^2; the prior knows more, hence its division by the prior's weight.
    """
    return (V * D + spread * X) / (V + spread)
