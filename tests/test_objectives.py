"""Objectives: losses and gradients of the published code, and what the definitions demand."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_networks import SCORE_M, load_recipe_weights
from torch import Tensor

from diffse.networks.ncsnpp import NCSNpp
from diffse.objectives import (
    Conditions,
    DataPrediction,
    Denoising,
    Preconditioning,
    ScoreMatching,
    WeightedSupervised,
    no_conditions,
)
from diffse.perceptual import pesq_loss
from diffse.processes import OUVE, SBVE, expand, mean, perturb
from diffse.samplers import score_from_estimate
from diffse.spectrogram import Spectrogram

OUVE_16K = OUVE()
T = torch.tensor([0.03, 0.4, 1.0])
SCALINGS = ["1/sigma", "1/t", "none"]
EDM = Preconditioning(c_in="edm", c_skip="edm", c_out="edm")


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).detach().abs().max() / expected.abs().max())


def complex_noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def silent(x_t: Tensor, seen: Tensor, t: Tensor) -> Tensor:
    """A network that says nothing."""
    return torch.zeros_like(x_t)


# ------------------------------------------------------------------------------------ published numbers


def score_objective(scaling: str, sign: int = 1, **options):
    """Makes an objective and the function of it whose output is recorded: the score."""

    def make(network):
        objective = ScoreMatching(network, OUVE_16K, scaling, sign, **options)
        return objective, objective.score

    return make


def denoising_objective(weighting: str):
    """The published code ignores c_skip and c_out here and records the score of its estimate."""

    def make(network):
        objective = Denoising(network, OUVE_16K, weighting=weighting, across_batch=weighting == "edm")

        def score(x_t, conditions, t):
            difference = objective.posterior_mean(x_t, conditions, t) - x_t
            return difference / expand(OUVE_16K.std(t) ** 2, x_t)

        return objective, score

    return make


def bridge_objective(**options):
    def make(network):
        objective = DataPrediction(network, SBVE(epsilon=1e-8), Spectrogram(), l1_weight=0.001, **options)
        return objective, objective.denoise

    return make


PUBLISHED = {
    "score_matching": ({"output_scaling": "before"}, score_objective("none", -1)),
    "v2_score_matching_scaling_1/sigma": ({}, score_objective("1/sigma")),
    "v2_score_matching_c_out_1/sigma": (
        {},
        score_objective("none", preconditioning=Preconditioning(c_out="1/sigma")),
    ),
    "v2_score_matching_scaling_1/t": ({}, score_objective("1/t")),
    "v2_score_matching_edm_precond": ({}, score_objective("none", preconditioning=EDM)),
    "v2_denoiser_w1": ({}, denoising_objective("1")),
    "v2_denoiser_sigma2": ({}, denoising_objective("sigma^2")),
    "v2_denoiser_edmweight_B3_as_shipped": ({}, denoising_objective("edm")),
    "v2_data_prediction_sbve": ({}, bridge_objective()),
    "v2_data_prediction_sbve_edm_precond": ({}, bridge_objective(preconditioning=EDM)),
    "v2_data_prediction_sbve_pesq": ({}, bridge_objective(pesq_weight=0.0005)),
}


@pytest.fixture(scope="module")
def recipe(golden):
    """The golden files' rule that makes weights from names."""
    spec = importlib.util.spec_from_file_location("recipe", golden / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def published_network(recipe):
    """Makes NCSN++ at nf = 16 with the golden weights, which follow from parameter names alone."""

    def make(prefix: str = "", **options) -> NCSNpp:
        network = NCSNpp(nf=16, **options)
        load_recipe_weights(network, recipe, prefix)
        return network

    return make


def batch(path: Path) -> list[Tensor]:
    """x_0, y, t and z of a recorded batch."""
    numbers = np.load(path)
    return [torch.from_numpy(numbers[key]) for key in ("X", "Y", "t", "z")]


def gradient_norm(network: NCSNpp) -> float:
    gradients = [p.grad for p in network.parameters() if p.requires_grad]
    return float(torch.stack([g.norm() for g in gradients]).norm())


@pytest.mark.parametrize("name", PUBLISHED)
def test_loss_gradient_and_output_are_the_published_ones(name, golden, published_network):
    x_0, y, t, z = batch(golden / "sgmse_loss_batch.npz")
    expected = json.loads((golden / "sgmse_losses.json").read_text())["losses"][name]
    options, make = PUBLISHED[name]
    network = published_network(**options)
    objective, recorded = make(network)
    loss = objective.loss(x_0, y, t, z)
    assert loss.shape == (3,)
    assert float(loss.mean().detach()) == pytest.approx(expected["loss"], rel=1e-4)
    loss.mean().backward()
    assert gradient_norm(network) == pytest.approx(expected["grad_norm"], rel=1e-3)
    with torch.inference_mode():
        output = recorded(perturb(objective.process, x_0, y, t, z), objective.prepare(y), t)
    numbers = np.load(golden / "sgmse_loss_batch.npz")
    assert relative(output, torch.from_numpy(numbers["fwd_" + name.replace("/", "over")])) < 1e-4


def test_absolute_error_of_the_score_is_the_published_one(golden, published_network):
    """StoRM's option `mae`, recorded with its NCSN++M."""
    numbers = batch(golden / "storm_loss_batch.npz")
    expected = json.loads((golden / "storm_losses.json").read_text())["losses"]["score_mae"]
    network = published_network("dnn.", **(SCORE_M | {"inputs": 2}))
    loss = ScoreMatching(network, OUVE_16K, "none", -1, error="absolute").loss(*numbers).mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected["loss"], rel=1e-4)
    assert gradient_norm(network) == pytest.approx(expected["grad_norm"], rel=1e-3)


