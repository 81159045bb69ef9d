"""UDiffSE: numbers of the published code, answers that mathematics gives, and what its users rely on."""

import importlib.util
import json
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_networks import load_recipe_weights
from torch import Tensor

from diffse.networks.ncsnpp import NCSNpp
from diffse.objectives import ScoreMatching
from diffse.posterior import PUBLISHED, Sampling, em, evaluations, likelihood_score, posterior_samples
from diffse.processes import OUVE, expand
from diffse.proximal import em_proximal, joined, proximal_samples

PROCESS = OUVE()
S_0 = 0.3


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).detach().abs().max() / expected.abs().max())


def complex_noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def drawing(like: Tensor) -> Callable[[], Tensor]:
    """Draws as enhancement makes them: every file from a generator of its own."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(like))]
    return lambda: torch.stack(
        [torch.randn(like.shape[1:], dtype=like.dtype, generator=generator) for generator in generators]
    )


def gaussian_prior(x_t: Tensor, t: Tensor, s_0: float = S_0) -> Tensor:
    """E[x_0 | x_t] for x_0 ~ CN(0, s_0^2)."""
    a, s = expand(PROCESS.a(t), x_t), expand(PROCESS.std(t), x_t)
    return a * s_0**2 / (a**2 * s_0**2 + s**2) * x_t


def flat_prior(x_t: Tensor, t: Tensor) -> Tensor:
    """A prior that says nothing: its score is 0."""
    return x_t / expand(PROCESS.a(t), x_t)


# ------------------------------------------------------------------------------------ published numbers


def test_em_takes_the_published_steps(golden):
    numbers = np.load(golden / "udiffse_em_trajectory.npz")
    names = ("X", "W0", "H0", "noise", "states")
    X, W, H, noise, states = (torch.from_numpy(numbers[name]) for name in names)
    draws = iter(noise.flatten(0, 1)[:, None])
    seen: list[tuple[Tensor, Tensor]] = []
    results: list[tuple[Tensor, Tensor, Tensor]] = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((x_t, t))
        return gaussian_prior(x_t, t, float(numbers["s0"]))

    options = PUBLISHED | {"em_iterations": 3, "steps": 6}
    options |= {"factors": (W, H), "observe": lambda *of: results.append(of)}
    em(denoise, PROCESS, X[:1], lambda: next(draws), **options)
    assert next(draws, None) is None
    for iteration, (S, W, H) in enumerate(results):
        values = {"St": S[:, 0], "W": W, "H": H, "V": W @ H}
        for name, value in values.items():
            expected = torch.from_numpy(numbers[f"{name}_em{iteration}"])
            assert relative(value, expected) < 1e-5, (name, iteration)
    times = torch.stack([t[0] for _, t in seen])
    assert torch.allclose(times, torch.from_numpy(numbers["timesteps"])[:6].repeat_interleave(2).repeat(3))
    # What the corrector starts from is the last recorded state of the step before.
    kinds = [*numbers["state_kind"], "pc"]
    ends = [state for state, following in zip(states, kinds[1:], strict=True) if following == "pc"]
    starts = [seen[2 * step][0] for step in range(18)]
    for step in (step for step in range(17) if step % 6 != 5):
        assert relative(starts[step + 1], ends[step]) < 1e-5, step


def test_prior_loss_and_gradient_are_the_published_ones(golden):
    spec = importlib.util.spec_from_file_location("recipe", golden / "recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    numbers = np.load(golden / "udiffse_loss_batch.npz")
    expected = json.loads((golden / "udiffse_losses.json").read_text())
    x_0, t, z = (torch.from_numpy(numbers[key]) for key in ("X", "t", "z"))
    network = NCSNpp(inputs=1, nf=16, output_scaling="before")
    load_recipe_weights(network, recipe)
    objective = ScoreMatching(network, PROCESS, scaling="none", sign=-1, prior=True)
    loss = objective.loss(x_0, complex_noise(*x_0.shape), t, z).mean()  # a prior does not look at y
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in network.parameters() if p.requires_grad]).norm()
    assert float(loss.detach()) == pytest.approx(expected["score_mse"], rel=1e-4)
    assert float(norm) == pytest.approx(expected["grad_norm"], rel=1e-3)


# ------------------------------------------------------------------------------------ the likelihood step


def test_likelihood_score_is_the_slope_of_the_pseudo_likelihood():
    """Of ln N_C(X; s/delta, sigma^2/delta^2 + V); a score is d/d(conj s), half of torch's gradient."""
    S, X = complex_noise(3, 1, 8, 6).to(torch.complex128), complex_noise(3, 1, 8, 6, seed=1)
    V, t = torch.rand(3, 1, 8, 6, dtype=torch.float64) + 0.1, torch.tensor([0.03, 0.4, 1.0])
    delta, sigma = expand(PROCESS.a(t), S), expand(PROCESS.std(t), S)
    S.requires_grad_()
    variance = sigma**2 / delta**2 + V
    density = -((X - S / delta).abs().square() / variance).sum()
    (slope,) = torch.autograd.grad(density, S)
    assert torch.allclose(likelihood_score(PROCESS, S, X, V, t), slope / 2)


