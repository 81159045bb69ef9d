"""Recurrent variational autoencoder of speech power, non-causal form.

Leglaive, Alameda-Pineda, Girin and Horaud, "A recurrent variational autoencoder for speech enhancement",
ICASSP 2020; Bie et al., "Unsupervised speech enhancement using dynamical variational autoencoders", IEEE/ACM
TASLP 30, 2022. Speech is s_ft ~ N_C(0, v_ft(z)) with latent z_t ~ N(0, I), t = 1 ... T.
"""

from typing import Literal

import torch
from torch import Tensor, nn


class RVAE(nn.Module):
    """Decoder: z through a bidirectional LSTM gives ln v. Encoder: q(z_t | z_1 ... z_{t-1}, all of s).

    Args:
        freq_bins: F. latent: size L of z_t. hidden: units of each LSTM direction.
        features: what the encoder sees of s: its power, as in the papers, or the logarithm of it.
    """

    frame_multiple = 1

    def __init__(
        self,
        freq_bins: int = 256,
        latent: int = 16,
        hidden: int = 128,
        features: Literal["power", "log"] = "power",
    ) -> None:
        super().__init__()
        self.freq_bins, self.latent, self.features = freq_bins, latent, features
        self.encoder = nn.LSTM(freq_bins, hidden, batch_first=True, bidirectional=True)
        self.chain = nn.LSTMCell(latent, hidden)
        self.posterior = nn.Linear(3 * hidden, 2 * latent)
        self.decoder = nn.LSTM(latent, hidden, batch_first=True, bidirectional=True)
        self.log_variance = nn.Linear(2 * hidden, freq_bins)

    def train(self, mode: bool = True) -> "RVAE":
        """As usual, but the decoder's LSTM stays in training mode.

        cuDNN gives gradients with respect to z in that mode only, and without dropout it computes the same.
        """
        super().train(mode)
        self.decoder.train()
        return self

    def forward(self, power: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ln v [B, F, T] of one sample of z, and mean and log variance of q [B, T, L]; see `encode`."""
        z, mean, log_var = self.encode(power, noise)
        return self.decode(z), mean, log_var

    def encode(self, power: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """power [B, F, T] > 0 and noise [B, T, L] ~ N(0, I) -> z, mean and log variance of q, each [B, T, L].

        z_t = mean_t + std_t noise_t enters the chain that leads to z_{t+1}. Noise 0 follows the means.
        """
        self._check(power)
        seen, _ = self.encoder((power.log() if self.features == "log" else power).mT)
        state = (seen.new_zeros(len(seen), self.chain.hidden_size),) * 2
        z = seen.new_zeros(len(seen), self.latent)
        steps = []
        for seen_t, noise_t in zip(seen.unbind(1), noise.unbind(1), strict=True):
            state = self.chain(z, state)
            mean, log_var = self.posterior(torch.cat([seen_t, state[0]], 1)).chunk(2, 1)
            z = mean + torch.exp(log_var / 2) * noise_t
            steps.append((z, mean, log_var))
        z, mean, log_var = (torch.stack(values, 1) for values in zip(*steps, strict=True))
        return z, mean, log_var

    def decode(self, z: Tensor) -> Tensor:
        """z [B, T, L] -> ln v [B, F, T]."""
        return self.log_variance(self.decoder(z)[0]).mT

    def _check(self, power: Tensor) -> None:
        if power.shape[-2] != self.freq_bins:
            raise ValueError(f"RVAE takes {self.freq_bins} frequency bins, not {power.shape[-2]}")
