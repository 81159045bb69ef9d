"""Deep complex U-Net with dilated convolutions and a time embedding (Choi et al. 2019; Welker et al. 2022).

Inside, a complex tensor of C channels is a real one [B, 2 C, F, T]: all real parts, then all imaginary parts.
The published network (DilDCUNet-v2 of the first SGMSE paper) is `DCUNet()`. The names of its published weights
are not known here, so there is no `published_names`.
"""

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

_KERNEL, _PADDING = 4, 2
# Stride and dilation of every encoder layer, (frequency, time); the decoder mirrors them.
_LAYERS = (
    ((1, 1), (1, 1)),
    ((1, 1), (1, 1)),
    ((1, 1), (1, 1)),
    ((2, 1), (2, 1)),
    ((2, 2), (4, 1)),
    ((2, 2), (8, 1)),
)
_FREQUENCY_STRIDE, _TIME_STRIDE = 8, 4


class TimeFeatures(nn.Module):
    """Random Fourier features of t itself: [sin, cos](2 pi W t); W ~ N(0, 16^2) stays fixed."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(16 * torch.randn(size // 2), requires_grad=False)

    def forward(self, t: Tensor) -> Tensor:
        """[B] -> [B, size]."""
        phase = t[:, None] * self.weight[None, :] * 2 * math.pi
        return torch.cat([phase.sin(), phase.cos()], 1)


class ComplexLinear(nn.Module):
    """Complex fully connected layer of two real ones: re = f1(a) - f2(b), im = f1(b) + f2(a)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.f1, self.f2 = nn.Linear(c_in, c_out), nn.Linear(c_in, c_out)

    def forward(self, h: Tensor) -> Tensor:
        """[B, 2 c_in] -> [B, 2 c_out]."""
        a, b = h.chunk(2, 1)
        return torch.cat([self.f1(a) - self.f2(b), self.f1(b) + self.f2(a)], 1)


class ComplexConv(nn.Module):
    """Complex convolution of two real ones, f1 and f2, with re = f1(a) - f2(b) and im = f1(b) + f2(a).

    One real convolution of twice the channels does the same work in a single call.
    """

    layer: type[nn.Module] = nn.Conv2d

    def __init__(self, c_in: int, c_out: int, stride: tuple, dilation: tuple, bias: bool = False) -> None:
        super().__init__()
        options = {"stride": stride, "padding": _PADDING, "dilation": dilation, "bias": bias}
        self.f1 = self.layer(c_in, c_out, _KERNEL, **options)
        self.f2 = self.layer(c_in, c_out, _KERNEL, **options)
        self.stride, self.dilation = stride, dilation

    def forward(self, h: Tensor, size: torch.Size | None = None) -> Tensor:
        """[B, 2 c_in, F, T] -> [B, 2 c_out, F', T']; `size` is for the transposed form."""
        w1, w2 = self.f1.weight, self.f2.weight
        weight = torch.cat([torch.cat([w1, -w2], 1), torch.cat([w2, w1], 1)], 0)
        return nnf.conv2d(h, weight, self._bias(), self.stride, _PADDING, self.dilation)

    def _bias(self) -> Tensor | None:
        if self.f1.bias is None:
            return None
        return torch.cat([self.f1.bias - self.f2.bias, self.f1.bias + self.f2.bias])


class ComplexConvTranspose(ComplexConv):
    """Transposed complex convolution onto a given size."""

    layer = nn.ConvTranspose2d

    def forward(self, h: Tensor, size: torch.Size | None = None) -> Tensor:
        """[B, 2 c_in, F', T'] -> [B, 2 c_out, F, T] with (F, T) = size."""
        w1, w2 = self.f1.weight, self.f2.weight  # [c_in, c_out, 4, 4]
        weight = torch.cat([torch.cat([w1, w2], 1), torch.cat([-w2, w1], 1)], 0)
        extra = [
            wanted - ((n - 1) * stride - 2 * _PADDING + dilation * (_KERNEL - 1) + 1)
            for wanted, n, stride, dilation in zip(size, h.shape[-2:], self.stride, self.dilation, strict=True)
        ]
        return nnf.conv_transpose2d(
            h, weight, self._bias(), self.stride, _PADDING, extra, dilation=self.dilation
        )


