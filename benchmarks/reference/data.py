"""Training crops as published code reads them: whole files, one transform per signal."""

from pathlib import Path

import numpy as np
import soundfile
import torch


def compress(X: torch.Tensor, factor: float) -> torch.Tensor:
    """Amplitude compression, by magnitude and angle apart."""
    return factor * X.abs() ** 0.5 * torch.exp(1j * X.angle())


class Crops:
    """Training crops of pairs of wav files in `folder`."""

    def __init__(self, folder: Path, pairs: int, frames: int, factor: float):
        self.folder, self.pairs, self.frames, self.factor = folder, pairs, frames, factor
        self.window, self.rng = torch.hann_window(510), np.random.default_rng(0)

    def sample(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        stem = f"{k % self.pairs:05d}"
        waves = [
            torch.from_numpy(soundfile.read(self.folder / f"{stem}_{name}.wav", dtype="float32")[0])
            for name in ("clean", "noisy")
        ]
        length = (self.frames - 1) * 128
        start = int(self.rng.integers(len(waves[0]) - length))
        clean, noisy = (wave[start : start + length] for wave in waves)
        peak = noisy.abs().max()
        return self.transform(clean / peak), self.transform(noisy / peak)

    def transform(self, wave: torch.Tensor) -> torch.Tensor:
        X = torch.stft(wave, 510, 128, window=self.window, center=True, return_complex=True)
        return compress(X, self.factor)

    def batch(self, step: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = [self.sample(k) for k in range(step * batch, (step + 1) * batch)]
        return torch.stack([clean for clean, _ in pairs]), torch.stack([noisy for _, noisy in pairs])
