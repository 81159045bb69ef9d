"""Processes: numbers of the published code, and what the stochastic differential equations demand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffse.processes import OUVE, SBVE, mean, perturb

OUVE_48K = OUVE(theta=2.0, sigma_min=0.1, sigma_max=1.0)
PUBLISHED = {"ouve": OUVE(), "ouve48k": OUVE_48K, "sbve": SBVE(epsilon=1e-8)}
PROCESSES = [OUVE(), OUVE_48K, SBVE(), SBVE(k=10.0, c=0.01)]
BRIDGES = [process for process in PROCESSES if isinstance(process, SBVE)]
DRIFTING = [process for process in PROCESSES if isinstance(process, OUVE)]
T = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def slope(function, t: Tensor) -> Tensor:
    """Central difference in double precision; its error is about 1e-9."""
    step = 1e-5
    return (function(t + step) - function(t - step)) / (2 * step)


def ends(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """x_0, y and z of `count` examples."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(count, 1, 3, 2, dtype=torch.complex128, generator=generator) for _ in range(3))


@pytest.fixture(scope="module")
def marginals(golden) -> dict[str, Tensor]:
    numbers = np.load(golden / "sgmse_sde_marginals.npz")
    return {name: torch.from_numpy(numbers[name]) for name in numbers.files}


@pytest.mark.parametrize("tag", PUBLISHED)
def test_marginals_match_the_published_ones(tag, marginals):
    process, t = PUBLISHED[tag], marginals["t"]
    assert relative(mean(process, marginals["x0"], marginals["y"], t), marginals[f"{tag}_mean"]) < 1e-5
    assert relative(process.std(t), marginals[f"{tag}_std"]) < 1e-5
    assert relative(process.diffusion(t), marginals[f"{tag}_diffusion"]) < 1e-5


@pytest.mark.parametrize("tag", ["ouve", "ouve48k"])
def test_drift_and_prior_match_the_published_ones(tag, marginals):
    process, x_0, y = PUBLISHED[tag], marginals["x0"], marginals["y"]
    assert relative(process.drift(x_0, y), marginals[f"{tag}_drift"]) < 1e-5
    assert relative(process.prior(y, marginals[f"{tag}_prior_noise"]), marginals[f"{tag}_prior"]) < 1e-5


def test_bridge_schedule_and_prior_match_the_published_ones(marginals):
    process, t, y = PUBLISHED["sbve"], marginals["t"], marginals["y"]
    assert relative(process.sigma(t), marginals["sbve_sigma_t"]) < 1e-5
    assert relative(process.sigma_bar(t), marginals["sbve_sigma_bar"]) < 1e-5
    assert torch.equal(process.prior(y), marginals["sbve_prior"])


@pytest.mark.parametrize("process", DRIFTING)
def test_ouve_marginal_solves_its_equation(process):
    """dm/dt = theta (y - m) and dv/dt = g^2 - 2 theta v, from m = x_0 and v = 0."""
    x_0, y, _ = ends(len(T))

    def m(t: Tensor) -> Tensor:
        return mean(process, x_0, y, t)

    def variance(t: Tensor) -> Tensor:
        return process.std(t) ** 2

    expected = process.diffusion(T) ** 2 - 2 * process.theta * variance(T)
    assert torch.allclose(slope(m, T), process.drift(m(T), y), rtol=1e-7, atol=1e-8)
    assert torch.allclose(slope(variance, T), expected, rtol=1e-7, atol=1e-8)
    assert torch.equal(m(torch.zeros_like(T)), x_0)
    assert torch.equal(variance(torch.zeros_like(T)), torch.zeros_like(T))


@pytest.mark.parametrize("process", DRIFTING)
def test_ouve_variance_is_the_papers(process):
    """Paper 000, eq. 4, written with k = sigma_max / sigma_min and c = 2 ln(k) sigma_min^2."""
    k = process.sigma_max / process.sigma_min
    c = 2 * math.log(k) * process.sigma_min**2
    expected = c * (k ** (2 * T) - torch.exp(-2 * process.theta * T)) / (2 * (process.theta + math.log(k)))
    assert torch.allclose(process.std(T) ** 2, expected, rtol=1e-12, atol=0)
    assert torch.allclose(process.diffusion(T), math.sqrt(c) * k**T, rtol=1e-12, atol=0)


@pytest.mark.parametrize("process", DRIFTING)
def test_ouve_prior_puts_y_in_the_place_of_the_clean_signal(process):
    _, y, z = ends(3)
    assert torch.allclose(process.prior(y, z), perturb(process, y, y, torch.ones(3), z), rtol=1e-12)


@pytest.mark.parametrize("process", BRIDGES)
def test_bridge_marginal_solves_the_equation_of_a_process_tied_to_y(process):
    """dx = g^2 (y - x) / sigma_bar^2 dt + g dw gives dm/dt and dv/dt = g^2 - 2 g^2 v / sigma_bar^2."""
    x_0, y, _ = ends(len(T))
    pull = process.diffusion(T) ** 2 / process.sigma_bar(T) ** 2

    def m(t: Tensor) -> Tensor:
        return mean(process, x_0, y, t)

    def variance(t: Tensor) -> Tensor:
        return process.std(t) ** 2

    assert torch.allclose(slope(m, T), pull[:, None, None, None] * (y - m(T)), rtol=1e-7, atol=1e-8)
    expected = process.diffusion(T) ** 2 - 2 * pull * variance(T)
    assert torch.allclose(slope(variance, T), expected, rtol=1e-7, atol=1e-8)
    assert torch.allclose(slope(lambda t: process.sigma(t) ** 2, T), process.diffusion(T) ** 2, rtol=1e-7)


@pytest.mark.parametrize("process", BRIDGES)
def test_bridge_joins_both_ends_exactly(process):
    x_0, y, z = ends(5)
    assert torch.allclose(perturb(process, x_0, y, torch.zeros(5), z), x_0, rtol=1e-15, atol=0)
    assert torch.equal(perturb(process, x_0, y, torch.ones(5), z), y)
    assert torch.equal(process.prior(y, z), y)


@pytest.mark.parametrize("process", BRIDGES)
def test_bridge_schedule_loses_no_digits_near_its_end(process):
    t = 1 - torch.tensor([1e-6, 1e-9, 1e-13, 0.0], dtype=torch.float64)
    expected = process.diffusion(torch.ones(4)) * torch.sqrt(1 - t)
    assert torch.allclose(process.sigma_bar(t), expected, rtol=1e-5, atol=0)
    total = process.sigma(T) ** 2 + process.sigma_bar(T) ** 2
    assert torch.allclose(total, process.sigma(torch.ones(len(T))) ** 2, rtol=1e-14, atol=0)


@pytest.mark.parametrize("process", [*PROCESSES, SBVE(epsilon=1e-8)])
def test_the_weights_of_both_ends_sum_to_one(process):
    t = torch.linspace(0, 1, 101)
    assert torch.allclose(process.a(t) + process.b(t), torch.ones(101, dtype=torch.float64), rtol=1e-14)
    assert (torch.diff(process.a(t)) < 0).all()


@pytest.mark.parametrize("process", PROCESSES)
def test_every_example_has_its_own_time(process):
    x_0, y, z = ends(len(T))
    together = perturb(process, x_0, y, T, z)
    for i in range(len(T)):
        one = slice(i, i + 1)
        alone = process.a(T[i]) * x_0[one] + process.b(T[i]) * y[one] + process.std(T[i]) * z[one]
        assert torch.allclose(together[one], alone, rtol=1e-14, atol=0)
