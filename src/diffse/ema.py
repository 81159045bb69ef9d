"""Moving averages of weights: exponential, and over a power-function profile of the training so far."""

import functools
import math

import numpy as np
import torch
from torch import Tensor, nn

from diffse.errors import DiffseError


class EMA:
    """Average of all parameters and buffers with decay min(decay, (1 + n)/(10 + n)) after n updates.

    The rising decay is the published SGMSE+ rule: early averages forget the initialisation quickly.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.shadow = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after one optimiser step."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        shadow, current = self._floating(network.state_dict())
        torch._foreach_lerp_(shadow, current, weight)

    def _floating(self, state: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        names = [name for name, value in self.shadow.items() if value.is_floating_point()]
        return [self.shadow[name] for name in names], [state[name] for name in names]

    def copy_to(self, network: nn.Module) -> None:
        """Put the averaged weights into a network of the same shape."""
        network.load_state_dict(self.shadow)

    def state_dict(self) -> dict:
        """Tensors and numbers only, so that it can be read back with weights_only=True."""
        return {"decay": self.decay, "updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict()`."""
        self.decay, self.updates = state["decay"], state["updates"]
        for name, value in state["shadow"].items():
            self.shadow[name].copy_(value)


@functools.lru_cache(maxsize=1024)
def gamma_of(std: float) -> float:
    """Exponent gamma of the averaging profile t^gamma whose relative standard deviation is `std`.

    `std` is relative to the training so far: 0.05 is a peak as wide as 5 % of it. It is the largest root of
    gamma^3 + 7 gamma^2 + (16 - std^-2) gamma + 12 - std^-2 = 0 (Karras et al. 2024, EDM2, appendix C).
    A length that no profile with gamma > 0 has is a DiffseError: 0 < std < `LONGEST`.
    """
    if not 0 < std < LONGEST:
        raise DiffseError(f"EMA length {std}: give one above 0 and below {LONGEST:.4f}")
    precision = float(std) ** -2
    roots = np.roots([1, 7, 16 - precision, 12 - precision])
    return float(roots.real[abs(roots.imag) < 1e-9 * abs(roots)].max())


def std_of(gamma: float) -> float:
    """Relative standard deviation of the profile t^gamma; the inverse of `gamma_of`."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


LONGEST = std_of(0)  # the plain mean of all steps


def power_beta(std: float, seen: int, batch: int) -> float:
    """Momentum (1 - batch/seen)^(gamma + 1) of the step that ends at `seen` samples (paper 001, eq. 12)."""
    if not 0 < batch <= seen:
        raise ValueError(f"a step of {batch} samples cannot end at {seen} samples seen")
    return (1 - batch / seen) ** (gamma_of(std) + 1)


class PowerEMA:
    """Power-function averages of one walk of the weights, one for each length (paper 001, eqs. 11-12).

    Parameters are averaged, in float32 or better whatever the network's type; buffers are copied.
    `stds` are relative lengths (see `gamma_of`); `seen` counts training samples.

    Rounding stops a float32 average where 1 - beta nears 1e-7: in steps of 16 samples, length 0.10 stands still
    at 10^9 samples and is exact enough up to 10^8. A longer training should call `update` once in some steps,
    `batch` being the samples since the last call.
    """

    def __init__(self, network: nn.Module, stds: tuple[float, ...]) -> None:
        self.stds = tuple(float(std) for std in stds)
        if not stds or len(set(self.stds)) < len(self.stds):
            raise ValueError(f"{self.stds}: give one or more different lengths")
        for std in self.stds:
            gamma_of(std)  # refuses a length that cannot be
        self.seen = 0
        state = network.state_dict()
        parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
        self.buffers = {name: value.clone() for name, value in state.items() if name not in parameters}
        self.averages = {
            std: {name: _precise(value, copy=True) for name, value in state.items() if name in parameters}
            for std in self.stds
        }

    @torch.no_grad()
    def update(self, network: nn.Module, seen: int, batch: int) -> None:
        """Take in the weights after a step of `batch` samples that ends at `seen` samples.

        The first step of a training (seen = batch) has momentum 0: its weights are taken over as they are.
        """
        state = network.state_dict()
        for std, average in self.averages.items():
            current = [_precise(state[name]) for name in average]
            torch._foreach_lerp_(list(average.values()), current, 1 - power_beta(std, seen, batch))
        for name, buffer in self.buffers.items():
            buffer.copy_(state[name])
        self.seen = seen

    def copy_to(self, network: nn.Module, std: float) -> None:
        """Put the average of length `std` into a network of the same shape; only tracked lengths are here."""
        if std not in self.averages:
            raise DiffseError(f"EMA length {std}: not tracked; tracked are {', '.join(map(str, self.stds))}")
        network.load_state_dict({**self.averages[std], **self.buffers})

    def state_dict(self) -> dict:
        """Tensors and numbers only, so that it can be read back with weights_only=True."""
        averages = [self.averages[std] for std in self.stds]
        return {"stds": list(self.stds), "seen": self.seen, "averages": averages, "buffers": self.buffers}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict()`; a state with other lengths is a DiffseError."""
        if tuple(state["stds"]) != self.stds:
            saved, own = (", ".join(map(str, stds)) for stds in (state["stds"], self.stds))
            raise DiffseError(f"the saved EMA lengths are {saved} and not {own}; give those, or start anew")
        self.seen = state["seen"]
        for std, average in zip(self.stds, state["averages"], strict=True):
            for name, value in average.items():
                self.averages[std][name].copy_(value)
        for name, value in state["buffers"].items():
            self.buffers[name].copy_(value)


def _precise(value: Tensor, copy: bool = False) -> Tensor:
    """In float32 (complex64) or better: half precision would lose the small steps of a long average."""
    return value.detach().to(torch.promote_types(value.dtype, torch.float32), copy=copy)
