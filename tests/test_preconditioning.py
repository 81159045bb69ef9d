"""Preconditioning, prediction of the mean, and the weighted supervised term: what their definitions demand."""

import math

import pytest
import torch
from test_objectives import EDM, OUVE_16K, SCALINGS, T, complex_noise, relative, silent
from torch import Tensor

from diffse.objectives import DataPrediction, Denoising, Preconditioning, ScoreMatching, WeightedSupervised
from diffse.processes import SBVE, expand, mean, perturb
from diffse.spectrogram import Spectrogram


def edm_functions(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """c_in, c_skip and c_out of Karras et al. (2022), table 1, written out."""
    root = (sigma**2 + sigma_data**2).sqrt()
    return 1 / root, sigma_data**2 / root**2, sigma * sigma_data / root


@pytest.mark.parametrize("sigma_data", [0.1, 0.4])
def test_edm_preconditioning_is_its_formula(sigma_data):
    x_t, y = complex_noise(0, 3, 1, 8, 6), complex_noise(1, 3, 2, 8, 6)
    chosen = Preconditioning("edm", "edm", "edm", "ln(sigma)/4", sigma_data)
    sigma = OUVE_16K.std(T)
    c_in, c_skip, c_out = (expand(c, x_t) for c in edm_functions(sigma, sigma_data))
    called = []

    def network(x, seen, label):
        called.append((x, seen, label))
        return x.flip(-1)

    output = chosen.apply(network, OUVE_16K, x_t, y, T)
    x, seen, label = called[0]
    assert relative(x, c_in * x_t) < 1e-6
    assert relative(seen, c_in * y) < 1e-6
    assert torch.allclose(label, (sigma.log() / 4).float())
    assert label.dtype == T.dtype
    assert relative(output, c_skip * x_t + c_out * (c_in * x_t).flip(-1)) < 1e-6


def test_edm_values_are_those_recorded_of_the_published_code():
    """16 kHz, sigma_data 0.1, t = 0.03, 0.5, 1: c_in, c_out, c_skip and the weight."""
    sigma = OUVE_16K.std(torch.tensor([0.03, 0.5, 1.0]))
    c_in, c_skip, c_out = edm_functions(sigma, 0.1)
    assert torch.allclose(c_in, torch.tensor([9.827, 6.350, 2.490], dtype=torch.float64), rtol=2e-4)
    assert torch.allclose(c_out, torch.tensor([0.01850, 0.07725, 0.09685], dtype=torch.float64), rtol=3e-4)
    assert torch.allclose(c_skip, torch.tensor([0.96576, 0.40322, 0.06199], dtype=torch.float64), rtol=2e-4)
    expected = torch.tensor([2920, 167.6, 106.6], dtype=torch.float64)
    assert torch.allclose(EDM.edm_weight(sigma), expected, rtol=1e-3)
    assert torch.allclose(EDM.edm_weight(sigma), c_out**-2)


@pytest.mark.parametrize(("c_out", "power"), [("sigma", 1), ("1/sigma", -1)])
def test_output_may_be_scaled_by_the_noise_or_its_inverse(c_out, power):
    x_t, y = complex_noise(0, 3, 1, 8, 6), complex_noise(1, 3, 1, 8, 6)
    output = Preconditioning(c_out=c_out).apply(lambda x, seen, t: x + seen, OUVE_16K, x_t, y, T)
    assert relative(output, expand(OUVE_16K.std(T) ** power, x_t) * (x_t + y)) < 1e-6


def test_preconditioned_network_starts_from_data_of_unit_variance():
    """What the functions are for: with data of that deviation, F's input and its target have variance 1."""
    sigma_data, sigma = 0.3, float(OUVE_16K.std(torch.tensor(0.4)))
    mu = sigma_data * complex_noise(0, 1, 1, 512, 512)
    x_t = mu + sigma * complex_noise(1, 1, 1, 512, 512)
    c_in, c_skip, c_out = (float(c) for c in edm_functions(torch.tensor(sigma), sigma_data))
    assert float((c_in * x_t).abs().square().mean()) == pytest.approx(1, rel=0.01)
    assert float(((mu - c_skip * x_t) / c_out).abs().square().mean()) == pytest.approx(1, rel=0.01)


def test_noise_label_is_finite_at_both_ends_of_a_bridge():
    x = complex_noise(0, 2, 1, 8, 6)
    ends, labels = torch.tensor([0.0, 1.0]), []

    def network(x, seen, label):
        labels.append(label)
        return x

    Preconditioning(c_noise="ln(sigma)/4").apply(network, SBVE(), x, x, ends)
    assert torch.allclose(labels[0], torch.full((2,), math.log(1e-4) / 4))


@pytest.mark.parametrize("scaling", SCALINGS)
def test_score_is_the_preconditioned_scaled_output(scaling):
    """As published: the network's own scaling first, then c_skip x_t + c_out times it."""
    x_t, y = complex_noise(0, 3, 1, 8, 6), complex_noise(1, 3, 1, 8, 6)
    objective = ScoreMatching(lambda x, seen, t: seen, OUVE_16K, scaling, 1, EDM)
    c_in, c_skip, c_out = (expand(c, x_t) for c in edm_functions(OUVE_16K.std(T), 0.1))
    scale = {"1/sigma": 1 / OUVE_16K.std(T), "1/t": 1 / T, "none": torch.ones(3)}[scaling]
    expected = c_skip * x_t + c_out * expand(scale, y) * (c_in * y)
    assert relative(objective.score(x_t, objective.prepare(y), T), expected) < 1e-6


def test_preconditioned_data_prediction_is_its_formula():
    x_t, y = complex_noise(0, 3, 1, 32, 17), complex_noise(1, 3, 1, 32, 17)
    t = torch.tensor([0.03, 0.4, 0.9])
    objective = DataPrediction(
        lambda x, seen, t: seen, SBVE(), Spectrogram(n_fft=62, hop=16), preconditioning=EDM
    )
    c_in, c_skip, c_out = (expand(c, x_t) for c in edm_functions(SBVE().std(t), 0.1))
    expected = c_skip * x_t + c_out * c_in * y
    assert relative(objective.denoise(x_t, objective.prepare(y), t), expected) < 1e-6


# --------------------------------------------------------------------------------- prediction of the mean


@pytest.mark.parametrize("chosen", [Preconditioning(), EDM], ids=["plain", "edm"])
def test_network_that_knows_the_mean_has_no_loss_and_gives_x_0(chosen):
    x_0, y, z = (complex_noise(seed, 3, 1, 8, 6) for seed in range(3))
    mu_t, x_t = mean(OUVE_16K, x_0, y, T), perturb(OUVE_16K, x_0, y, T, z)
    output = mu_t
    if chosen is EDM:
        _, c_skip, c_out = (expand(c, x_t) for c in edm_functions(OUVE_16K.std(T), 0.1))
        output = (mu_t - c_skip * x_t) / c_out
    objective = Denoising(lambda x, seen, t: output, OUVE_16K, chosen)
    assert float(objective.loss(x_0, y, T, z).max()) < 1e-9
    assert relative(objective.denoise(x_t, objective.prepare(y), T), x_0) < 1e-5


@pytest.mark.parametrize("weighting", ["1", "sigma^2", "edm"])
def test_denoising_loss_is_the_weighted_error_of_the_mean(weighting):
    x_0, y, z = (complex_noise(seed, 3, 1, 8, 6) for seed in range(3))
    sigma = OUVE_16K.std(T).float()
    weight = {"1": sigma**0, "sigma^2": sigma**2, "edm": (sigma**2 + 0.01) / (0.1 * sigma) ** 2}[weighting]
    error = 0.5 * mean(OUVE_16K, x_0, y, T).abs().square().sum(dim=(1, 2, 3))
    loss = Denoising(silent, OUVE_16K, weighting=weighting).loss(x_0, y, T, z)
    assert torch.allclose(loss, weight * error, rtol=1e-5)
    faulty = Denoising(silent, OUVE_16K, weighting=weighting, across_batch=True).loss(x_0, y, T, z)
    assert torch.allclose(faulty.mean(), weight.mean() * error.sum(), rtol=1e-5)  # as published
    one = slice(0, 1)
    alone = Denoising(silent, OUVE_16K, weighting=weighting, across_batch=True)
    assert torch.allclose(alone.loss(x_0[one], y[one], T[one], z[one]), loss[one], rtol=1e-5)


@pytest.mark.parametrize("weighting", ["1", "sigma^2", "edm"])
def test_denoising_with_variance_over_noise_weight_is_score_matching(weighting):
    """|D - mu|^2 = s^4 |score + z / s|^2: with w = 1/s^2 both losses are one; other weights rescale it."""
    x_0, y, z = (complex_noise(seed, 3, 1, 8, 6) for seed in range(3))

    def network(x_t, y, t):
        return 0.7 * x_t + 0.2 * y

    denoising = Denoising(network, OUVE_16K, weighting=weighting)

    def score(x_t, y, t):
        return (network(x_t, y, t) - x_t) / expand(OUVE_16K.std(t) ** 2, x_t)

    matching = ScoreMatching(score, OUVE_16K, "none")
    factor = denoising.weight(T).float() * OUVE_16K.std(T).float() ** 2
    assert torch.allclose(denoising.loss(x_0, y, T, z), factor * matching.loss(x_0, y, T, z), rtol=1e-4)
    x_t, conditions = perturb(OUVE_16K, x_0, y, T, z), denoising.prepare(y)
    assert relative(denoising.denoise(x_t, conditions, T), matching.denoise(x_t, conditions, T)) < 1e-5


# ------------------------------------------------------------------------------------- weighted supervised


def test_supervised_weight_has_the_published_values():
    objective = WeightedSupervised(silent, OUVE_16K)
    alpha = objective.alpha(torch.tensor([0.0, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0]))
    expected = torch.tensor([1, 1, 1, 0.954, 0.878, 0.722, 0.461, 0], dtype=torch.float64)
    assert torch.allclose(alpha, expected, atol=6e-4)
    assert torch.equal(alpha[[0, 1, -1]], expected[[0, 1, -1]])


@pytest.mark.parametrize("residual", ["tweedie", "published"])
def test_weighted_loss_is_its_formula(residual):
    """Paper 003 for one coefficient after the other, in plain complex arithmetic."""
    x_0, y, z = (complex_noise(seed, 3, 1, 2, 2) for seed in range(3))
    objective = WeightedSupervised(
        lambda x_t, y, t: 0.3 * x_t - 0.2 * y, OUVE_16K, "none", sign=-1, residual=residual
    )
    loss, theta = objective.loss(x_0, y, T, z), 1.5

    def deviation(t: float) -> float:
        growth = 10 ** (2 * t) - math.exp(-2 * theta * t)
        return 0.05 * math.sqrt(growth * math.log(10) / (theta + math.log(10)))

    for i, t in enumerate(T.tolist()):
        sigma, total = deviation(t), 0.0
        alpha = min(1, (deviation(1) - sigma) / (deviation(1) - deviation(0.03)))
        for x, n, noise in zip(*(part[i].flatten().tolist() for part in (x_0, y, z)), strict=True):
            x_t = math.exp(-theta * t) * x + (1 - math.exp(-theta * t)) * n + sigma * noise
            s = -(0.3 * x_t - 0.2 * n)
            if residual == "tweedie":
                e = math.exp(theta * t) * (x_t + sigma**2 * s) + (1 - math.exp(theta * t)) * n - x
            else:
                e = x_t + sigma**2 * s / 2 - (math.exp(theta * t) * x + (1 - math.exp(theta * t)) * n)
            total += 0.5 * abs(math.sqrt(1 - alpha) * (sigma * s + noise)) ** 2
            total += 0.5 * abs(math.sqrt(alpha) * e) ** 2
        assert float(loss[i]) == pytest.approx(total, rel=1e-4)


def test_true_score_has_no_supervised_error_except_as_published():
    x_0, y, z = (complex_noise(seed, 3, 1, 8, 6) for seed in range(3))
    exact = WeightedSupervised(lambda x_t, y, t: -z, OUVE_16K)
    assert float(exact.loss(x_0, y, T, z).max()) < 1e-9
    published = WeightedSupervised(lambda x_t, y, t: -z, OUVE_16K, residual="published")
    assert float(published.loss(x_0, y, T, z)[1]) > 1  # t = 0.4
    x_t = perturb(OUVE_16K, x_0, y, T, z)
    assert relative(exact.denoise(x_t, exact.prepare(y), T), x_0) < 1e-5


def test_weighted_loss_is_score_matching_at_the_end_and_supervised_at_the_start():
    x_0, y, z = (complex_noise(seed, 3, 1, 8, 6) for seed in range(3))

    def network(x_t, y, t):
        return 0.3 * x_t - 0.2 * y

    weighted, matching = WeightedSupervised(network, OUVE_16K), ScoreMatching(network, OUVE_16K)
    loss, plain = weighted.loss(x_0, y, T, z), matching.loss(x_0, y, T, z)
    estimate = matching.denoise(perturb(OUVE_16K, x_0, y, T, z), matching.prepare(y), T)
    supervised = 0.5 * (estimate - x_0).abs().square().sum(dim=(1, 2, 3))
    assert float(loss[2]) == pytest.approx(float(plain[2]), rel=1e-6)  # t = 1
    assert float(loss[0]) == pytest.approx(float(supervised[0]), rel=1e-6)  # t = 0.03
    assert min(plain[1], supervised[1]) < loss[1] < max(plain[1], supervised[1])