def law(V: float, steps: int) -> tuple[complex, float]:
    """Mean and variance of posterior samples at X = 1 under a flat prior, without any randomness.

    A sample is affine in the draws: example 0 gets none, example i a 1 as draw i alone.
    """
    X = torch.ones(steps + 1, 1, 1, 1, dtype=torch.complex128)
    impulses = iter(torch.eye(steps + 1, dtype=X.dtype)[1:, :, None, None, None])
    exact = {"corrector_scale": 0, "likelihood_weight": 1, "likelihood_every": 1, "start": "marginal"}
    S = posterior_samples(
        flat_prior, PROCESS, X, torch.full(X.shape, V), lambda: next(impulses),
        1, Sampling(steps=steps, t_eps=0, **exact),
    )[0]  # fmt: skip
    assert next(impulses, None) is None
    return complex(S[0]), float((S[1:] - S[0]).abs().square().sum())


@pytest.mark.parametrize("V", [0.04, 1.0])
def test_under_a_flat_prior_samples_have_the_law_of_the_posterior(V):
    """The pseudo-likelihood is then exact: CN(X, V), but for what is left of the wrong start X + s(1) z."""
    coarse, fine = (law(V, steps) for steps in (400, 800))
    one = torch.ones(())
    a, s = float(PROCESS.a(one)), float(PROCESS.std(one))
    left = a * V / (a**2 * V + s**2)  # of a deviation at t = 1
    assert abs(2 * fine[0] - coarse[0] - (1 + left * (1 - a))) < 1e-3
    assert 2 * fine[1] - coarse[1] == pytest.approx(V - left**2 * a**2 * V, rel=2e-3)


def mean_of_samples(s_0: float, V: float, steps: int, **options) -> float:
    """E[s] at X = 1 for the prior CN(0, s_0^2)."""
    X = torch.ones(1, 1, 1, 1, dtype=torch.complex128)
    S = posterior_samples(
        lambda x_t, t: gaussian_prior(x_t, t, s_0), PROCESS, X, torch.full(X.shape, V),
        lambda: torch.zeros_like(X), 1, Sampling(steps=steps, **options),
    )  # fmt: skip
    return float(S.real)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_under_a_gaussian_prior_the_mean_is_wiener_like(ratio):
    """The pseudo-likelihood ignores the prior, so the mean is not X / (1 + r), r = V / s_0^2, but near it.

    With u = sigma^2 / delta^2 the mean's equation is m' = m / (s_0^2 + u) - (X - m) / (V + u), whose solution
    at u = 0 is X (r ln r / (r - 1)^2 - 1 / (r - 1)): the Wiener gain at r = 1, nowhere 0.09 away from it.
    """
    exact = {"corrector_scale": 0, "likelihood_weight": 1, "likelihood_every": 1, "start": "marginal"}
    coarse, fine = (mean_of_samples(0.1, ratio * 0.01, n, t_eps=0, **exact) for n in (800, 1600))
    expected = 0.5 if ratio == 1 else ratio * math.log(ratio) / (ratio - 1) ** 2 - 1 / (ratio - 1)
    assert 2 * fine - coarse == pytest.approx(expected, abs=5e-4)
    assert abs(expected - 1 / (1 + ratio)) < 0.09