def test_published_edm_weight_of_one_example_is_the_paper_s(golden, published_network):
    """Recorded with other noise than the batch's, which moves it by a percent; the weight spans a factor 27."""
    x_0, y, t, z = (part[:1] for part in batch(golden / "sgmse_loss_batch.npz"))
    losses = json.loads((golden / "sgmse_losses.json").read_text())["losses"]
    expected = losses["v2_denoiser_edmweight_B3_as_shipped"]["loss_B1"]
    with torch.inference_mode():
        loss = Denoising(published_network(), OUVE_16K, weighting="edm").loss(x_0, y, t, z)
    assert float(loss) == pytest.approx(expected, rel=0.02)


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
    conditions = objective.prepare(y)
    expected = mu_0 + a * s_0**2 / variance * (x_t - a * mu_0 - b * y)
    assert relative(objective.score(x_t, conditions, T), score) < 1e-6
    assert relative(objective.denoise(x_t, conditions, T), expected) < 1e-5
    flipped = ScoreMatching(network, OUVE_16K, scaling, -sign)
    assert relative(flipped.denoise(x_t, conditions, T), expected) > 0.1


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
    assert relative(objective.denoise(x_t, objective.prepare(y), T), x_0) < 1e-5
    flipped = ScoreMatching(network, OUVE_16K, scaling, -sign)  # error 2 z: 1/2 sum |2 z|^2
    expected = 2 * z.abs().square().sum(dim=(1, 2, 3))
    assert torch.allclose(flipped.loss(x_0, y, T, z), expected, rtol=1e-5)


def test_score_loss_is_half_the_sum_over_an_example():
    """A network that says nothing leaves the error z, of which |z|^2 averages 1 per coefficient."""
    x_0, y = complex_noise(0, 3, 1, 64, 32), complex_noise(1, 3, 1, 64, 32)
    z = complex_noise(2, 3, 1, 64, 32)
    objective = ScoreMatching(silent, OUVE_16K)
    loss = objective.loss(x_0, y, T, z)
    assert torch.allclose(loss, 0.5 * z.abs().square().sum(dim=(1, 2, 3)), rtol=1e-6)
    assert torch.allclose(loss / (64 * 32), torch.full((3,), 0.5), atol=0.05)
    absolute = ScoreMatching(silent, OUVE_16K, error="absolute").loss(x_0, y, T, z)
    assert torch.allclose(absolute, 0.5 * z.abs().sum(dim=(1, 2, 3)), rtol=1e-6)


def test_sampler_recovers_the_score_that_the_objective_was_given():
    """The clean estimate carries a score through the sampler without loss."""
    x_t, y, score = (complex_noise(seed, 3, 1, 8, 6) for seed in range(3))
    objective = ScoreMatching(lambda x_t, y, t: score, OUVE_16K, "none")
    estimate = objective.denoise(x_t, objective.prepare(y), T)
    recovered = score_from_estimate(OUVE_16K, x_t, y, estimate, T)
    variance = expand(OUVE_16K.std(T) ** 2, score)  # the score's effect on a state is the variance times it
    assert float((variance * (recovered - score)).abs().max()) < 1e-6


