"""MP-ADM for complex spectrograms: the magnitude-preserving U-Net of EDM2SE (paper 001, section 3.2).

The published network is `MPADM(balance="raw")` up to parameters that it owns and never uses. The condition is
added in every encoder block, at the block's resolution, with a learned balance (eq. 26).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from diffse.networks.folding import fold, unfold
from diffse.networks.magnitude import (
    SILU_GAIN,
    MPAttention,
    MPConv,
    MPFourier,
    mp_cat,
    mp_silu,
    pixel_norm,
    sum_weights,
)


@dataclass(frozen=True)
class _Shared:
    """What all blocks of a network have in common."""

    embedding: int  # size of the noise embedding
    conditions: int  # real channels of the folded condition, 0 without one
    channels_per_head: int
    balance: str
    dropout: float
    res_balance: float
    attn_balance: float
    clip: float


class Condition(nn.Module):
    """Adds the condition to the features: mp_sum(h, pixel_norm(conv(y)), t) with learned t (eq. 26)."""

    def __init__(self, channels: int, shared: _Shared) -> None:
        super().__init__()
        self.sigmoid = shared.balance == "sigmoid"
        self.balance = nn.Parameter(torch.tensor(0.0 if self.sigmoid else 0.5))  # half and half
        self.conv = MPConv(shared.conditions, channels, 1)

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        keep, add = sum_weights(self.balance.sigmoid() if self.sigmoid else self.balance)
        return torch.addcmul(pixel_norm(self.conv(y), gain=add), h, keep)


class Block(nn.Module):
    """Residual block; what encoder and decoder blocks share. `resample` is "down", "up" or None."""

    def __init__(self, c_in: int, c_out: int, attention: bool, shared: _Shared, resample=None) -> None:
        super().__init__()
        self.resample, self.clip = resample, shared.clip
        self.keep, self.add = sum_weights(shared.res_balance)
        self.gain = nn.Parameter(torch.zeros(()))
        self.embedding = MPConv(shared.embedding, c_out, 0)
        self.dropout = nn.Dropout(shared.dropout) if shared.dropout else nn.Identity()
        self.attention = None
        if attention:
            self.attention = MPAttention(c_out, shared.channels_per_head, shared.attn_balance)

    def _merge(self, x: Tensor, h: Tensor, e: Tensor) -> Tensor:
        """Magnitude-preserving sum of x and the residual branch; h is what its first convolution gave."""
        h = h * (1 + self.embedding(e, gain=self.gain))[:, :, None, None]
        h = self.conv_1(self.dropout(nnf.silu(h)), gain=SILU_GAIN * self.add)
        return torch.add(h, x, alpha=self.keep)

    def _finish(self, h: Tensor) -> Tensor:
        if self.attention is not None:
            h = self.attention(h)
        return nnf.hardtanh(h, -self.clip, self.clip)  # its slope takes one pass over h, that of clamp four


class EncoderBlock(Block):
    """Shortcut and pixel norm before the residual branch, condition after it, then attention."""

    def __init__(self, c_in: int, c_out: int, attention: bool, shared: _Shared, resample=None) -> None:
        super().__init__(c_in, c_out, attention, shared, resample)
        self.conv_0, self.conv_1 = MPConv(c_out, c_out, 3), MPConv(c_out, c_out, 3)
        self.shortcut = MPConv(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.condition = Condition(c_out, shared) if shared.conditions else None

    def forward(self, x: Tensor, y: Tensor, e: Tensor) -> Tensor:
        """x [B, c_in, F, T], y the condition at the output's resolution, e the embedding."""
        if self.resample == "down":
            x = nnf.avg_pool2d(x, 2)
        x = pixel_norm(self.shortcut(x))
        h = self._merge(x, self.conv_0(nnf.silu(x), gain=SILU_GAIN), e)
        return self._finish(h if self.condition is None else self.condition(h, y))


class DecoderBlock(Block):
    """Shortcut beside the residual branch, then attention; `skip` channels come from the encoder."""

    def __init__(self, c_in, c_out, attention: bool, shared: _Shared, resample=None, skip: int = 0) -> None:
        super().__init__(c_in + skip, c_out, attention, shared, resample)
        self.takes_skip = skip > 0
        self.conv_0, self.conv_1 = MPConv(c_in + skip, c_out, 3), MPConv(c_out, c_out, 3)
        self.shortcut = MPConv(c_in + skip, c_out, 1) if c_in + skip != c_out else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """x [B, c_in + skip, F, T], e the embedding."""
        if self.resample != "up":
            return self._finish(self._merge(self.shortcut(x), self.conv_0(nnf.silu(x), gain=SILU_GAIN), e))
        h = self.conv_0.of_doubled(nnf.silu(x), gain=SILU_GAIN)
        x = nnf.interpolate(self.shortcut(x), scale_factor=2.0, mode="nearest")
        return self._finish(self._merge(x, h, e))