def test_likelihood_step_without_dt_diverges():
    """Line 10 of algorithm 2, taken literally; with the dt of eq. 14 the mean lies between 0 and X."""
    for V in (0.001, 0.01):
        assert abs(mean_of_samples(S_0, V, 30, likelihood_step="full")) > 1e6
        assert 0 < mean_of_samples(S_0, V, 30) < 1


def test_smaller_noise_power_follows_the_observation_more_closely():
    means = [mean_of_samples(S_0, V, 30) for V in (0.001, 0.01, 0.1, 1.0)]
    assert all(near > far for near, far in pairwise(means))
    assert mean_of_samples(S_0, 0.1, 30, likelihood_weight=3) > mean_of_samples(S_0, 0.1, 30)


def spy(steps: int, **options) -> tuple[list[float], int, Tensor]:
    """Times at which a prior is called, the first step with a likelihood, and the start less X."""
    X = complex_noise(1, 1, 8, 6)
    seen: list[tuple[Tensor, float]] = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((x_t, float(t)))
        return gaussian_prior(x_t, t)

    for V in (None, torch.ones(X.shape)):
        posterior_samples(denoise, PROCESS, X, V, drawing(X), 1, Sampling(steps=steps, **options))
    without, within = seen[: 2 * steps : 2], seen[2 * steps :: 2]  # what each corrector step starts from
    same = [torch.equal(a[0], b[0]) for a, b in zip(without, within, strict=True)]
    return [t for _, t in without], same.index(False) - 1, without[0][0] - X


def test_paper_and_published_code_differ_in_grid_start_and_count():
    z = drawing(torch.zeros(1, 1, 8, 6, dtype=torch.complex64))()
    times, first, start = spy(5)
    assert times == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert torch.allclose(start, z, atol=1e-6)
    assert first == 1  # 5 steps left, then 4, which 2 divides
    times, first, start = spy(5, grid="linspace", start="marginal", likelihood_count="up")
    assert times == pytest.approx(torch.linspace(1, 0.03, 5).tolist())
    assert torch.allclose(start, float(PROCESS.std(torch.ones(()))) * z, atol=1e-6)
    assert first == 0
    times, _, _ = spy(50)
    assert times[-2:] == pytest.approx([0.04, 0.03])  # never below t_eps, where the prior was not trained


def test_last_step_is_without_noise_unless_asked_for():
    X = torch.zeros(1, 1, 64, 64, dtype=torch.complex64)
    quiet, noisy = (
        posterior_samples(gaussian_prior, PROCESS, X, None, drawing(X), 1, Sampling(4, last_noise=noise))
        for noise in (False, True)
    )
    spread = float(PROCESS.diffusion(torch.tensor(0.25))) * 0.5  # g sqrt(dt)
    assert float((noisy - quiet).abs().square().mean() ** 0.5) == pytest.approx(spread, rel=0.05)


# ------------------------------------------------------------------------------------------------ whole EM


def files(count: int = 3) -> Tensor:
    """Noisy compressed spectrograms of different levels, [count, 1, 16, 12]."""
    levels = torch.tensor([0.05, 1.0, 7.0])[:count, None, None, None]
    return levels * complex_noise(count, 1, 16, 12, seed=5)