def test_prior_learns_clean_speech_and_never_sees_the_noisy_one():
    """UDiffSE: x_t = a x_0 + s z whatever y is, and the network gets no condition."""
    x_0, y, z = (complex_noise(seed, 3, 1, 8, 6) for seed in range(3))
    seen = []

    def network(x_t, condition, t):
        seen.append((x_t, condition))
        return -z

    objective = ScoreMatching(network, OUVE_16K, prior=True)
    assert float(objective.loss(x_0, y, T, z).max()) < 1e-9
    x_t, condition = seen[0]
    assert condition.shape == (3, 0, 8, 6)
    expected = expand(OUVE_16K.a(T), x_0) * x_0 + expand(OUVE_16K.std(T), z) * z
    assert torch.allclose(x_t, expected, atol=1e-6)
    assert relative(objective.denoise(x_t, objective.prepare(y), T), x_0) < 1e-5


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
    assert objective.denoise(x_t, objective.prepare(y), T) is x_0


def test_pesq_term_is_added_with_its_weight_to_what_the_waveforms_say():
    spectrogram, frames = linear_spectrogram(), 400
    length = (frames - 1) * spectrogram.hop
    waves = 0.1 * torch.randn(2, 3, 1, length, generator=torch.Generator().manual_seed(0))
    clean, estimate = spectrogram.stft(waves)
    y, z = (complex_noise(seed, *clean.shape) for seed in range(2))

    def loss(**options):
        return DataPrediction(lambda x_t, y, t: estimate, SBVE(), spectrogram, **options).loss(clean, y, T, z)

    term = pesq_loss(waves[0, :, 0], waves[1, :, 0], 16000)
    assert torch.allclose(loss(pesq_weight=0.5) - loss(), 0.5 * term, rtol=1e-3)
    assert float(term.min()) > 1
    assert torch.allclose(loss(pesq_weight=0.5, l1_weight=0) - loss(l1_weight=0), 0.5 * term, rtol=1e-3)
    term_at_48k = pesq_loss(waves[0, :, 0], waves[1, :, 0], 48000)
    assert torch.allclose(loss(pesq_weight=0.5, rate=48000) - loss(), 0.5 * term_at_48k, rtol=1e-3)
    assert relative(term_at_48k, term) > 0.01


# ---------------------------------------------------------------------------------------- every objective


def mixing(x_t, seen, t):
    """A network that depends on all it is given."""
    return 0.5 * x_t + 0.3 * seen.sum(1, keepdim=True) * expand(t, seen)


OBJECTIVES = {
    "score": ScoreMatching(mixing, OUVE_16K),
    "score_edm": ScoreMatching(mixing, OUVE_16K, "none", preconditioning=EDM),
    "prior": ScoreMatching(mixing, OUVE_16K, prior=True),
    "mean": Denoising(mixing, OUVE_16K, EDM, "edm"),
    "weighted": WeightedSupervised(mixing, OUVE_16K),
    "data": DataPrediction(mixing, SBVE(), linear_spectrogram(), l1_weight=1.0),
    "data_pesq": DataPrediction(mixing, SBVE(), linear_spectrogram(), l1_weight=0.0, pesq_weight=1.0),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_of_an_example_does_not_depend_on_its_batch(name):
    """Batch size one included, where the published waveform term shrinks by the length."""
    x_0, y, z = (complex_noise(seed, 3, 1, 32, 17) for seed in range(3))
    objective = OBJECTIVES[name]
    together = objective.loss(x_0, y, T, z)
    assert together.shape == (3,)
    tolerance = 1e-2 if name == "data_pesq" else 1e-5  # its filter of order 10 runs in single precision
    for i in range(3):
        one = slice(i, i + 1)
        alone = objective.loss(x_0[one], y[one], T[one], z[one])
        assert torch.allclose(alone, together[one], rtol=tolerance)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_prepared_conditions_may_be_replaced(name):
    """StoRM: another end, which the process takes, and other spectrograms, which the network sees."""
    x_0, y, z, end, more = (complex_noise(seed, 3, 1, 32, 17) for seed in range(5))
    objective = OBJECTIVES[name]
    given = objective.loss_given(x_0, objective.prepare(y), T, z)
    assert torch.equal(given, objective.loss(x_0, y, T, z))
    for other in (Conditions(end, y), Conditions(y, torch.cat([y, more], 1))):
        assert (objective.loss_given(x_0, other, T, z) - given).abs().min() > 1e-6
    blind = dataclasses.replace(objective, network=lambda x_t, seen, t: 0.5 * x_t)
    expected = blind.loss_given(x_0, Conditions(end, end), T, z)
    assert torch.equal(blind.loss_given(x_0, Conditions(end, torch.cat([y, more], 1)), T, z), expected)


def test_no_conditions_are_an_empty_stack():
    assert no_conditions(complex_noise(0, 3, 2, 8, 6)).shape == (3, 0, 8, 6)
