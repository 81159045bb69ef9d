"""What the network predicts and how it is trained: the only piece that knows both network and process.

An objective has `prepare(y)` for what follows from the noisy input alone, `loss(x_0, y, t, z)` for training and
`denoise(x_t, conditions, t)` for sampling; the clean estimate x_hat_0 is what samplers work with. `loss_given`
is `loss` for prepared conditions. Spectrograms are complex [B, 1, F, T], times real [B], losses [B].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffse.perceptual import pesq_loss
from diffse.processes import OUVE, SBVE, expand, mean, perturb
from diffse.spectrogram import Spectrogram

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Conditions:
    """What an objective makes of the noisy input before anything is sampled.

    `end`: second end of the process, [B, 1, F, T]. `seen`: what the network sees beside x_t, [B, n, F, T],
    n >= 0. `offset`: added to the sampler's result (stochastic refinement), or None.
    """

    end: Tensor
    seen: Tensor
    offset: Tensor | None = None


def no_conditions(y: Tensor) -> Tensor:
    """An empty `seen` for y [B, n, F, T]: [B, 0, F, T]."""
    return y[:, :0]


def squared_error(error: Tensor) -> Tensor:
    """1/2 sum |e|^2 per example: [B, ...] -> [B]."""
    return 0.5 * error.abs().square().flatten(1).sum(1)


def absolute_error(error: Tensor) -> Tensor:
    """1/2 sum |e| per example: [B, ...] -> [B]; |.| is the modulus of a complex number."""
    return 0.5 * error.abs().flatten(1).sum(1)


ERRORS = {"squared": squared_error, "absolute": absolute_error}


# --------------------------------------------------------------------------------------- preconditioning


@dataclass(frozen=True)
class Preconditioning:
    """c_skip x_t + c_out F(c_in x_t, c_in y, c_noise) (paper 000, eq. 9).

    "edm" are the functions of Karras et al. (2022), table 1, for data of standard deviation `sigma_data`, with
    sigma = s(t): c_in = 1/sqrt(sigma^2 + sigma_data^2), c_skip = sigma_data^2 c_in^2, c_out = sigma sigma_data
    c_in. The network receives the time itself or ln(sigma)/4. The defaults leave it as it is.
    """

    c_in: Literal["1", "edm"] = "1"
    c_skip: Literal["0", "edm"] = "0"
    c_out: Literal["1", "edm", "sigma", "1/sigma"] = "1"
    c_noise: Literal["t", "ln(sigma)/4"] = "t"
    sigma_data: float = 0.1

    def apply(self, network: Network, process: OUVE | SBVE, x_t: Tensor, seen: Tensor, t: Tensor) -> Tensor:
        """The preconditioned network's output for x_t [B, 1, F, T], seen [B, n, F, T] and t [B]."""
        sigma = process.std(t)
        total = sigma**2 + self.sigma_data**2
        c_in = {"1": None, "edm": total.rsqrt()}[self.c_in]
        c_skip = {"0": None, "edm": self.sigma_data**2 / total}[self.c_skip]
        edm_out = sigma * self.sigma_data * total.rsqrt()
        c_out = {"1": None, "edm": edm_out, "sigma": sigma, "1/sigma": 1 / sigma}[self.c_out]
        output = _times(c_out, network(_times(c_in, x_t), _times(c_in, seen), self._label(sigma, t)))
        return output if c_skip is None else expand(c_skip, x_t) * x_t + output

    def _label(self, sigma: Tensor, t: Tensor) -> Tensor:
        if self.c_noise == "t":
            return t
        # A bridge has no noise at its ends, where the network cannot take ln 0. Published ones have 1e-4 there.
        return (sigma.clamp_min(1e-4).log() / 4).to(t.device, t.dtype)

    def edm_weight(self, sigma: Tensor) -> Tensor:
        """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 = 1 / c_out^2, so that F's error weighs 1 always."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


def _times(coefficient: Tensor | None, x: Tensor) -> Tensor:
    return x if coefficient is None else expand(coefficient, x) * x


# ---------------------------------------------------------------------------------------- score matching


@dataclass(frozen=True)
class ScoreMatching:
    """Denoising score matching (paper 000, eqs. 6-7), for processes whose score is bounded (OUVE).

    The score is c_skip x_t + c_out F' with F' = sign * scaling * F and scaling 1/s(t) (the paper), 1/t or 1.
    `prior`: the process ends in 0 and the network sees x_t alone, so that it learns clean speech by itself
    (paper 004, eqs. 4-6). `error`: 1/2 sum |e|^2 (all papers) or 1/2 sum |e|.
    """

    network: Network
    process: OUVE
    scaling: Literal["1/sigma", "1/t", "none"] = "1/sigma"
    sign: Literal[1, -1] = 1
    preconditioning: Preconditioning = Preconditioning()
    prior: bool = False
    error: Literal["squared", "absolute"] = "squared"

    def prepare(self, y: Tensor) -> Conditions:
        """Ends in y, which the network sees; for a prior ends in 0, and nothing is seen."""
        return Conditions(torch.zeros_like(y), no_conditions(y)) if self.prior else Conditions(y, y)

    def score(self, x_t: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """Score of p_t(x_t | y), shape of x_t."""

        def scaled(x: Tensor, seen: Tensor, label: Tensor) -> Tensor:
            output = self.sign * self.network(x, seen, label)
            if self.scaling == "1/sigma":
                return output / expand(self.process.std(t), x_t)
            return output / expand(t, x_t) if self.scaling == "1/t" else output

        return self.preconditioning.apply(scaled, self.process, x_t, conditions.seen, t)

    def denoise(self, x_t: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """Tweedie's estimate of x_0: (x_t + s^2 score - b y) / a."""
        return tweedie(self.process, x_t, conditions.end, self.score(x_t, conditions, t), t)

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """1/2 sum |s(t) score + z|^2 per example (eq. 7): [B]."""
        return self.loss_given(x_0, self.prepare(y), t, z)

    def loss_given(self, x_0: Tensor, conditions: Conditions, t: Tensor, z: Tensor) -> Tensor:
        """`loss` for prepared conditions: [B]."""
        x_t = perturb(self.process, x_0, conditions.end, t, z)
        error = expand(self.process.std(t), x_t) * self.score(x_t, conditions, t) + z
        return ERRORS[self.error](error)


