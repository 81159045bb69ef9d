"""NCSN++ for complex spectrograms (SGMSE+, paper 000, section III-B), at any width and depth.

The published network is `NCSNpp()`. Modules are registered in the published order, so that weights can be
taken over by position (`published_names`).
"""

from dataclasses import dataclass

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
from diffse.networks.folding import fold, unfold


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


@dataclass(frozen=True)
class _Plan:
    """What the levels of one network share."""

    channels: list[int]  # of every level
    attention: list[bool]  # whether a level has it
    blocks: int  # residual blocks per level of the encoder; the decoder has one more
    embedding: int  # width of the time embedding; 0: none
    dropout: float
    pyramid: int  # channels of the pyramids; 0: none


def _encoder(plan: _Plan, nf: int) -> tuple[nn.ModuleList, list[int]]:
    """The encoder's levels and the channels of every skip connection."""
    levels, widths = nn.ModuleList(), [nf]
    for level, c in enumerate(plan.channels):
        down = level + 1 < len(plan.channels)
        args = (plan.attention[level], plan.embedding, plan.dropout, down, plan.pyramid)
        levels.append(EncoderLevel(widths[-1], c, plan.blocks, *args))
        widths += [c] * (plan.blocks + down)
    return levels, widths


def _bottleneck(plan: _Plan, attention: bool) -> nn.ModuleList:
    c = plan.channels[-1]
    blocks = nn.ModuleList(ResBlock(c, c, plan.embedding, plan.dropout) for _ in range(2))
    if attention:
        blocks.insert(1, Attention(c))
    return blocks


def _decoder(plan: _Plan, widths: list[int]) -> nn.ModuleList:
    """The decoder's levels, which take the skip connections of these widths from the last on."""
    levels, widths, c = nn.ModuleList(), list(widths), plan.channels[-1]
    for level in reversed(range(len(plan.channels))):
        c_ins = []
        for _ in range(plan.blocks + 1):
            c_ins.append(c + widths.pop())
            c = plan.channels[level]
        args = (plan.attention[level], plan.embedding, plan.dropout, level > 0, plan.pyramid)
        levels.append(DecoderLevel(c_ins, c, *args))
    return levels


class NCSNpp(nn.Module):
    """U-Net with residual FIR resampling, attention, and input and output pyramids.

    NCSN++M (paper 002, section IV-B) is ch_mult (1, 2, 2, 2), num_res_blocks 1, attn_resolutions ().

    Args:
        inputs: complex spectrograms that go in: the state and its conditions.
        nf: channels of the first level. ch_mult: channels of each level, times nf.
        attn_resolutions: frequency bins of the levels with attention (after the stem).
        stem: neighbouring frequency bins folded into channels; 1 is the published network.
        output_scaling: divide by t before or after the last 1x1 convolution, or not at all.
        conditional: False leaves out everything that depends on t (predictive systems).
        centered: False maps every input channel v to 2 v - 1, as StoRM's published code does.
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
        conditional: bool = True,
        centered: bool = True,
    ) -> None:
        super().__init__()
        if not conditional and output_scaling != "none":
            raise ValueError(f"NCSNpp without t cannot divide by it: output_scaling is {output_scaling!r}")
        self.freq_bins, self.stem, self.output_scaling = freq_bins, stem, output_scaling
        self.conditional, self.centered = conditional, centered
        self.frame_multiple = 2 ** (len(ch_mult) - 1)
        c, e = 2 * inputs * stem, 4 * nf if conditional else 0
        attention = [freq_bins // stem >> level in attn_resolutions for level in range(len(ch_mult))]
        channels = [nf * m for m in ch_mult]
        plan = _Plan(channels, attention, num_res_blocks, e, dropout, c if pyramid else 0)
        self.output_layer = nn.Conv2d(c, 2 * stem, 1)
        if zero_output:
            nn.init.zeros_(self.output_layer.bias)
        self.embedding = Embedding(nf, fourier_scale) if conditional else None
        self.input_layer = conv(c, nf)
        self.encoder, widths = _encoder(plan, nf)
        self.bottleneck = _bottleneck(plan, bottleneck_attention)
        self.decoder = _decoder(plan, widths)
        self.final = None if pyramid else _last_layers(channels[0], c)

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """x [B, 1, F, T] and y [B, inputs - 1, F, T] complex, t [B] -> complex [B, 1, F, T].

        F must be `freq_bins` and T a multiple of `frame_multiple` (ValueError otherwise). A network that is
        not `conditional` ignores t.
        """
        self._check(x)
        e = None if self.embedding is None else self.embedding(t)
        pyramid = fold(torch.cat([x, y], 1), self.stem)
        if not self.centered:
            pyramid = 2 * pyramid - 1
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
        return unfold(self._output(h if out is None else out, t), self.stem)

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


def _last_layers(c_in: int, c_out: int) -> nn.Sequential:
    """What stands in for the output pyramid."""
    return nn.Sequential(group_norm(c_in), nn.SiLU(), conv(c_in, c_out, scale=0.0))


_PUBLISHED_PARTS = {
    "norm_0": "GroupNorm_0", "conv_0": "Conv_0", "dense": "Dense_0", "norm_1": "GroupNorm_1",
    "conv_1": "Conv_1", "shortcut": "Conv_2", "norm": "GroupNorm_0",
}  # fmt: skip


def published_names(network: NCSNpp) -> dict[str, str]:
    """Own parameter name -> name in the published state dict, for importers and golden tests."""
    names: dict[str, str] = {}
    # Own prefixes of the published `all_modules`, in their order. The Fourier features keep their place there
    # even in a network that does not use them.
    units: list[str] = ["embedding.fourier"]
    for name, _ in network.named_parameters():
        if name.startswith("output_layer"):
            names[name] = name
            continue
        unit, rest = _split_unit(network, name)
        if unit not in units:
            units.append(unit)
        names[name] = f"all_modules.{units.index(unit)}.{rest}"
    return names


def published_unused(network: NCSNpp) -> list[str]:
    """Names in the published state dict of a network that is not `conditional` and that uses none of them.

    They are the Fourier frequencies and the time projection of every residual block.
    """
    if network.conditional:
        return []
    projections = [
        published.replace("Conv_0", "Dense_0")
        for own, published in published_names(network).items()
        if own.endswith(("conv_0.weight", "conv_0.bias"))
    ]
    return ["all_modules.0.W", *projections]


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
