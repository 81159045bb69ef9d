"""NCSN++ for complex spectrograms (SGMSE+, paper 000, section III-B), at any width and depth.

The published network is `NCSNpp()`. Modules are registered in the published order, so that weights can be
taken over by position (`published_names`).
"""

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from diffse.networks.blocks import (
    Attention,
    FourierEmbedding,
    ResBlock,
    conv,
    fir_down,
    fir_up,
    group_norm,
    linear,
)


class Embedding(nn.Module):
    """Time embedding: Fourier features of ln t, two linear layers. [B] -> [B, 4 nf], after a SiLU."""

    def __init__(self, nf: int, scale: float) -> None:
        super().__init__()
        self.fourier = FourierEmbedding(nf, scale)
        self.linear_0 = linear(2 * nf, 4 * nf)
        self.linear_1 = linear(4 * nf, 4 * nf)

    def forward(self, t: Tensor) -> Tensor:
        return nnf.silu(self.linear_1(nnf.silu(self.linear_0(self.fourier(t)))))


class EncoderLevel(nn.Module):
    """Residual blocks (with attention), then, except on the last level, halving and the input pyramid."""

    def __init__(self, c_in, c_out, blocks, attention, embedding, dropout, down, pyramid) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for index in range(blocks):
            self.blocks.append(ResBlock(c_in if index == 0 else c_out, c_out, embedding, dropout))
            if attention:
                self.blocks.append(Attention(c_out))
        self.down = ResBlock(c_out, c_out, embedding, dropout, fir_down) if down else None
        self.combine = conv(pyramid, c_out, 1) if down and pyramid else None

    def forward(self, h: Tensor, pyramid: Tensor, e: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        skips: list[Tensor] = []
        for block in self.blocks:
            if isinstance(block, ResBlock):
                h = block(h, e)
                skips.append(h)
            else:
                h = block(h)
                skips[-1] = h
        if self.down is not None:
            h = self.down(h, e)
            if self.combine is not None:
                pyramid = fir_down(pyramid)
                h = self.combine(pyramid) + h
            skips.append(h)
        return h, pyramid, skips


class DecoderLevel(nn.Module):
    """Residual blocks over skips (with attention), the output pyramid, then, except at the top, doubling."""

    def __init__(self, c_ins, c_out, attention, embedding, dropout, up, pyramid) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResBlock(c_in, c_out, embedding, dropout) for c_in in c_ins)
        self.attention = Attention(c_out) if attention else None
        self.norm = group_norm(c_out) if pyramid else None
        self.to_pyramid = conv(c_out, pyramid, scale=0.0) if pyramid else None
        self.up = ResBlock(c_out, c_out, embedding, dropout, fir_up) if up else None

    def forward(self, h, pyramid, skips, e) -> tuple[Tensor, Tensor | None]:
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], 1), e)
        if self.attention is not None:
            h = self.attention(h)
        if self.to_pyramid is not None:
            level = self.to_pyramid(nnf.silu(self.norm(h)))
            pyramid = level if pyramid is None else fir_up(pyramid) + level
        return (h if self.up is None else self.up(h, e)), pyramid


