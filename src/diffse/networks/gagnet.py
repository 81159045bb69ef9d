"""GaGNet, non-causal (Li, Zheng, Zhang and Li 2022): glance at the magnitude, gaze at the complex residual.

Inside, tensors are real, [B, C, F, T] or [B, C, T]. The published size is `GaGNet()`. Where the paper's text
leaves a choice open, the published number of parameters decided; the names of the published weights are not
known here, so there is no `published_names`.
"""

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

_DEPTHS = (4, 3, 2, 1, 0)  # levels of the small U-Net behind every encoder layer
_OCTAVES = 2 ** len(_DEPTHS)  # every encoder layer halves the frequency axis


def norm_2d(channels: int) -> nn.Sequential:
    """Instance normalisation over frequency and time, then PReLU per channel."""
    return nn.Sequential(nn.InstanceNorm2d(channels, affine=True), nn.PReLU(channels))


class GatedConv(nn.Module):
    """Convolution times the sigmoid of another one; halves frequency and looks one frame back."""

    def __init__(self, c_in: int, c_out: int, bins: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(c_in, 2 * c_out, (bins, 2), stride=(2, 1))
        self.norm = norm_2d(c_out)

    def forward(self, h: Tensor) -> Tensor:
        """[B, c_in, F, T] -> [B, c_out, (F - bins) / 2 + 1, T]."""
        return self.norm(nnf.glu(self.convolution(nnf.pad(h, (1, 0))), 1))


class FrequencyUNet(nn.Module):
    """U-Net along frequency, added to its input ("recalibration"); skips are concatenated."""

    def __init__(self, c: int, depth: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c, (3, 1), stride=(2, 1)), norm_2d(c)) for _ in range(depth)
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(c if level == 0 else 2 * c, c, (3, 1), stride=(2, 1)), norm_2d(c))
            for level in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, F, T] -> same shape; F + 1 must be a multiple of 2 ** depth."""
        h, skips = x, []
        for layer in self.down:
            h = layer(h)
            skips.append(h)
        for level, layer in enumerate(self.up):
            skip = skips.pop()
            h = layer(h if level == 0 else torch.cat([h, skip], 1))
        return x + h if self.down else x


class Encoder(nn.Module):
    """Feature extraction: gated convolutions, each with a U-Net behind it, shallower as bins get fewer."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for index, depth in enumerate(_DEPTHS):
            gated = GatedConv(2, c, 5) if index == 0 else GatedConv(c, c, 3)
            self.layers.append(nn.Sequential(gated, FrequencyUNet(c, depth)))

    def forward(self, h: Tensor) -> Tensor:
        """[B, 2, 32 m + 1, T] -> [B, c (m - 1), T]."""
        for layer in self.layers:
            h = layer(h)
        return h.flatten(1, 2)


class SqueezedTCM(nn.Module):
    """Temporal convolution module: squeeze, dilated convolution, expand, add. Symmetric in time."""

    def __init__(self, features: int, squeeze: int, taps: int, dilation: int) -> None:
        super().__init__()
        padding = dilation * (taps - 1) // 2
        self.layers = nn.Sequential(
            nn.Conv1d(features, squeeze, 1, bias=False),
            nn.PReLU(squeeze),
            nn.InstanceNorm1d(squeeze, affine=True),
            nn.Conv1d(squeeze, squeeze, taps, padding=padding, dilation=dilation, bias=False),
            nn.PReLU(squeeze),
            nn.InstanceNorm1d(squeeze, affine=True),
            nn.Conv1d(squeeze, features, 1, bias=False),
        )

    def forward(self, h: Tensor) -> Tensor:
        """[B, features, T] -> same shape."""
        return h + self.layers(h)


