"""What a training run is fed with: settings completed from the data, crops, learning rates, times and noise."""

import dataclasses
import hashlib
import math
from pathlib import Path

import torch
from torch import Tensor

from diffse import paths, recipes, settings
from diffse.data import statistics
from diffse.data.batches import CropSource, MixtureWaves, WaveSource, cached_crops
from diffse.errors import DiffseError


def resolved(train: settings.Train, root: Path, corpus: str) -> settings.Train:
    """Settings with what is estimated from the training data filled in (paper 001, section 4)."""
    objective = train.objective
    if not isinstance(objective, settings.EDM2SE) or None not in (objective.sigma_x, objective.sigma_n):
        return train
    if train.stft is not None:
        raise DiffseError(
            "'diffse estimate' measures the levels of the cache's spectrograms; a recipe with an stft of its "
            "own needs objective.sigma_x and objective.sigma_n"
        )
    found = statistics.read(paths.statistics(root, corpus))
    estimates = {
        name: getattr(objective, name) or float(f"{train.factor * found[name]:.4g}")
        for name in ("sigma_x", "sigma_n")
    }
    return dataclasses.replace(train, objective=dataclasses.replace(objective, **estimates))


def crop_source(
    train: settings.Train, cached: settings.Stft, cache: Path, mixtures: Path
) -> CropSource | WaveSource:
    """Crops from the cache, or from the audio for a recipe with a transform of its own."""
    options = {"normalise": train.normalise, "peak_of": train.peak_of, "short": train.short}
    if train.stft is None:
        return cached_crops(cache, "train", train.frames, train.factor, train.seed, cached, **options)
    spectrogram = recipes.build_spectrogram(train.stft, train.factor)
    return WaveSource(MixtureWaves(mixtures, "train"), spectrogram, train.frames, train.seed, **options)


def leaves_weights_unused(train: settings.Train) -> bool:
    """Whether some steps give a part of the weights no gradient, which several processes must be told."""
    if train.predictor is not None:
        return train.predictor.pretrain_steps > 0 or not train.predictor.fine_tune
    head = isinstance(train.objective, settings.EDM2SE) and train.objective.uncertainty
    return isinstance(train.network, settings.MPADM) and not head


def learning_rate(train: settings.Train, step: int) -> float:
    """Rate at `step` (from 0): linear warm-up, constant, linear fall to zero after `decay_from`.

    With `inverse_sqrt_from` it falls as 1/sqrt(step) after that step, during the warm-up too (EDM2SE).
    """
    warm = min(1.0, (step + 1) / train.warmup_steps) if train.warmup_steps else 1.0
    if train.inverse_sqrt_from:
        warm /= math.sqrt(max((step + 1) / train.inverse_sqrt_from, 1.0))
    start = train.decay_from * train.steps
    fall = 1.0 if step < start else (train.steps - step) / max(train.steps - start, 1)
    return train.lr * min(warm, fall)


def draw_times_and_noise(train: settings.Train, indices: list[int], shape: torch.Size) -> tuple[Tensor, Tensor]:
    """t [B] on [t_min, 1] and complex noise z [B, *shape], E|z|^2 = 1, each from (seed, sample number)."""
    times, noises = [], []
    for k in indices:
        generator = torch.Generator().manual_seed(sample_seed(train.seed, int(k)))
        chance, place = torch.rand(2, generator=generator)
        uniform = train.times.t_min + (1 - train.times.t_min) * place
        times.append(torch.ones(()) if chance < train.times.at_end else uniform)
        noises.append(torch.randn(shape, dtype=torch.complex64, generator=generator))
    return torch.stack(times), torch.stack(noises)


def sample_seed(seed: int, k: int) -> int:
    digest = hashlib.sha256(f"training noise {seed} {k}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
