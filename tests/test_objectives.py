"""Objectives: losses and gradients of the published code, and what the definitions demand."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from test_networks import load_recipe_weights
from torch import Tensor

from diffse.networks.ncsnpp import NCSNpp
from diffse.objectives import DataPrediction, ScoreMatching
from diffse.processes import OUVE, SBVE, expand, mean, perturb
from diffse.samplers import score_from_estimate
from diffse.spectrogram import Spectrogram

OUVE_16K = OUVE()
T = torch.tensor([0.03, 0.4, 1.0])
SCALINGS = ["1/sigma", "1/t", "none"]


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).detach().abs().max() / expected.abs().max())


def complex_noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------ published numbers


def score_objective(scaling: str, sign: int = 1):
    """Makes an objective and the function of it whose output is recorded: the score."""

    def make(network):
        objective = ScoreMatching(network, OUVE_16K, scaling, sign)
        return objective, objective.score

    return make


def bridge_objective(network):
    objective = DataPrediction(network, SBVE(epsilon=1e-8), Spectrogram(), l1_weight=0.001)
    return objective, objective.denoise


PUBLISHED = {
    "score_matching": ({"output_scaling": "before"}, score_objective("none", -1)),
    "v2_score_matching_scaling_1/sigma": ({}, score_objective("1/sigma")),
    "v2_score_matching_c_out_1/sigma": ({}, score_objective("1/sigma")),
    "v2_score_matching_scaling_1/t": ({}, score_objective("1/t")),
    "v2_data_prediction_sbve": ({}, bridge_objective),
}


@pytest.fixture(scope="module")
def published_network(golden):
    """Makes NCSN++ at nf = 16 with the golden weights, which follow from parameter names alone."""
    spec = importlib.util.spec_from_file_location("recipe", golden / "recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)

    def make(**options) -> NCSNpp:
        network = NCSNpp(nf=16, **options)
        load_recipe_weights(network, recipe)
        return network

    return make


@pytest.mark.parametrize("name", PUBLISHED)
def test_loss_gradient_and_output_are_the_published_ones(name, golden, published_network):
    numbers = np.load(golden / "sgmse_loss_batch.npz")
    x_0, y, t, z = (torch.from_numpy(numbers[key]) for key in ("X", "Y", "t", "z"))
    expected = json.loads((golden / "sgmse_losses.json").read_text())["losses"][name]
    options, make = PUBLISHED[name]
    network = published_network(**options)
    objective, recorded = make(network)
    loss = objective.loss(x_0, y, t, z)
    assert loss.shape == (3,)
    assert float(loss.mean().detach()) == pytest.approx(expected["loss"], rel=1e-4)
    loss.mean().backward()
    gradients = [p.grad for p in network.parameters() if p.requires_grad]
    norm = torch.stack([g.norm() for g in gradients]).norm()
    assert float(norm) == pytest.approx(expected["grad_norm"], rel=1e-3)
    with torch.inference_mode():
        output = recorded(perturb(objective.process, x_0, y, t, z), y, t)
    assert relative(output, torch.from_numpy(numbers["fwd_" + name.replace("/", "over")])) < 1e-4


# ---------------------------------------------------------------------------------------- score matching


def scaled_for(scaling: str, sign: int, score: Tensor, t: Tensor) -> Tensor:
    """The network output that stands for a score."""
    if scaling == "1/sigma":
        return sign * score * expand(OUVE_16K.std(t), score)
    return sign * score * (expand(t, score) if scaling == "1/t" else 1)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_exact_score_of_gaussian_data_gives_the_posterior_mean(scaling, sign):
    """x_0 ~ CN(mu_0, s_0^2): E[x_0 | x_t] is linear in x_t, and Tweedie's estimate must be it."""
    mu_0, s_0 = 1 - 0.5j, 0.3
    x_t, y = complex_noise(0, 3, 1, 8, 6), complex_noise(1, 3, 1, 8, 6)
    a, b, s = (expand(part(T), y) for part in (OUVE_16K.a, OUVE_16K.b, OUVE_16K.std))
    variance = a**2 * s_0**2 + s**2
    score = -(x_t - a * mu_0 - b * y) / variance

    def network(x_t, y, t):
        return scaled_for(scaling, sign, score, t)

    objective = ScoreMatching(network, OUVE_16K, scaling, sign)
    expected = mu_0 + a * s_0**2 / variance * (x_t - a * mu_0 - b * y)
    assert relative(objective.score(x_t, y, T), score) < 1e-6
    assert relative(objective.denoise(x_t, y, T), expected) < 1e-5
    flipped = ScoreMatching(network, OUVE_16K, scaling, -sign)
    assert relative(flipped.denoise(x_t, y, T), expected) > 0.1


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_score_of_the_kernel_has_no_loss_and_gives_x_0(scaling, sign):
    x_0, y, z = (complex_noise(seed, 3, 1, 8, 6) for seed in range(3))
    score = -z / expand(OUVE_16K.std(T), z)

    def network(x_t, y, t):
        return scaled_for(scaling, sign, score, t)

    objective = ScoreMatching(network, OUVE_16K, scaling, sign)
    assert float(objective.loss(x_0, y, T, z).max()) < 1e-9
    x_t = perturb(OUVE_16K, x_0, y, T, z)
    assert relative(objective.denoise(x_t, y, T), x_0) < 1e-5
    flipped = ScoreMatching(network, OUVE_16K, scaling, -sign)  # error 2 z: 1/2 sum |2 z|^2
    expected = 2 * z.abs().square().sum(dim=(1, 2, 3))
    assert torch.allclose(flipped.loss(x_0, y, T, z), expected, rtol=1e-5)


