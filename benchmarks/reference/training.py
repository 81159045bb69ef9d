"""A training step as published code has it: draw, loss, backward, Adam, average."""

import torch
from torch import Tensor, nn

from diffse.networks.magnitude import MPConv
from diffse.settings import Train

from .formulas import ExponentialAverage, PowerAverage


def power_exponent(std: float) -> float:
    """gamma of a length (paper 001, section 2.3), by bisection of std^2 = (g + 1)/((g + 2)^2 (g + 3))."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        if (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > std**2:
            low = middle
        else:
            high = middle
    return low


@torch.no_grad()
def force_normalisation(network: nn.Module) -> None:
    """What every forward pass in training begins with (paper 001, eq. 10)."""
    for module in network.modules():
        if isinstance(module, MPConv):
            weight = module.weight
            norm = torch.linalg.vector_norm(weight, dim=list(range(1, weight.ndim)), keepdim=True)
            size = weight[0].numel()
            weight.copy_(weight / (1e-4 + norm * size**-0.5))


class Training:
    """Optimiser and average of one network; `step` is one step of the training."""

    def __init__(self, model, network: nn.Module, train: Train) -> None:
        self.model, self.network, self.train = model, network, train
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trainable, lr=train.lr, betas=train.betas)
        if train.power_ema is None:
            self.average = ExponentialAverage(network, train.ema_decay)
        else:
            gammas = [power_exponent(std) for std in train.power_ema.stds]
            self.average = PowerAverage(network, gammas, train.batch)

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        if hasattr(self.network, "normalise_weights_"):
            force_normalisation(self.network)
        return self.model.loss(x_0, y, t, z)

    def step(self, x_0: Tensor, y: Tensor) -> float:
        t_min = self.train.times.t_min
        t = torch.rand(len(x_0)) * (1 - t_min) + t_min
        z = torch.randn_like(x_0)
        self.optimizer.zero_grad()
        loss = self.loss(x_0, y, t, z)
        loss.backward()
        self.optimizer.step()
        self.average.update(self.network)
        return loss.item()