@pytest.mark.parametrize("options", [{}, PUBLISHED])
def test_a_file_alone_gives_what_it_gives_in_a_batch(options):
    y = files()
    options = {"steps": 6, "em_iterations": 3, "nmf_updates": 2} | options
    together = em(gaussian_prior, PROCESS, y, drawing(y), **options)
    assert together.shape == y.shape
    assert together.dtype == y.dtype
    for i in range(3):
        draw = drawing(y)
        alone = em(gaussian_prior, PROCESS, y[i : i + 1], lambda i=i, draw=draw: draw()[i : i + 1], **options)
        assert relative(alone, together[i : i + 1]) < 1e-6


def test_result_scales_with_the_file_and_silence_stays_finite():
    """Normalised by its largest magnitude, a file of any level is the same problem."""
    y = files(1)
    loud = em(gaussian_prior, PROCESS, 100 * y, drawing(y), steps=4, em_iterations=2)
    soft = em(gaussian_prior, PROCESS, y, drawing(y), steps=4, em_iterations=2)
    assert relative(loud, 100 * soft) < 1e-5
    as_it_is = em(gaussian_prior, PROCESS, y, drawing(y), steps=4, em_iterations=2, normalise=False)
    assert relative(as_it_is, soft) > 0.1
    silent = em(gaussian_prior, PROCESS, 0 * y, drawing(y), steps=4, em_iterations=2)
    assert torch.isfinite(torch.view_as_real(silent)).all()


def test_more_samples_are_averaged():
    """b samples lower the variance of the result b-fold; the network sees all copies of all files at once."""
    y, sizes = torch.zeros(2, 1, 32, 32, dtype=torch.complex64), set()

    def prior(x_t: Tensor, t: Tensor) -> Tensor:
        sizes.add(len(x_t))
        return gaussian_prior(x_t, t)

    spreads = {}
    for samples in (1, 4):
        result = em(
            prior, PROCESS, y, drawing(y), steps=5, em_iterations=1, samples=samples, first_likelihood=2
        )
        spreads[samples] = float(result.abs().square().mean())
    assert spreads[1] / spreads[4] == pytest.approx(4, rel=0.15)
    assert sizes == {2, 8}


def test_number_of_evaluations_is_the_stated_one():
    y, counted = files(), []

    def prior(x_t: Tensor, t: Tensor) -> Tensor:
        counted.append(len(x_t))
        return gaussian_prior(x_t, t)

    for options in ({}, {"samples": 2, "em_iterations": 3}, {"corrector_scale": 0}):
        counted.clear()
        em(prior, PROCESS, y, drawing(y), **{"steps": 4, **options})
        assert sum(counted) == len(y) * evaluations(**{"steps": 4, **options})
    assert evaluations() == 1200
    assert evaluations(samples=2) == 600  # as published


@pytest.mark.parametrize("sampler", [em, em_proximal])
def test_noise_model_finds_the_noise_and_the_speech_gets_cleaner(sampler):
    """Speech with a known variance per bin, noise in other bins: EM must learn where the noise is."""
    speech_power = torch.full((1, 1, 32, 1), 1e-4)
    speech_power[:, :, :8] = 0.04
    clean = speech_power.sqrt() * complex_noise(1, 1, 32, 40)
    noise = 0.3 * complex_noise(1, 1, 32, 40, seed=1) * (torch.arange(32) >= 16)[:, None]
    fitted: list[Tensor] = []

    def prior(x_t: Tensor, t: Tensor) -> Tensor:
        a, s = expand(PROCESS.a(t), x_t), expand(PROCESS.std(t), x_t)
        return a * speech_power / (a**2 * speech_power + s**2) * x_t

    y = clean + noise
    result = sampler(
        prior, PROCESS, y, drawing(y), rank=2, normalise=False, observe=lambda S, W, H: fitted.append(W @ H)
    )
    V = fitted[-1].mean(-1).flatten()
    assert float(V[16:].mean()) == pytest.approx(0.09, rel=0.25)
    assert float(V[8:16].mean()) < 0.01
    assert float((result - clean).norm()) < 0.4 * float(noise.norm())