class MPADM(nn.Module):
    """Magnitude-preserving U-Net with a noise label, a condition and a head for the log-variance.

    Args:
        inputs: complex spectrograms that go in: the state and its conditions.
        model_channels: channels of the first level. channel_mult: channels of each level, times these.
        num_blocks: blocks per encoder level; decoder levels have one more.
        attn_resolutions: frequency bins of the levels with attention (after the stem).
        stem: neighbouring frequency bins folded into channels; 1 is the published network.
        balance: the learned balance of the condition is the sigmoid of a parameter (the paper), or the
            parameter itself (the published code).
        clip: largest magnitude of a feature.
        res_balance, attn_balance, concat_balance: share of the residual branch, attention and skip connection.
        logvar_channels: Fourier features of the log-variance head.
    """

    def __init__(
        self,
        inputs: int = 2,
        model_channels: int = 128,
        channel_mult: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2),
        num_blocks: int = 2,
        attn_resolutions: tuple[int, ...] = (16,),
        channels_per_head: int = 64,
        freq_bins: int = 256,
        stem: int = 1,
        balance: Literal["sigmoid", "raw"] = "sigmoid",
        dropout: float = 0.0,
        clip: float = 256.0,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        concat_balance: float = 0.5,
        logvar_channels: int = 128,
    ) -> None:
        super().__init__()
        self.inputs, self.freq_bins, self.stem = inputs, freq_bins, stem
        self.frame_multiple = 2 ** (len(channel_mult) - 1)
        self.concat_balance = concat_balance
        _check_options(freq_bins, stem * self.frame_multiple, balance)
        channels = [model_channels * m for m in channel_mult]
        bins = [freq_bins // stem >> level for level in range(len(channels))]
        shared = _Shared(
            max(channels), 2 * (inputs - 1) * stem, channels_per_head, balance, dropout,
            res_balance, attn_balance, clip,
        )  # fmt: skip
        attention = [b in attn_resolutions for b in bins]
        self.fourier = MPFourier(model_channels)
        self.embedding = MPConv(model_channels, shared.embedding, 0)
        self.input_layer = MPConv(2 * stem + 1, channels[0], 3)
        self.encoder, widths = _encoder(channels, bins, attention, num_blocks, shared)
        self.decoder = _decoder(channels, bins, attention, num_blocks, shared, widths)
        self.output_gain = nn.Parameter(torch.zeros(()))
        self.output_layer = MPConv(channels[0], 2 * stem, 3)
        self.logvar_fourier = MPFourier(logvar_channels)
        self.logvar_linear = MPConv(logvar_channels, 1, 0)
        self.normalise_weights_()

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """x [B, 1, F, T] and y [B, inputs - 1, F, T] complex, noise label t [B] -> complex [B, 1, F, T].

        F must be `freq_bins` and T a multiple of `frame_multiple` (ValueError otherwise).
        """
        self._check(x, y)
        e = mp_silu(self.embedding(self.fourier(t)))
        x, y = fold(x, self.stem), fold(y, self.stem)
        h = self.input_layer(torch.cat([x, torch.ones_like(x[:, :1])], 1))
        skips = [h]
        for block in self.encoder.values():
            if block.resample == "down" and block.condition is not None:
                y = nnf.avg_pool2d(y, 2)
            h = block(h, y, e)
            skips.append(h)
        for block in self.decoder.values():
            h = block(mp_cat(h, skips.pop(), self.concat_balance) if block.takes_skip else h, e)
        return unfold(self.output_layer(h, gain=self.output_gain), self.stem)

    def logvar(self, t: Tensor) -> Tensor:
        """Log-variance u of the loss at noise label t: [B] -> [B]."""
        return self.logvar_linear(self.logvar_fourier(t))[:, 0]

    def normalise_weights_(self) -> None:
        """Rescale all stored filters to norm sqrt(their size), in place: to be called after optimiser steps.

        The network's output hardly changes; the steps that follow keep their size relative to the weights.
        """
        for module in self.modules():
            if isinstance(module, MPConv):
                module.normalise_()

    def _check(self, x: Tensor, y: Tensor) -> None:
        if x.shape[-2] != self.freq_bins or x.shape[-1] % self.frame_multiple:
            raise ValueError(
                f"MPADM takes {self.freq_bins} frequency bins and frames in multiples of "
                f"{self.frame_multiple}, not {x.shape[-2]} x {x.shape[-1]}"
            )
        if x.shape[1] != 1 or y.shape[1] != self.inputs - 1:
            raise ValueError(
                f"MPADM takes 1 state and {self.inputs - 1} conditions, not {x.shape[1]} and {y.shape[1]}"
            )


def _check_options(freq_bins: int, multiple: int, balance: str) -> None:
    if freq_bins % multiple:
        raise ValueError(
            f"MPADM of this stem and depth takes frequency bins in multiples of {multiple}, not {freq_bins}"
        )
    if balance not in ("sigmoid", "raw"):
        raise ValueError(f"MPADM balance is 'sigmoid' or 'raw', not '{balance}'")


def _encoder(channels, bins, attention, num_blocks, shared) -> tuple[nn.ModuleDict, list[int]]:
    """Blocks of the encoder by name (frequency bins and kind), and the channels of every skip connection."""
    encoder = nn.ModuleDict()
    c, widths = channels[0], [channels[0]]
    for level, c_level in enumerate(channels):
        if level > 0:
            encoder[f"{bins[level]}_down"] = EncoderBlock(c, c, False, shared, "down")
            widths.append(c)
        for index in range(num_blocks):
            encoder[f"{bins[level]}_block{index}"] = EncoderBlock(c, c_level, attention[level], shared)
            c = c_level
            widths.append(c)
    return encoder, widths


def _decoder(channels, bins, attention, num_blocks, shared, widths: list[int]) -> nn.ModuleDict:
    """Blocks of the decoder by name; `widths` are the channels of the encoder's skip connections."""
    decoder, c, widths = nn.ModuleDict(), channels[-1], list(widths)
    for level in reversed(range(len(channels))):
        if level == len(channels) - 1:
            decoder[f"{bins[level]}_in0"] = DecoderBlock(c, c, True, shared)
            decoder[f"{bins[level]}_in1"] = DecoderBlock(c, c, False, shared)
        else:
            decoder[f"{bins[level]}_up"] = DecoderBlock(c, c, False, shared, "up")
        for index in range(num_blocks + 1):
            block = DecoderBlock(c, channels[level], attention[level], shared, skip=widths.pop())
            decoder[f"{bins[level]}_block{index}"] = block
            c = channels[level]
    return decoder


_PUBLISHED_UNITS = {
    "fourier": "unet.emb_fourier", "embedding": "unet.emb_noise", "output_layer": "unet.out_conv",
    "output_gain": "unet.out_gain", "encoder": "unet.enc", "decoder": "unet.dec",
}  # fmt: skip
_PUBLISHED_PARTS = {
    "gain": "emb_gain", "embedding": "emb_linear", "conv_0": "conv_res0", "conv_1": "conv_res1",
    "shortcut": "conv_skip", "condition.balance": "cond_balance", "condition.conv": "conv_cond",
    "attention.qkv": "attn_qkv", "attention.projection": "attn_proj",
}  # fmt: skip


def published_names(network: MPADM) -> dict[str, str]:
    """Own name of every parameter and buffer -> name in the published state dict."""
    return {own: _published_name(network, own) for own in network.state_dict()}


def published_unused(network: MPADM) -> list[str]:
    """Names in the published state dict of parameters that no output depends on, and that are not here.

    Every published block owns attention weights, whether it has attention or not, and every decoder block a
    balance and a projection for a condition that only encoder blocks add.
    """
    names = []
    for part, blocks in (("enc", network.encoder), ("dec", network.decoder)):
        for name, block in blocks.items():
            unused = ["attn_qkv.weight", "attn_proj.weight"] if block.attention is None else []
            unused += ["cond_balance", "conv_cond.weight"] if part == "dec" else []
            names += [f"unet.{part}.{name}.{rest}" for rest in unused]
    return names


def _published_name(network: MPADM, own: str) -> str:
    unit, _, rest = own.partition(".")
    if unit == "input_layer":
        return f"unet.enc.{network.freq_bins // network.stem}_conv.{rest}"
    if unit in ("encoder", "decoder"):
        block, _, rest = rest.partition(".")
        part = rest.removesuffix(".weight")
        return f"{_PUBLISHED_UNITS[unit]}.{block}.{_PUBLISHED_PARTS[part]}{rest[len(part) :]}"
    name = _PUBLISHED_UNITS.get(unit, unit) + ("." + rest if rest else "")
    return name.replace(".frequencies", ".freqs")