class NCSNpp(nn.Module):
    """U-Net with residual FIR resampling, attention, and input and output pyramids.

    Args:
        inputs: complex spectrograms that go in: the state and its conditions.
        nf: channels of the first level. ch_mult: channels of each level, times nf.
        attn_resolutions: frequency bins of the levels with attention (after the stem).
        stem: neighbouring frequency bins folded into channels; 1 is the published network.
        output_scaling: divide by t before or after the last 1x1 convolution, or not at all.
    """

    def __init__(
        self,
        inputs: int = 2,
        nf: int = 128,
        ch_mult: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2),
        num_res_blocks: int = 2,
        attn_resolutions: tuple[int, ...] = (16,),
        freq_bins: int = 256,
        pyramid: bool = True,
        bottleneck_attention: bool = True,
        output_scaling: str = "none",
        stem: int = 1,
        dropout: float = 0.0,
        fourier_scale: float = 16.0,
        zero_output: bool = False,
    ) -> None:
        super().__init__()
        self.freq_bins, self.stem, self.output_scaling = freq_bins, stem, output_scaling
        self.frame_multiple = 2 ** (len(ch_mult) - 1)
        c_input = 2 * inputs * stem
        last = len(ch_mult) - 1
        channels = [nf * m for m in ch_mult]
        attention = [freq_bins // stem >> level in attn_resolutions for level in range(last + 1)]
        self.output_layer = nn.Conv2d(c_input, 2 * stem, 1)
        if zero_output:
            nn.init.zeros_(self.output_layer.bias)
        self.embedding = Embedding(nf, fourier_scale)
        self.input_layer = conv(c_input, nf)
        e, p = 4 * nf, c_input if pyramid else 0
        self.encoder = nn.ModuleList()
        widths = [nf]  # channels of every skip connection
        for level, c in enumerate(channels):
            args = (c, num_res_blocks, attention[level], e, dropout, level < last, p)
            self.encoder.append(EncoderLevel(widths[-1], *args))
            widths += [c] * (num_res_blocks + (level < last))
        c = channels[-1]
        self.bottleneck = nn.ModuleList([ResBlock(c, c, e, dropout), ResBlock(c, c, e, dropout)])
        if bottleneck_attention:
            self.bottleneck.insert(1, Attention(c))
        self.decoder = nn.ModuleList()
        for level in reversed(range(last + 1)):
            c_ins = []
            for _ in range(num_res_blocks + 1):
                c_ins.append(c + widths.pop())
                c = channels[level]
            self.decoder.append(DecoderLevel(c_ins, c, attention[level], e, dropout, level > 0, p))
        self.final = None if pyramid else nn.Sequential(group_norm(c), nn.SiLU(), conv(c, c_input, scale=0.0))

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """x [B, 1, F, T] and y [B, inputs - 1, F, T] complex, t [B] -> complex [B, 1, F, T].

        F must be `freq_bins` and T a multiple of `frame_multiple` (ValueError otherwise).
        """
        self._check(x)
        e = self.embedding(t)
        pyramid = self._fold(torch.cat([x, y], 1))
        h = self.input_layer(pyramid)
        skips = [h]
        for level in self.encoder:
            h, pyramid, new = level(h, pyramid, e)
            skips += new
        for block in self.bottleneck:
            h = block(h) if isinstance(block, Attention) else block(h, e)
        out = None
        for level in self.decoder:
            h, out = level(h, out, skips, e)
        return self._unfold(self._output(h if out is None else out, t))

    def _check(self, x: Tensor) -> None:
        if x.shape[-2] != self.freq_bins or x.shape[-1] % self.frame_multiple:
            raise ValueError(
                f"NCSNpp takes {self.freq_bins} frequency bins and frames in multiples of "
                f"{self.frame_multiple}, not {x.shape[-2]} x {x.shape[-1]}"
            )

    def _output(self, h: Tensor, t: Tensor) -> Tensor:
        if self.final is not None:
            h = self.final(h)
        if self.output_scaling == "before":
            h = h / t[:, None, None, None]
        h = self.output_layer(h)
        return h / t[:, None, None, None] if self.output_scaling == "after" else h

    def _fold(self, z: Tensor) -> Tensor:
        """Complex [B, n, F, T] -> real [B, 2 n stem, F / stem, T], real part before imaginary part."""
        parts = torch.stack([z.real, z.imag], 2).flatten(1, 2)
        if self.stem == 1:
            return parts
        b, c, f, frames = parts.shape
        folded = parts.reshape(b, c, f // self.stem, self.stem, frames).transpose(2, 3)
        return folded.reshape(b, c * self.stem, f // self.stem, frames)

    def _unfold(self, h: Tensor) -> Tensor:
        """Real [B, 2 stem, F / stem, T] -> complex [B, 1, F, T]."""
        if self.stem > 1:
            b, _, f, frames = h.shape
            h = h.reshape(b, 2, self.stem, f, frames).transpose(2, 3).reshape(b, 2, f * self.stem, frames)
        return torch.complex(h[:, 0:1].float(), h[:, 1:2].float())


_PUBLISHED_PARTS = {
    "norm_0": "GroupNorm_0", "conv_0": "Conv_0", "dense": "Dense_0", "norm_1": "GroupNorm_1",
    "conv_1": "Conv_1", "shortcut": "Conv_2", "norm": "GroupNorm_0",
}  # fmt: skip


def published_names(network: NCSNpp) -> dict[str, str]:
    """Own parameter name -> name in the published state dict, for importers and golden tests."""
    names: dict[str, str] = {}
    units: list[str] = []  # own prefixes of the published `all_modules`, in their order
    for name, _ in network.named_parameters():
        if name.startswith("output_layer"):
            names[name] = name
            continue
        unit, rest = _split_unit(network, name)
        if unit not in units:
            units.append(unit)
        names[name] = f"all_modules.{units.index(unit)}.{rest}"
    return names


def _split_unit(network: NCSNpp, name: str) -> tuple[str, str]:
    """The smallest enclosing published unit of a parameter, and its published name inside that unit."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        unit = ".".join(parts[:depth])
        module, rest = network.get_submodule(unit), parts[depth:]
        if isinstance(module, FourierEmbedding):
            return unit, "W"
        if isinstance(module, ResBlock):
            return unit, f"{_PUBLISHED_PARTS[rest[0]]}.{rest[1]}"
        if isinstance(module, Attention):
            if rest[0] == "projections":
                return unit, f"NIN_{rest[1]}.{'W' if rest[2] == 'weight' else 'b'}"
            return unit, f"GroupNorm_0.{rest[1]}"
        if parts[depth - 1] == "combine":
            return unit, f"Conv_0.{rest[0]}"
    return ".".join(parts[:-1]), parts[-1]
