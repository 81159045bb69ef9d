"""Exponential moving average of weights."""

import torch
from torch import Tensor, nn


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