def test_score_loss_is_half_the_sum_over_an_example():
    """A network that says nothing leaves the error z, of which |z|^2 averages 1 per coefficient."""
    x_0, y = complex_noise(0, 3, 1, 64, 32), complex_noise(1, 3, 1, 64, 32)
    z = complex_noise(2, 3, 1, 64, 32)
    objective = ScoreMatching(lambda x_t, y, t: torch.zeros_like(x_t), OUVE_16K)
    loss = objective.loss(x_0, y, T, z)
    assert torch.allclose(loss, 0.5 * z.abs().square().sum(dim=(1, 2, 3)), rtol=1e-6)
    assert torch.allclose(loss / (64 * 32), torch.full((3,), 0.5), atol=0.05)


def test_sampler_recovers_the_score_that_the_objective_was_given():
    """The clean estimate carries a score through the sampler without loss."""
    x_t, y, score = (complex_noise(seed, 3, 1, 8, 6) for seed in range(3))
    objective = ScoreMatching(lambda x_t, y, t: score, OUVE_16K, "none")
    estimate = objective.denoise(x_t, y, T)
    recovered = score_from_estimate(OUVE_16K, x_t, y, estimate, T)
    variance = expand(OUVE_16K.std(T) ** 2, score)  # the score's effect on a state is the variance times it
    assert float((variance * (recovered - score)).abs().max()) < 1e-6


# --------------------------------------------------------------------------------------- data prediction


def linear_spectrogram() -> Spectrogram:
    """Without compression: an error of the spectrogram is the spectrogram of the waveform's error."""
    return Spectrogram(n_fft=62, hop=16, transform="none")


def test_data_prediction_loss_is_its_formula():
    """Half the mean squared spectrogram error plus half the weighted mean absolute waveform error."""
    spectrogram, frames = linear_spectrogram(), 17
    length = (frames - 1) * spectrogram.hop
    error_wave = torch.randn(3, 1, length, generator=torch.Generator().manual_seed(0))
    error = spectrogram.stft(error_wave)
    x_0, y, z = (complex_noise(seed, *error.shape) for seed in range(3))
    x_0 = spectrogram.stft(spectrogram.istft(x_0, length))  # one that belongs to a waveform
    for weight in (0.0, 0.001, 10.0):
        objective = DataPrediction(lambda x_t, y, t: x_0 + error, SBVE(), spectrogram, l1_weight=weight)
        expected = error.abs().square().mean(dim=(1, 2, 3)) + weight * error_wave.abs().mean(dim=(1, 2))
        assert torch.allclose(objective.loss(x_0, y, T, z), 0.5 * expected, rtol=1e-4)


def test_network_sees_the_marginal_and_its_output_is_the_estimate():
    x_0, y, z = (complex_noise(seed, 3, 1, 32, 17) for seed in range(3))
    seen = []

    def network(x_t, condition, t):
        seen.append((x_t, condition, t))
        return x_0

    process = SBVE()
    objective = DataPrediction(network, process, linear_spectrogram())
    assert torch.equal(objective.loss(x_0, y, T, z), torch.zeros(3))
    x_t, condition, t = seen[0]
    assert torch.allclose(x_t, mean(process, x_0, y, T) + expand(process.std(T), y) * z)
    assert condition is y
    assert t is T
    assert objective.denoise(x_t, y, T) is x_0


@pytest.mark.parametrize("kind", ["score", "data"])
def test_loss_of_an_example_does_not_depend_on_its_batch(kind):
    """Batch size one included, where the published waveform term shrinks by the length."""
    x_0, y, z = (complex_noise(seed, 3, 1, 32, 17) for seed in range(3))

    def network(x_t, y, t):
        return 0.5 * x_t + 0.3 * y * expand(t, y)

    if kind == "score":
        objective = ScoreMatching(network, OUVE_16K)
    else:
        objective = DataPrediction(network, SBVE(), linear_spectrogram(), l1_weight=1.0)
    together = objective.loss(x_0, y, T, z)
    for i in range(3):
        one = slice(i, i + 1)
        assert torch.allclose(objective.loss(x_0[one], y[one], T[one], z[one]), together[one], rtol=1e-5)
