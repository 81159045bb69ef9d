"""Scores on the valid split during training: what chooses the best checkpoint."""

import dataclasses
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from diffse import recipes, settings
from diffse.data import manifest, shards
from diffse.enhancer import Enhancer

METRICS = ("si_sdr", "pesq", "estoi")


class Validator:
    """Enhances the same few validation files each time and averages their scores.

    The files are spread evenly over the sorted ids of the split; `rows` is empty where there is no such split.
    """

    def __init__(
        self,
        mixtures: Path,
        train: settings.Train,
        stft: settings.Stft,
        enhance: settings.Enhance,
        sampler: object,
    ) -> None:
        frame = manifest.read(mixtures)
        valid = frame[frame["split"] == "valid"].sort_values("id")
        count = min(train.validate_files, len(valid))
        places = np.linspace(0, len(valid) - 1, count).round().astype(int) if count else []
        self.rows = [row for _, row in valid.iloc[places].iterrows()]
        self.mixtures, self.train, self.stft = mixtures, train, stft
        self.enhance, self.sampler = enhance, sampler

    def score(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean SI-SDR (dB), PESQ and ESTOI over the files; NaN where no file gave a value."""
        from diffse.metrics.score import score_pair

        enhancer = Enhancer(self._system(network), device, seed=self.enhance.seed)
        pairs = [shards.read_pair(self.mixtures, row) for row in self.rows]
        rate = int(self.rows[0]["rate"])
        enhanced = enhancer.many([noisy for _, noisy in pairs], rate, [row["id"] for row in self.rows])
        table = [
            score_pair(clean, noisy, wave, rate, METRICS)
            for (clean, noisy), wave in zip(pairs, enhanced, strict=True)
        ]
        with warnings.catch_warnings():  # a column without any value is NaN, which is what we say
            warnings.simplefilter("ignore", RuntimeWarning)
            means = {name: float(np.nanmean([_value(row[name]) for row in table])) for name in METRICS}
        return means

    def _system(self, network: nn.Module) -> recipes.System:
        enhance = dataclasses.replace(self.enhance, sampler=self.sampler)
        return recipes.assemble(self.train, self.stft, enhance, network, {})


def _value(value: object) -> float:
    return math.nan if value is None else float(value)
