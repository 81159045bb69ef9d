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
    """A call that the compiler has seen before, whatever the batch.

    A batch of one goes as one of two, and a view into a larger tensor as a copy: a size of 1 and an offset of 0
    are never symbols to the compiler, which would compile again for them.
    """
    examples = len(inputs[0])
    given = [x if x is None else _whole(x, max(examples, 2)) for x in inputs]
    return compiled(*given)[:examples]


def _whole(x: Tensor, examples: int) -> Tensor:
    """`x` as the beginning of memory of its own, repeated to `examples` where it is one."""
    if len(x) < examples:
        return x.expand(examples, *x.shape[1:]).contiguous()
    return x.clone() if x.storage_offset() else x