class Fusion(nn.Module):
    """Features beside the current spectrum, through a gated 1x1 convolution."""

    def __init__(self, c_in: int, features: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(c_in, 2 * features, 1)

    def forward(self, h: Tensor) -> Tensor:
        """[B, c_in, T] -> [B, features, T]."""
        return nnf.glu(self.convolution(h), 1)


class GlanceGaze(nn.Module):
    """One stage: S <- sigmoid(glance) S + gaze, S the complex spectrum as [B, 2, F, T].

    A gain times |S| under the phase of S, which is how the paper says it, is a gain times S.
    """

    def __init__(self, encoded: int, bins: int, features: int, squeeze: int, taps: int, dilations) -> None:
        super().__init__()

        def path() -> nn.Sequential:
            modules = [SqueezedTCM(features, squeeze, taps, dilation) for dilation in dilations]
            return nn.Sequential(*modules, nn.Conv1d(features, bins, 1))

        self.glance_input = Fusion(encoded + 2 * bins, features)
        self.glance = path()
        self.gaze_input = Fusion(encoded + 2 * bins, features)
        self.gaze_re, self.gaze_im = path(), path()

    def forward(self, encoded: Tensor, s: Tensor) -> Tensor:
        """encoded [B, E, T], s [B, 2, F, T] -> [B, 2, F, T]."""
        h = torch.cat([encoded, s.flatten(1, 2)], 1)
        gain = torch.sigmoid(self.glance(self.glance_input(h)))
        h = self.gaze_input(h)
        return gain[:, None] * s + torch.stack([self.gaze_re(h), self.gaze_im(h)], 1)


class GaGNet(nn.Module):
    """Feature extraction, then stages of glance and gaze; predictive, for amplitude-compressed spectrograms.

    As StoRM's baseline uses it: the last stage's spectrum, through a tanh on both parts, is a complex mask on
    the input. The published size takes 257 bins; missing bins are zeros inside (one for an STFT of 256).

    Args:
        inputs: complex spectrograms that go in; only 1 is possible.
        freq_bins: frequency bins, at least 34 (ValueError).
        channels: channels of the encoder. features: channels between the temporal modules.
        stages: glance-gaze modules (q). groups: passes over `dilations` in each path (p).
        squeeze: channels inside a temporal module. taps: odd taps of its convolution.
    """

    frame_multiple = 1

    def __init__(
        self,
        inputs: int = 1,
        freq_bins: int = 256,
        channels: int = 64,
        features: int = 448,
        stages: int = 3,
        groups: int = 2,
        squeeze: int = 64,
        taps: int = 3,
        dilations: tuple[int, ...] = (1, 2, 5, 9),
    ) -> None:
        super().__init__()
        if inputs != 1:
            raise ValueError(f"GaGNet takes 1 input, not {inputs}")
        if freq_bins < _OCTAVES + 2:
            raise ValueError(f"freq_bins of GaGNet must be at least {_OCTAVES + 2}, not {freq_bins}")
        if taps % 2 == 0:
            raise ValueError(f"taps of GaGNet must be odd, not {taps}")
        self.freq_bins = freq_bins
        # 32 m + 1 bins, so that no layer and no level of the U-Nets leaves a bin over
        self.bins = -(-(freq_bins - 1) // _OCTAVES) * _OCTAVES + 1
        encoded = channels * (self.bins // _OCTAVES - 1)
        self.encoder = Encoder(channels)
        options = (encoded, self.bins, features, squeeze, taps, tuple(dilations) * groups)
        self.stages = nn.ModuleList(GlanceGaze(*options) for _ in range(stages))

    def forward(self, x: Tensor, y: Tensor | None = None, t: Tensor | None = None) -> Tensor:
        """x [B, 1, F, T] complex, the noisy spectrogram -> [B, 1, F, T]; y and t are ignored.

        F must be `freq_bins` (ValueError otherwise); T is free.
        """
        if x.shape[-2] != self.freq_bins:
            raise ValueError(f"GaGNet takes {self.freq_bins} frequency bins, not {x.shape[-2]}")
        z = nnf.pad(torch.cat([x.real, x.imag], 1), (0, 0, 0, self.bins - self.freq_bins))
        if x.shape[-1] == 1:  # instance normalisation over time needs two frames
            z = z.expand(-1, -1, -1, 2)
        encoded, s = self.encoder(z), z
        for stage in self.stages:
            s = stage(encoded, s)
        mask = torch.tanh(s[:, :, : self.freq_bins, : x.shape[-1]]).float()
        return x * torch.complex(mask[:, :1], mask[:, 1:])