def tweedie(process: OUVE, x_t: Tensor, y: Tensor, score: Tensor, t: Tensor) -> Tensor:
    """Posterior mean of x_0 at a score: (x_t + s^2 score - b y) / a."""
    return _without_end(process, x_t + expand(process.std(t) ** 2, x_t) * score, y, t)


def _without_end(process: OUVE, mu_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """The x_0 whose mean at time t is mu_t: (mu_t - b y) / a."""
    return (mu_t - expand(process.b(t), y) * y) / expand(process.a(t), y)


@dataclass(frozen=True)
class WeightedSupervised:
    """Score matching plus the error of the estimate that the score implies, weighted by time (paper 003).

    L = 1/2 sum |sqrt(1 - alpha_t) (s score + z)|^2 + 1/2 sum |sqrt(alpha_t) e|^2 with alpha_t = (s(1) - s(t)) /
    (s(1) - s(t_eps)), held within [0, 1]. `residual` "tweedie": e = x_hat_0 - x_0. "published": the authors'
    code, e = x_t + s^2 score / 2 - (e^(theta t) x_0 + (1 - e^(theta t)) y), which is not 0 for the true score.
    """

    network: Network
    process: OUVE
    scaling: Literal["1/sigma", "1/t", "none"] = "1/sigma"
    sign: Literal[1, -1] = 1
    residual: Literal["tweedie", "published"] = "tweedie"
    t_eps: float = 0.03

    @property
    def matching(self) -> ScoreMatching:
        """The same network under score matching alone."""
        return ScoreMatching(self.network, self.process, self.scaling, self.sign)

    def prepare(self, y: Tensor) -> Conditions:
        """Ends in y, which the network sees."""
        return self.matching.prepare(y)

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the supervised term: 1 at t_eps and before, 0 at t = 1; shape of t, float64."""
        last, first = self.process.std(t.new_ones(())), self.process.std(t.new_tensor(self.t_eps))
        return ((last - self.process.std(t)) / (last - first)).clamp(0, 1)

    def denoise(self, x_t: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """Tweedie's estimate of x_0."""
        return self.matching.denoise(x_t, conditions, t)

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """The sum of both terms per example: [B]."""
        return self.loss_given(x_0, self.prepare(y), t, z)

    def loss_given(self, x_0: Tensor, conditions: Conditions, t: Tensor, z: Tensor) -> Tensor:
        """`loss` for prepared conditions: [B]."""
        y, alpha = conditions.end, self.alpha(t).to(z.real.dtype)
        x_t = perturb(self.process, x_0, y, t, z)
        score = self.matching.score(x_t, conditions, t)
        generative = squared_error(expand(self.process.std(t), x_t) * score + z)
        return (1 - alpha) * generative + alpha * squared_error(self._residual(x_0, x_t, y, score, t))

    def _residual(self, x_0: Tensor, x_t: Tensor, y: Tensor, score: Tensor, t: Tensor) -> Tensor:
        if self.residual == "tweedie":
            return tweedie(self.process, x_t, y, score, t) - x_0
        growth = expand(1 / self.process.a(t), x_t)
        half_step = expand(self.process.std(t) ** 2, x_t) * (score / 2)
        return x_t + half_step - (growth * x_0 + (1 - growth) * y)


# ---------------------------------------------------------------------------- prediction of mean or data


@dataclass(frozen=True)
class Denoising:
    """Prediction of the mean mu_t (paper 000, eqs. 8-10): M2, and M3 with EDM preconditioning.

    L = 1/2 sum w |D - mu_t|^2 with w = 1, s(t)^2 or the EDM weight. `across_batch` is a fault of the published
    code: each example gets the batch's mean weight, times the batch size (nothing changes for one example).
    """

    network: Network
    process: OUVE
    preconditioning: Preconditioning = Preconditioning()
    weighting: Literal["1", "sigma^2", "edm"] = "1"
    across_batch: bool = False

    def prepare(self, y: Tensor) -> Conditions:
        """Ends in y, which the network sees."""
        return Conditions(y, y)

    def posterior_mean(self, x_t: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """D(x_t, y, t), the estimate of mu_t, shape of x_t (eq. 9)."""
        return self.preconditioning.apply(self.network, self.process, x_t, conditions.seen, t)

    def denoise(self, x_t: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """x_hat_0 = (D - b y) / a."""
        return _without_end(self.process, self.posterior_mean(x_t, conditions, t), conditions.end, t)

    def weight(self, t: Tensor) -> Tensor:
        """w(t), shape of t, float64."""
        sigma = self.process.std(t)
        if self.weighting == "edm":
            return self.preconditioning.edm_weight(sigma)
        return sigma**2 if self.weighting == "sigma^2" else torch.ones_like(sigma)

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """1/2 sum w |D - mu_t|^2 per example (eq. 8): [B]."""
        return self.loss_given(x_0, self.prepare(y), t, z)

    def loss_given(self, x_0: Tensor, conditions: Conditions, t: Tensor, z: Tensor) -> Tensor:
        """`loss` for prepared conditions: [B]."""
        mu_t = mean(self.process, x_0, conditions.end, t)
        x_t = mu_t + expand(self.process.std(t), z) * z
        error = squared_error(self.posterior_mean(x_t, conditions, t) - mu_t)
        weight = self.weight(t).to(error.device, error.dtype)
        return error * (weight.mean() * len(weight) if self.across_batch else weight)


@dataclass(frozen=True)
class DataPrediction:
    """Prediction of x_0 with time-domain and perceptual terms (paper 000, eq. 19): M5, and M6-M8 with PESQ.

    `rate` in Hz matters to the PESQ term alone.
    """

    network: Network
    process: OUVE | SBVE
    spectrogram: Spectrogram
    l1_weight: float = 0.001
    pesq_weight: float = 0.0
    rate: int = 16000
    preconditioning: Preconditioning = Preconditioning()

    def prepare(self, y: Tensor) -> Conditions:
        """Ends in y, which the network sees."""
        return Conditions(y, y)

    def denoise(self, x_t: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """x_hat_0 = c_skip x_t + c_out F."""
        return self.preconditioning.apply(self.network, self.process, x_t, conditions.seen, t)

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """1/(F T) 1/2 sum |x_hat - x_0|^2 + l1_weight 1/L 1/2 sum |waveform error| + pesq_weight P: [B].

        P, the PESQ loss, falls as quality rises (`perceptual.pesq_loss`): it is added where eq. 19 subtracts
        the PESQ score.
        """
        return self.loss_given(x_0, self.prepare(y), t, z)

    def loss_given(self, x_0: Tensor, conditions: Conditions, t: Tensor, z: Tensor) -> Tensor:
        """`loss` for prepared conditions: [B]."""
        x_hat = self.denoise(perturb(self.process, x_0, conditions.end, t, z), conditions, t)
        loss = squared_error(x_hat - x_0) / (x_0.shape[-1] * x_0.shape[-2])
        if not (self.l1_weight or self.pesq_weight):
            return loss
        length = (x_0.shape[-1] - 1) * self.spectrogram.hop
        estimate, clean = self.spectrogram.synthesise(torch.cat([x_hat, x_0], 1), length).unbind(1)
        if self.l1_weight:
            loss = loss + self.l1_weight * 0.5 * (estimate - clean).abs().mean(-1)
        if self.pesq_weight:
            loss = loss + self.pesq_weight * pesq_loss(clean, estimate, self.rate)
        return loss
