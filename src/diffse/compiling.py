"""Compiled networks: torch.compile for the networks alone, with one program for all lengths.

Spectrograms of a corpus have many lengths, and its last batches fewer examples. With fixed sizes each of them
would compile again, minutes into a run; here sizes are symbols, so that the first call compiles and later ones
do not. States, noise and losses around the network stay as they are.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffse.networks.dcunet import DCUNet
from diffse.networks.gagnet import GaGNet
from diffse.networks.mp_adm import MPADM
from diffse.networks.ncsnpp import NCSNpp

NETWORKS = (NCSNpp, MPADM, DCUNet, GaGNet)


def compile_(network: nn.Module, fixed_size: bool = False) -> int:
    """Let every network inside compile at its first call; returns how many there are.

    `fixed_size`: all inputs have one shape, as in training, which leaves the compiler more to know. Names of
    weights stay as they are. Results differ from the plain network's by rounding (1e-5, relative).
    """
    found = [module for module in network.modules() if isinstance(module, NETWORKS)]
    for module in found:
        if "forward" not in vars(module):  # once, however many enhancers share it
            compiled = torch.compile(module.forward, dynamic=not fixed_size)
            module.forward = compiled if fixed_size else functools.partial(_two_at_least, compiled)
    return len(found)


def _two_at_least(compiled: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """A batch of one as one of two: a size of 1 is never a symbol to the compiler and would compile again."""
    if len(inputs[0]) > 1:
        return compiled(*inputs)
    doubled = [x if x is None else x.expand(2, *x.shape[1:]).contiguous() for x in inputs]
    return compiled(*doubled)[:1]
