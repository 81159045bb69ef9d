"""Complex spectrograms as the real channels of a network, and back."""

import torch
from torch import Tensor


def fold(z: Tensor, stem: int = 1) -> Tensor:
    """Complex [B, n, F, T] -> real [B, 2 n stem, F / stem, T], real part before imaginary part.

    `stem` neighbouring frequency bins become channels, which makes a network `stem` times cheaper per channel.
    """
    parts = torch.stack([z.real, z.imag], 2).flatten(1, 2)
    if stem == 1:
        return parts
    b, c, f, frames = parts.shape
    folded = parts.reshape(b, c, f // stem, stem, frames).transpose(2, 3)
    return folded.reshape(b, c * stem, f // stem, frames)


def unfold(h: Tensor, stem: int = 1) -> Tensor:
    """Real [B, 2 stem, F / stem, T] -> complex [B, 1, F, T]; undoes `fold` for one spectrogram."""
    if stem > 1:
        b, _, f, frames = h.shape
        h = h.reshape(b, 2, stem, f, frames).transpose(2, 3).reshape(b, 2, f * stem, frames)
    return torch.complex(h[:, 0:1].float(), h[:, 1:2].float())