class Block(nn.Module):
    """Complex convolution, plus the time embedding, batch normalisation, LeakyReLU(0.01).

    Real and imaginary parts are normalised and activated each for itself. The embedding is added where DDPM's
    blocks add it, before the normalisation: the paper only says that it is added as a feature map.
    """

    def __init__(self, convolution: ComplexConv, channels: int, embedding: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.dense = ComplexLinear(embedding, channels) if embedding else None
        self.norm_re, self.norm_im = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, h: Tensor, e: Tensor | None, size: torch.Size | None = None) -> Tensor:
        """h [B, 2 c_in, F, T], e [B, 2 E] -> [B, 2 c_out, F', T']."""
        h = self.convolution(h, size)
        if self.dense is not None:
            h = h + nnf.silu(self.dense(e))[:, :, None, None]
        a, b = h.chunk(2, 1)
        return nnf.leaky_relu(torch.cat([self.norm_re(a), self.norm_im(b)], 1), 0.01)


class DCUNet(nn.Module):
    """Complex U-Net: six complex convolutions down, six transposed ones up, over concatenated skips.

    Args:
        inputs: complex spectrograms that go in: the state and its conditions.
        freq_bins: frequency bins; freq_bins - 1 is a multiple of 8, and at least 96 (ValueError).
        channels: complex channels after each of the six encoder layers.
        conditional: False leaves the time embedding out; t is then ignored.
        embedding: size of the time embedding. embedding_layers: complex linear layers on it before the blocks.
    """

    frame_multiple = 1

    def __init__(
        self,
        inputs: int = 2,
        freq_bins: int = 257,
        channels: tuple[int, ...] = (32, 32, 32, 64, 128, 256),
        conditional: bool = True,
        embedding: int = 128,
        embedding_layers: int = 1,
    ) -> None:
        super().__init__()
        _check_sizes(freq_bins, channels)
        self.freq_bins = freq_bins
        e = embedding if conditional else 0
        self.time_features = TimeFeatures(embedding) if conditional else None
        self.time_layers = nn.ModuleList(ComplexLinear(e, e) for _ in range(embedding_layers if e else 0))
        widths = (inputs, *channels)
        self.encoder = nn.ModuleList(
            Block(ComplexConv(widths[i], widths[i + 1], *layer), widths[i + 1], e)
            for i, layer in enumerate(_LAYERS)
        )
        self.decoder = nn.ModuleList()
        for i in reversed(range(1, len(_LAYERS))):
            c_in = channels[i] if i == len(_LAYERS) - 1 else 2 * channels[i]
            up = ComplexConvTranspose(c_in, channels[i - 1], *_LAYERS[i])
            self.decoder.append(Block(up, channels[i - 1], e))
        self.output_layer = ComplexConvTranspose(2 * channels[0], 1, *_LAYERS[0], bias=True)

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """x [B, 1, F, T] and y [B, inputs - 1, F, T] complex, t [B] -> complex [B, 1, F, T].

        F must be `freq_bins` (ValueError otherwise); T is free, T - 1 is padded to a multiple of 4 inside.
        """
        frames = x.shape[-1]
        if x.shape[-2] != self.freq_bins:
            raise ValueError(f"DCUNet takes {self.freq_bins} frequency bins, not {x.shape[-2]}")
        z = torch.cat([x, y], 1)
        h = nnf.pad(torch.cat([z.real, z.imag], 1), (0, (1 - frames) % _TIME_STRIDE))
        e = self._embed(t)
        skips, sizes = [], []
        for block in self.encoder:
            sizes.append(h.shape[-2:])
            h = block(h, e)
            skips.append(h)
        h = skips.pop()
        for block in self.decoder:
            h = _join(block(h, e, sizes.pop()), skips.pop())
        h = self.output_layer(h, sizes.pop())[..., :frames].float()
        return torch.complex(h[:, :1], h[:, 1:])

    def _embed(self, t: Tensor) -> Tensor | None:
        """[B] -> [B, 2 embedding]; the features enter as real parts."""
        if self.time_features is None:
            return None
        features = self.time_features(t)
        e = torch.cat([features, torch.zeros_like(features)], 1)
        for layer in self.time_layers:
            e = nnf.silu(layer(e))
        return e


def _join(h: Tensor, skip: Tensor) -> Tensor:
    """Concatenate complex channels: real parts beside real parts, imaginary beside imaginary."""
    return torch.cat([h.unflatten(1, (2, -1)), skip.unflatten(1, (2, -1))], 2).flatten(1, 2)


def _check_sizes(freq_bins: int, channels: tuple[int, ...]) -> None:
    if len(channels) != len(_LAYERS):
        raise ValueError(f"DCUNet takes {len(_LAYERS)} channel numbers, not {len(channels)}")
    # Below 97 bins the widest dilation, 25 bins across, no longer fits into the last layer's input.
    if (freq_bins - 1) % _FREQUENCY_STRIDE or freq_bins < 97:
        raise ValueError(
            f"freq_bins - 1 of DCUNet must be a multiple of {_FREQUENCY_STRIDE} and at least 96, "
            f"not {freq_bins - 1}"
        )