# ------------------------------------------------------------------------------------------ proximal steps


def test_joined_is_the_posterior_mean_of_gaussian_speech():
    """For s ~ N_C(0, s_0^2) with x = s + n and s_t = delta s + sigma z, all known: E[s | s_t, x]."""
    S_t, X, V = complex_noise(1, 1, 8, 6), complex_noise(1, 1, 8, 6, seed=1), torch.rand(1, 1, 8, 6) + 0.1
    t = torch.tensor([0.3])
    delta, sigma = expand(PROCESS.a(t), X), expand(PROCESS.std(t), X)
    precision = 1 / S_0**2 + (delta / sigma) ** 2
    expected = (delta / sigma**2 * S_t + X / V) / (precision + 1 / V)
    found = joined(gaussian_prior(S_t, t), X, V, 1 / precision)
    assert relative(found, expected) < 1e-5


def test_proximal_samples_go_from_the_observation_to_the_prior_as_the_noise_grows():
    X, seen = complex_noise(2, 1, 16, 12), []

    def prior(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((x_t, float(t[0])))
        return gaussian_prior(x_t, t)

    def samples(V: float) -> Tensor:
        seen.clear()
        return proximal_samples(prior, PROCESS, X, torch.full(X.shape, V), drawing(X), samples=3, steps=4)

    assert torch.allclose(samples(1e-9), X.expand(3, -1, -1, -1, -1), atol=1e-4)
    assert [t for _, t in seen] == pytest.approx(torch.linspace(1, 0.03, 4).tolist())
    assert seen[0][0].shape == (6, 1, 16, 12)
    free = samples(1e9)
    last, _ = seen[-1]
    assert torch.allclose(free.flatten(0, 1), gaussian_prior(last, torch.full((6,), 0.03)), atol=1e-6)
    assert float((free[0] - free[1]).abs().mean()) > 0.05  # samples differ


def test_each_proximal_step_begins_at_the_estimate_before_with_new_noise():
    X, seen = complex_noise(1, 1, 64, 64, seed=9), []

    def prior(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((x_t, t))
        return 0.3 * X

    V = torch.full(X.shape, 0.2)
    result = proximal_samples(prior, PROCESS, X, V, drawing(X), steps=3, prior_weight=2.0)[0]
    estimate = X
    for x_t, t in seen:
        a, s = expand(PROCESS.a(t), X), expand(PROCESS.std(t), X)
        z = (x_t - a * estimate) / s
        assert float(z.abs().square().mean()) == pytest.approx(1, rel=0.05)
        assert float((z * X.conj()).mean().abs()) < 0.05
        spread = (s / a) ** 2 / 2
        estimate = (0.2 * 0.3 * X + spread * X) / (0.2 + spread)
    assert torch.allclose(result, estimate, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"samples": 3, "steps": 4}, {"rank": 20, "nmf_updates": 3}])
def test_proximal_em_treats_every_file_by_itself_with_the_stated_evaluations(options):
    y, counted = files(), []

    def prior(x_t: Tensor, t: Tensor) -> Tensor:
        counted.append(len(x_t))
        return gaussian_prior(x_t, t)

    together = em_proximal(prior, PROCESS, y, drawing(y), em_iterations=2, **options)
    assert together.dtype == y.dtype
    assert sum(counted) == len(y) * 2 * options.get("samples", 1) * options.get("steps", 10)
    draw = drawing(y)
    alone = em_proximal(prior, PROCESS, y[1:2], lambda: draw()[1:2], em_iterations=2, **options)
    assert relative(alone, together[1:2]) < 1e-5
    louder = em_proximal(prior, PROCESS, 100 * y, drawing(y), em_iterations=2, **options)
    assert relative(louder, 100 * together) < 1e-4
    silent = em_proximal(prior, PROCESS, 0 * y, drawing(y), em_iterations=2, **options)
    assert torch.isfinite(torch.view_as_real(silent)).all()
