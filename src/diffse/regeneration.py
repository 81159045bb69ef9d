"""StoRM: diffusion around the output of a predictive network (paper 002), and stochastic refinement.

A predictor D maps the noisy y to an estimate D(y) in one call. Regeneration runs the process between the clean
x_0 and D(y) instead of y. Refinement (Whang et al.; paper 002, section III-B) runs it between what the estimate
lacks, r_x = x_0 - D(y), and r_y = y - D(y), and adds the result to D(y).
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from diffse.objectives import Conditions, Network, no_conditions, squared_error
from diffse.processes import OUVE, SBVE


class Inner(Protocol):
    """The objective of the score network: any that takes its conditions as an argument."""

    process: OUVE | SBVE

    def denoise(self, x_t: Tensor, conditions: Conditions, t: Tensor) -> Tensor: ...

    def loss_given(self, x_0: Tensor, conditions: Conditions, t: Tensor, z: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Regeneration:
    """Stochastic regeneration (paper 002, section III-C) or, with `refine`, stochastic refinement.

    `predictor` is called as predictor(y, no conditions [B, 0, F, T], ones [B]). `inner` holds the score network
    and the process; its terms on waveforms have no meaning with `refine`, where x_0 is a residual.

    Args:
        conditioning: what the score network sees beside x_t: y and D(y), y, or D(y) (table VI).
        supervision: alpha of eq. 17, weight of the predictor's own error; 0 leaves it out.
        fine_tune: False keeps the predictor as it is: no gradient, no term of its own in the loss, and no
            dropout or statistics of the batch in its output (table VII).
        published: half of each term and the sum over the batch instead of its mean, as the published code.
    """

    predictor: Network
    inner: Inner
    conditioning: Literal["both", "noisy", "estimate"] = "both"
    supervision: float = 1.0
    fine_tune: bool = True
    refine: bool = False
    published: bool = False

    @property
    def process(self) -> OUVE | SBVE:
        """The process that samplers reverse."""
        return self.inner.process

    def prepare(self, y: Tensor) -> Conditions:
        """One call of the predictor. y [B, 1, F, T]; the process ends in D(y) or, refining, in y - D(y)."""
        if self.fine_tune:
            estimate = self._predict(y)
        else:
            with _untouched(self.predictor):
                estimate = self._predict(y)
        seen = {"both": (y, estimate), "noisy": (y,), "estimate": (estimate,)}[self.conditioning]
        if self.refine:
            return Conditions(y - estimate, torch.cat(seen, 1), offset=estimate)
        return Conditions(estimate, torch.cat(seen, 1))

    def denoise(self, x_t: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """Estimate of x_0 or, refining, of x_0 - D(y): what the sampler works with before the offset."""
        return self.inner.denoise(x_t, conditions, t)

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """J^(StoRM) of eq. 17 per example, both norms as 1/2 sum |e|^2: [B]."""
        return self.loss_given(x_0, self.prepare(y), t, z)

    def loss_given(self, x_0: Tensor, conditions: Conditions, t: Tensor, z: Tensor) -> Tensor:
        """`loss` with the predictor's work done."""
        if conditions.offset is None:
            estimate, target = conditions.end, x_0
        else:
            estimate, target = conditions.offset, x_0 - conditions.offset
        loss = self.inner.loss_given(target, conditions, t, z)
        if self.supervision and self.fine_tune:
            loss = loss + self.supervision * squared_error(estimate - x_0)
        return 0.5 * len(loss) * loss if self.published else loss

    def pretrain_loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """1/2 sum |D(y) - x_0|^2 per example, J^(Sup) of eq. 17: [B]. Trains the predictor alone."""
        return squared_error(self._predict(y) - x_0)

    def _predict(self, y: Tensor) -> Tensor:
        t = torch.ones(len(y), device=y.device, dtype=y.real.dtype)
        return self.predictor(y, no_conditions(y), t)


@contextmanager
def _untouched(network: Network) -> Iterator[None]:
    """Inside, the network keeps no graph, drops nothing out and updates no statistics of batches."""
    training = isinstance(network, nn.Module) and network.training
    with torch.no_grad():
        if training:
            network.eval()
        try:
            yield
        finally:
            if training:
                network.train()


class Pair(nn.Module):
    """The two networks of one system under one state dict: `predictor.*`, then `score.*`.

    It is never called itself: an objective calls its parts.

    Raises ValueError if the two take different numbers of frequency bins.
    """

    def __init__(self, predictor: nn.Module, score: nn.Module) -> None:
        super().__init__()
        if predictor.freq_bins != score.freq_bins:
            raise ValueError(
                f"the predictor takes {predictor.freq_bins} frequency bins, the score network {score.freq_bins}"
            )
        self.predictor, self.score = predictor, score
        self.freq_bins = score.freq_bins
        self.frame_multiple = math.lcm(predictor.frame_multiple, score.frame_multiple)


def swapped(pair: Pair, predictor: nn.Module) -> Pair:
    """The same score network behind another predictor (paper 002, table V); nothing is copied."""
    return Pair(predictor, pair.score).train(pair.training)


def published_names(pair: Pair) -> dict[str, str]:
    """Own parameter or buffer name -> name in the published state dict (`denoiser_net.*`, `score_net.*`).

    Both networks must be of a kind whose published names are known.
    """
    names = {}
    for own, published in (("predictor", "denoiser_net"), ("score", "score_net")):
        network = getattr(pair, own)
        # the module of every published network has a function of this name
        inner = sys.modules[type(network).__module__].published_names(network)
        names |= {f"{own}.{name}": f"{published}.{value}" for name, value in inner.items()}
    return names
