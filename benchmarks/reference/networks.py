"""The networks' building blocks as published code has them: the same weights and numbers, plain operations.

`plain(network)` copies a network of diffse and lets the copy resample through inserted zeros, attend with a
stored matrix of weights and normalise its filters on every call.
"""

import contextlib
import copy
import math
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from diffse.networks import ncsnpp
from diffse.networks.blocks import Attention, ResBlock, fir_down, fir_up
from diffse.networks.magnitude import MPAttention, MPConv

TAPS = (1.0, 3.0, 3.0, 1.0)


def filtered(x: Tensor, up: int, down: int, before: int, after: int) -> Tensor:
    """Insert zeros, pad, convolve every channel with the low-pass, keep every `down`-th sample."""
    b, c, f, t = x.shape
    x = x.reshape(b * c, f, 1, t, 1)
    x = nnf.pad(x, [0, up - 1, 0, 0, 0, up - 1]).reshape(b * c, 1, f * up, t * up)
    taps = torch.tensor(TAPS)
    kernel = torch.outer(taps, taps)
    kernel = kernel / kernel.sum() * up**2
    x = nnf.conv2d(nnf.pad(x, [before, after, before, after]), kernel[None, None])[..., ::down, ::down]
    return x.reshape(b, c, *x.shape[-2:])


def plain_up(x: Tensor) -> Tensor:
    return filtered(x, 2, 1, 2, 1)


def plain_down(x: Tensor) -> Tensor:
    return filtered(x, 1, 2, 1, 1)


def attend(self: Attention, x: Tensor) -> Tensor:
    b, c, f, t = x.shape
    h = self.norm(x)
    q, k, v = (torch.einsum("bcft,cd->bdft", h, p.weight) + p.bias[:, None, None] for p in self.projections[:3])
    w = torch.einsum("bcft,bcij->bftij", q, k) * c**-0.5
    w = torch.softmax(w.reshape(b, f, t, f * t), -1).reshape(b, f, t, f, t)
    h = torch.einsum("bftij,bcij->bcft", w, v)
    last = self.projections[3]
    h = torch.einsum("bcft,cd->bdft", h, last.weight) + last.bias[:, None, None]
    return (x + h) / math.sqrt(2)


def norm(x: Tensor, dim) -> Tensor:
    size = x.new_tensor([x.shape[d] for d in dim]).prod()
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    return x / (1e-4 + length / torch.sqrt(size))


def convolve(self: MPConv, x: Tensor, gain=1.0) -> Tensor:
    w = norm(self.weight, tuple(range(1, self.weight.ndim)))
    w = w * (gain / math.sqrt(w[0].numel()))
    return nnf.linear(x, w) if w.ndim == 2 else nnf.conv2d(x, w, padding=w.shape[-1] // 2)


def convolve_doubled(self: MPConv, x: Tensor, gain=1.0) -> Tensor:
    return convolve(self, nnf.interpolate(x, scale_factor=2.0, mode="nearest"), gain)


def attend_magnitude(self: MPAttention, x: Tensor) -> Tensor:
    y = self.qkv(x)
    y = y.reshape(y.shape[0], self.heads, -1, 3, y.shape[2] * y.shape[3])
    q, k, v = norm(y, (2,)).unbind(3)
    w = torch.einsum("nhcq,nhck->nhqk", q, k / math.sqrt(q.shape[2])).softmax(dim=3)
    y = torch.einsum("nhqk,nhck->nhcq", w, v).reshape(x.shape)
    return self.keep * x + self.projection(y, gain=self.add)


PLAIN = {Attention: attend, MPConv: convolve, MPAttention: attend_magnitude}


def plain(network: nn.Module) -> nn.Module:
    """A copy in the plain form; call it inside `resampling_plainly()`."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if type(module) in PLAIN:
            module.forward = PLAIN[type(module)].__get__(module)
        if isinstance(module, MPConv):
            module.of_doubled = convolve_doubled.__get__(module)
        if isinstance(module, ResBlock):
            module.resample = {fir_up: plain_up, fir_down: plain_down}.get(module.resample, module.resample)
    return network


@contextlib.contextmanager
def resampling_plainly() -> Iterator[None]:
    """Inside, the pyramids of NCSN++ are resampled plainly too."""
    with mock.patch.object(ncsnpp, "fir_up", plain_up), mock.patch.object(ncsnpp, "fir_down", plain_down):
        yield
