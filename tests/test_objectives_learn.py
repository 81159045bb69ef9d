"""Every objective trains a tiny network: the error on times and noise it was not trained on falls."""

import pytest
import torch
from tiny import NETWORK, voice
from torch import Tensor

from diffse.networks.ncsnpp import NCSNpp
from diffse.objectives import DataPrediction, Denoising, Preconditioning, ScoreMatching, WeightedSupervised
from diffse.perceptual import pesq_loss
from diffse.prediction import Regression
from diffse.processes import OUVE, SBVE
from diffse.spectrogram import Spectrogram

SPECTROGRAM, FRAMES = Spectrogram(), 48
LENGTH = (FRAMES - 1) * SPECTROGRAM.hop


def pairs() -> tuple[Tensor, Tensor]:
    """Compressed spectrograms [2, 1, F, T] of voices without and with white noise."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.stack([torch.from_numpy(voice(seed, 0.5))[:LENGTH] for seed in range(2)])[:, None]
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=generator)
    peak = noisy.abs().amax(-1, keepdim=True)
    return SPECTROGRAM.analyse(clean / peak), SPECTROGRAM.analyse(noisy / peak)


def trained(make, steps: int = 60, **options):
    """An objective with a trained network, and its loss on held-out times and noise before and after."""
    torch.manual_seed(0)
    network = NCSNpp(**{key: value for key, value in NETWORK.items() if key != "name"} | options)
    objective, (x_0, y) = make(network), pairs()

    def loss(generator: torch.Generator) -> Tensor:
        t = 0.03 + 0.97 * torch.rand(2, generator=generator)
        z = torch.randn(x_0.shape, dtype=x_0.dtype, generator=generator)
        return objective.loss(x_0, y, t, z).mean()

    def held_out() -> float:
        generator = torch.Generator().manual_seed(99)
        with torch.no_grad():
            return float(sum(loss(generator) for _ in range(4)))

    before, generator = held_out(), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(generator).backward()
        optimiser.step()
    return objective, before, held_out()


EDM = Preconditioning("edm", "edm", "edm")
OBJECTIVES = {
    "M1": (lambda network: ScoreMatching(network, OUVE()), 0.9),
    "M2": (lambda network: Denoising(network, OUVE()), 0.4),
    "M3": (lambda network: Denoising(network, OUVE(), EDM, "edm"), 0.75),
    "weighted": (lambda network: WeightedSupervised(network, OUVE()), 0.8),
    "weighted as published": (
        lambda network: WeightedSupervised(network, OUVE(), residual="published"),
        0.85,
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_learns(name):
    make, factor = OBJECTIVES[name]
    _, before, after = trained(make)
    assert after < factor * before


def quality(objective: DataPrediction) -> float:
    """PESQ loss of one step from the noisy end."""
    x_0, y = pairs()
    with torch.no_grad():
        x_hat = objective.denoise(y, objective.prepare(y), torch.ones(2))
        estimate, clean = SPECTROGRAM.synthesise(torch.cat([x_hat, x_0], 1), LENGTH).unbind(1)
        return float(pesq_loss(clean, estimate, 16000).mean())


def test_bridge_learns_and_its_pesq_term_buys_quality():
    """M5 and M7: the same training, with and without the term."""
    plain, before, after = trained(lambda network: DataPrediction(network, SBVE(), SPECTROGRAM))
    assert after < 0.6 * before
    perceptual, before, after = trained(
        lambda network: DataPrediction(network, SBVE(), SPECTROGRAM, pesq_weight=5e-4)
    )
    assert after < 0.65 * before
    assert quality(perceptual) < quality(plain) - 0.5


@pytest.mark.parametrize(("error", "steps", "factor"), [("squared", 60, 0.4), ("absolute", 120, 0.9)])
def test_regression_learns(error, steps, factor):
    _, before, after = trained(lambda network: Regression(network, error), steps, inputs=1, conditional=False)
    assert after < factor * before


def test_regression_of_waveforms_learns():
    """In dB: one more is 26 % more power."""
    _, before, after = trained(
        lambda network: Regression(network, "si_sdr", SPECTROGRAM), inputs=1, conditional=False
    )
    assert after < before - 4 * 3  # the sum of four evaluations
