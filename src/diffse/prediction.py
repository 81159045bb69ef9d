"""Predictive systems: one mapping from noisy to clean speech, without a process (paper 002, section IV).

They answer to the same calls as generative objectives, so that training, enhancement and StoRM use them alike.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diffse.objectives import ERRORS, Conditions, Network, no_conditions
from diffse.spectrogram import Spectrogram


@dataclass(frozen=True)
class Regression:
    """Prediction of x_0 from y alone: the networks of paper 002's predictive baselines.

    `error`: "squared" 1/2 sum |x_hat - x_0|^2 of the compressed spectrograms (published), "absolute" 1/2 sum
    |x_hat - x_0|, or "si_sdr", the negative SI-SDR of the waveforms in dB, which needs `spectrogram`.
    """

    network: Network
    error: Literal["squared", "absolute", "si_sdr"] = "squared"
    spectrogram: Spectrogram | None = None

    def prepare(self, y: Tensor) -> Conditions:
        """The noisy input is the end; the network sees nothing beside it."""
        return Conditions(y, no_conditions(y))

    def denoise(self, x_t: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """x_hat_0 = F(y); x_t and t do not matter."""
        y = conditions.end
        return self.network(y, conditions.seen, torch.ones(len(y), device=y.device, dtype=y.real.dtype))

    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Error of x_hat_0 per example: [B]; t and z do not matter."""
        return self.loss_given(x_0, self.prepare(y), t, z)

    def loss_given(self, x_0: Tensor, conditions: Conditions, t: Tensor, z: Tensor) -> Tensor:
        """`loss` for prepared conditions: [B]."""
        x_hat = self.denoise(conditions.end, conditions, t)
        if self.error != "si_sdr":
            return ERRORS[self.error](x_hat - x_0)
        estimate, clean = waveforms(self.spectrogram, torch.cat([x_hat, x_0], 1)).unbind(1)
        return -si_sdr(clean, estimate)


def si_sdr(clean: Tensor, estimate: Tensor, floor: float = 1e-10) -> Tensor:
    """10 lg |a s|^2 / |a s - s_hat|^2 with a = <s_hat, s> / |s|^2, in dB, for real [B, L]: [B].

    `floor` is added to each mean power: a silent pair gives 0 dB, and no result or gradient is infinite.
    """
    gain = (estimate * clean).mean(1) / (clean.square().mean(1) + floor)
    target = gain[:, None] * clean
    powers = target.square().mean(1) + floor, (target - estimate).square().mean(1) + floor
    return 10 * torch.log10(powers[0] / powers[1])


def waveforms(spectrogram: Spectrogram, X: Tensor) -> Tensor:
    """Compressed complex [..., F, T] -> real [..., (T - 1) hop], at least one sample."""
    return spectrogram.synthesise(X, max((X.shape[-1] - 1) * spectrogram.hop, 1))


class InWaveform(nn.Module):
    """A network that works on waveforms, [B, n, L] -> [B, 1, L] (Conv-TasNet), among those for spectrograms.

    x and the conditions are turned into (T - 1) hop samples each; the estimate is turned back into T frames.
    """

    frame_multiple = 1

    def __init__(self, network: nn.Module, spectrogram: Spectrogram) -> None:
        super().__init__()
        self.network = network
        self.spectrogram = spectrogram
        self.freq_bins = spectrogram.freq_bins

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """x [B, 1, F, T] and y [B, n, F, T] complex, any T >= 1; t is not used -> complex [B, 1, F, T].

        ValueError when F is not that of the spectrogram.
        """
        if x.shape[-2] != self.freq_bins:
            raise ValueError(f"InWaveform takes {self.freq_bins} frequency bins, not {x.shape[-2]}")
        estimate = self.network(waveforms(self.spectrogram, torch.cat([x, y], 1)))
        return self.spectrogram.analyse(estimate)[..., : x.shape[-1]]
