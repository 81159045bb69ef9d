"""Building blocks of NCSN++ (Song et al. 2021; fact table of the published SGMSE+ network).

All tensors are real, [B, C, F, T]. Nothing here is compiled and nothing runs at import.
"""

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from diffse import winograd


def ddpm_init_(weight: Tensor, scale: float = 1.0) -> None:
    """Variance scaling, fan average, uniform: U(+-sqrt(3 scale / fan_avg)); scale 0 becomes 1e-10."""
    receptive = weight[0][0].numel()
    fan_in, fan_out = weight.shape[1] * receptive, weight.shape[0] * receptive
    limit = math.sqrt(3 * (scale or 1e-10) / ((fan_in + fan_out) / 2))
    nn.init.uniform_(weight, -limit, limit)


def conv(in_channels: int, out_channels: int, kernel: int = 3, scale: float = 1.0) -> winograd.Conv2d:
    """Same-size convolution with DDPM initialisation and zero bias."""
    layer = winograd.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    ddpm_init_(layer.weight, scale)
    nn.init.zeros_(layer.bias)
    return layer


def linear(in_features: int, out_features: int) -> nn.Linear:
    """Fully connected layer with DDPM initialisation and zero bias."""
    layer = nn.Linear(in_features, out_features)
    ddpm_init_(layer.weight[:, :, None].data)
    nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with min(C/4, 32) groups and eps 1e-6; fewer groups where that does not divide C."""
    groups = min(channels // 4, 32)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _fir_kernel(x: Tensor, gain: float) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype) / 8
    return (gain * torch.outer(taps, taps)).expand(x.shape[1], 1, 4, 4)


def fir_down(x: Tensor) -> Tensor:
    """Halve both axes after the low-pass outer([1,3,3,1])/64, zero-padded by one."""
    return nnf.conv2d(x, _fir_kernel(x, 1.0), stride=2, padding=1, groups=x.shape[1])


def fir_up(x: Tensor) -> Tensor:
    """Double both axes: zero insertion, then the same low-pass with gain 4, padded (2, 1).

    The transposed convolution multiplies no inserted zero; a padding of 1 there is (2, 1) here.
    """
    return nnf.conv_transpose2d(x, _fir_kernel(x, 4.0), stride=2, padding=1, groups=x.shape[1])


class FourierEmbedding(nn.Module):
    """Random Fourier features of ln t: [sin, cos](2 pi W ln t); W ~ N(0, scale^2) stays fixed."""

    def __init__(self, size: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size) * scale, requires_grad=False)

    def forward(self, t: Tensor) -> Tensor:
        """[B] -> [B, 2 size]."""
        phase = torch.log(t)[:, None] * self.weight[None, :] * 2 * math.pi
        return torch.cat([phase.sin(), phase.cos()], 1)


class ResBlock(nn.Module):
    """BigGAN++ residual block; `resample` is None, fir_up or fir_down, applied to both branches.

    `embedding` is the width of the time embedding; 0 leaves the block without one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, embedding: int, dropout: float, resample=None
    ) -> None:
        super().__init__()
        self.norm_0 = group_norm(in_channels)
        self.conv_0 = conv(in_channels, out_channels)
        self.dense = linear(embedding, out_channels) if embedding else None
        self.norm_1 = group_norm(out_channels)
        self.conv_1 = conv(out_channels, out_channels, scale=0.0)
        needs_shortcut = in_channels != out_channels or resample is not None
        self.shortcut = conv(in_channels, out_channels, 1) if needs_shortcut else nn.Identity()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.resample = resample or (lambda x: x)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """x [B, C, F, T], embedding [B, E] (already through SiLU) or None -> [B, C_out, F', T']."""
        h = self.conv_0(self.resample(nnf.silu(self.norm_0(x))))
        if self.dense is not None:
            h = h + self.dense(embedding)[:, :, None, None]
        h = self.conv_1(self.dropout(nnf.silu(self.norm_1(h))))
        return (self.shortcut(self.resample(x)) + h) * math.sqrt(0.5)


class Attention(nn.Module):
    """Single-head self-attention over all frequency-time positions, residual, scaled by 1/sqrt(2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.projections = nn.ModuleList(PointwiseLinear(channels, scale) for scale in (0.1, 0.1, 0.1, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, F, T] -> same shape."""
        h = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = (projection(h) for projection in self.projections[:3])
        h = self.projections[3](nnf.scaled_dot_product_attention(q, k, v))
        return (x + h.transpose(1, 2).reshape(x.shape)) * math.sqrt(0.5)


class PointwiseLinear(nn.Module):
    """y = x W + b on the last axis, W stored [in, out] as in the published weights."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        ddpm_init_(self.weight.data[:, :, None], scale)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        return x @ self.weight + self.bias
