"""Magnitude-preserving layers (paper 001, section 2.2; Karras et al. 2024, EDM2).

Every layer maps inputs of unit variance to outputs of unit variance, whatever the training does: weights are
normalised where they are used (eq. 10) and, by `MPConv.normalise_`, where they are stored. No layer has a
bias. Constant factors of neighbouring operations are handed to the convolutions as gains, where they cost
nothing. All tensors are real, [B, C, F, T] unless said otherwise.
"""

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from diffse import winograd

EPSILON = 1e-4  # keeps a vanishing norm from being divided by (the small constant of eq. 10)
SILU_GAIN = 1 / 0.596  # 1 / root mean square of silu(z) for z ~ N(0, 1)


def pixel_norm(x: Tensor, dim: int = 1, gain: float | Tensor = 1.0) -> Tensor:
    """x with root mean square `gain` over `dim` (the channels), at every place; zeros stay zeros.

    torch's own norm is many times slower over an axis that is not the last.
    """
    precision = torch.promote_types(x.dtype, torch.float32)
    mean_square = x.square().mean(dim, keepdim=True, dtype=precision)
    rms = mean_square.clamp_min(1e-24).sqrt()  # the slope of the root at 0 is infinite
    return x * (gain / (EPSILON + rms)).to(x.dtype)


def filter_norm(weight: Tensor) -> Tensor:
    """Root mean square of every row, plus the small constant of eq. 10: [C, N] -> [C, 1]."""
    return EPSILON + torch.linalg.vector_norm(weight, dim=1, keepdim=True) / math.sqrt(weight.shape[1])


def mp_silu(x: Tensor) -> Tensor:
    """silu(x) / 0.596: second moment 1 for x ~ N(0, 1)."""
    return nnf.silu(x) * SILU_GAIN


def sum_weights(balance: float | Tensor) -> tuple[float | Tensor, float | Tensor]:
    """Weights (1 - t, t) / sqrt((1 - t)^2 + t^2) of two independent terms whose sum keeps unit variance."""
    scale = ((1 - balance) ** 2 + balance**2) ** -0.5
    return (1 - balance) * scale, balance * scale


def mp_cat(a: Tensor, b: Tensor, balance: float) -> Tensor:
    """Channels of a and b, weighted so that t says how much of the variance comes from b."""
    n_a, n_b = a.shape[1], b.shape[1]
    weight_a, weight_b = (w * math.sqrt(n_a + n_b) for w in sum_weights(balance))
    weight_a, weight_b = weight_a / math.sqrt(n_a), weight_b / math.sqrt(n_b)
    # Equal widths at t = 1/2 need no weights, and that is most of a network.
    parts = (x if abs(w - 1) < 1e-9 else x * w for x, w in ((a, weight_a), (b, weight_b)))
    return torch.cat(tuple(parts), 1)


def conv_of_doubled(x: Tensor, weight: Tensor) -> Tensor:
    """Same-size convolution [c_out, c_in, 3, 3] of x [B, c_in, F, T] with every place repeated along F and T.

    An output at an even place sees its own value twice and its left neighbour, one at an odd place its own
    twice and its right neighbour: four filters of 2 x 2 at the low resolution.
    """
    rows = _halves(weight, 2)
    filters = torch.cat([part for row in rows for part in _halves(row, 3)])
    (b, _, f, frames), c_out = x.shape, len(weight)
    y = nnf.conv2d(x, filters, padding=1).view(b, 2, 2, c_out, f + 1, frames + 1)
    lines = [torch.stack([y[:, i, j, :, i : i + f, j : j + frames] for j in (0, 1)], dim=-1) for i in (0, 1)]
    return torch.stack(lines, dim=3).reshape(b, c_out, 2 * f, 2 * frames)


def _halves(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Taps of the outputs at even and at odd places."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)


class MPConv(nn.Module):
    """Same-size convolution (odd `kernel`) or linear layer (kernel 0) with normalised filters (eq. 10)."""

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.randn(c_out, c_in, *[kernel] * (2 if kernel else 0)))
        self._kept: tuple[tuple, Tensor] | None = None

    def forward(self, x: Tensor, gain: float | Tensor = 1.0) -> Tensor:
        """x [B, c_in, F, T] (or [B, c_in]) -> [B, c_out, F, T] (or [B, c_out]), times `gain`."""
        weight = self._normalised(gain)
        if not self.kernel:
            return nnf.linear(x, weight)
        return winograd.conv2d(x, weight)

    def of_doubled(self, x: Tensor, gain: float | Tensor = 1.0) -> Tensor:
        """`forward` of x with every place repeated along both axes: [B, c_in, F, T] -> [B, c_out, 2 F, 2 T].

        Kernel 3 only. Neighbours that are equal share a product, so that 4 of 9 are left.
        """
        return conv_of_doubled(x, self._normalised(gain))

    def _normalised(self, gain: float | Tensor) -> Tensor:
        """The filters as they are used. Without gradients they are kept until the stored ones change."""
        if torch.compiler.is_compiling():  # a graph breaks at what it cannot know, as where the weights lie
            return self._computed(gain)
        if torch.is_grad_enabled() or isinstance(gain, Tensor) or self.weight.is_inference():
            return self._computed(gain)
        key = (self.weight.data_ptr(), self.weight._version, self.weight.dtype, gain)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self._computed(gain))
        return self._kept[1]

    def _computed(self, gain: float | Tensor) -> Tensor:
        flat = self.weight.flatten(1)
        return (flat * (gain / math.sqrt(flat.shape[1]) / filter_norm(flat))).view_as(self.weight)

    @torch.no_grad()
    def normalise_(self) -> None:
        """Rescale every stored filter to norm sqrt(its size), in place."""
        flat = self.weight.flatten(1)
        flat.div_(filter_norm(flat))


class MPFourier(nn.Module):
    """sqrt(2) cos(w u + phi) with fixed random w ~ 2 pi N(0, 1), phi ~ U[0, 2 pi): [B] -> [B, size]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(size))
        self.register_buffer("phases", 2 * math.pi * torch.rand(size))

    def forward(self, u: Tensor) -> Tensor:
        return torch.cos(u.to(self.phases)[:, None] * self.frequencies + self.phases) * math.sqrt(2)


class MPAttention(nn.Module):
    """Multi-head self-attention over all places, queries, keys and values pixel-normalised per head."""

    def __init__(self, channels: int, channels_per_head: int, balance: float) -> None:
        super().__init__()
        self.heads = max(1, channels // channels_per_head)
        while channels % self.heads:
            self.heads -= 1
        self.keep, self.add = sum_weights(balance)
        self.qkv = MPConv(channels, 3 * channels, 1)
        self.projection = MPConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Magnitude-preserving sum of x and what it attends to; shape of x."""
        b, _, f, frames = x.shape
        heads = self.qkv(x).reshape(b, self.heads, -1, 3, f * frames)  # the published order of channels
        q, k, v = pixel_norm(heads, 2).permute(3, 0, 1, 4, 2).contiguous()  # fused kernels ask for it
        attended = nnf.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
        return torch.add(self.projection(attended, gain=self.add), x, alpha=self.keep)
