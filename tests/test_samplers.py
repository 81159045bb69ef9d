"""Samplers: answers that mathematics gives exactly, and single steps."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffse.processes import OUVE, SBVE, expand, mean, perturb
from diffse.samplers import bridge_ode, bridge_sde, predictor_corrector, score_from_estimate

PUBLISHED_BRIDGE = SBVE(epsilon=1e-8)
ONE = torch.ones(())


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def snr_db(estimate: Tensor, clean: Tensor) -> float:
    return float(20 * torch.log10(clean.norm() / (estimate - clean).norm()))


def complex_noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def drawing(like: Tensor, seed: int = 0) -> Callable[[], Tensor]:
    """Draws of the shape of `like` from a seeded generator."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(like.shape, dtype=like.dtype, generator=generator)


# --------------------------------------------------------------------------- exact answers: known x_0


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("evaluate_at", ["previous", "target"])
@pytest.mark.parametrize("sampler", ["ode", "sde"])
def test_bridge_with_a_perfect_estimate_gives_the_clean_signal_back(sampler, evaluate_at, steps):
    clean, noise = complex_noise(2, 1, 8, 6), 0.5 * complex_noise(2, 1, 8, 6, seed=1)
    y, options = clean + noise, {"steps": steps, "evaluate_at": evaluate_at}
    if sampler == "ode":
        result = bridge_ode(lambda x, t: clean, SBVE(), y, **options)
    else:
        result = bridge_sde(lambda x, t: clean, SBVE(), y, drawing(y), **options)
    assert snr_db(result, clean) > (90 if sampler == "ode" else 60)  # the SDE's last step keeps some noise


@pytest.mark.parametrize("evaluate_at", ["previous", "target"])
def test_bridge_ode_with_a_perfect_estimate_stays_on_the_mean(evaluate_at):
    clean, y = complex_noise(2, 1, 8, 6), complex_noise(2, 1, 8, 6, seed=1)
    states = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        states.append(x_t)
        return clean

    states.append(bridge_ode(denoise, SBVE(), y, steps=20, t_eps=0.0, evaluate_at=evaluate_at))
    for x_t, t in zip(states, torch.linspace(1, 0, 21), strict=True):
        assert torch.allclose(x_t, mean(SBVE(), clean, y, t), atol=1e-5)


@pytest.mark.parametrize("corrector", ["ald", "langevin", "none"])
def test_predictor_corrector_with_a_perfect_estimate_gives_the_clean_signal_back(corrector):
    clean, noise = complex_noise(2, 1, 8, 6), 0.5 * complex_noise(2, 1, 8, 6, seed=1)
    y = clean + noise
    result = predictor_corrector(lambda x, t: clean, OUVE(), y, drawing(y), corrector=corrector)
    assert snr_db(result, clean) > 45


@pytest.mark.parametrize("evaluate_at", ["previous", "target"])
def test_bridge_grid_may_end_at_zero_where_the_state_is_the_last_estimate(evaluate_at):
    y = complex_noise(2, 1, 8, 6)
    estimates = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        estimates.append(x_t * 0.5 + 1)
        return estimates[-1]

    options = {"steps": 4, "t_eps": 0.0, "evaluate_at": evaluate_at}
    assert torch.allclose(bridge_ode(denoise, SBVE(), y, **options), estimates[-1], rtol=1e-6)
    assert torch.allclose(bridge_sde(denoise, SBVE(), y, drawing(y), **options), estimates[-1], rtol=1e-6)


# ------------------------------------------------------------------------- exact answers: Gaussian x_0


MU_0, S_0, Y = 1 - 0.5j, 0.3, -0.4 + 0.8j


def posterior_mean(process: OUVE | SBVE, x_t: Tensor, t: Tensor, mu_0=MU_0, y=Y) -> Tensor:
    """E[x_0 | x_t] for x_0 ~ CN(mu_0, S_0^2), finite at both ends of the bridge."""
    a, b, s = (expand(part(t), x_t) for part in (process.a, process.b, process.std))
    if isinstance(process, SBVE):
        gain = S_0**2 / (a * S_0**2 + expand(process.sigma(t), x_t) ** 2)  # s^2 = a sigma^2
    else:
        gain = a * S_0**2 / (a**2 * S_0**2 + s**2)
    return mu_0 + gain * (x_t - a * mu_0 - b * y)


def law(sampler, process: OUVE | SBVE, draws: int, **options) -> tuple[complex, float]:
    """Mean and variance of what a sampler gives for Gaussian data, without any randomness.

    The result is then affine in the draws: example 0 gets none (the mean), example i a 1 as draw i alone, so
    the squared distances to example 0 sum to the variance.
    """
    y = torch.full((draws + 1, 1, 1, 1), Y, dtype=torch.complex128)
    impulses = iter(torch.eye(draws + 1, dtype=y.dtype)[1:, :, None, None, None])
    result = sampler(
        lambda x_t, t: posterior_mean(process, x_t, t), process, y, lambda: next(impulses), **options
    )
    assert next(impulses, None) is None
    return complex(result[0]), float((result[1:] - result[0]).abs().square().sum())


def test_reverse_diffusion_reaches_the_law_that_its_equation_gives():
    """The start CN(y, s(1)^2) is not the marginal at t = 1; the equation shrinks that gap by a known factor."""
    process = OUVE()
    coarse, fine = (
        law(predictor_corrector, process, n + 1, steps=n, corrector="none", t_eps=1 / n) for n in (200, 400)
    )
    a, s = float(process.a(ONE)), float(process.std(ONE))
    left = a * S_0**2 / (a**2 * S_0**2 + s**2)  # of a deviation at t = 1
    expected_mean = MU_0 + left * (Y - (a * MU_0 + (1 - a) * Y))
    expected_variance = S_0**2 - left**2 * a**2 * S_0**2
    assert abs(fine[0] - expected_mean) < 0.55 * abs(coarse[0] - expected_mean)  # first order
    assert abs(2 * fine[0] - coarse[0] - expected_mean) < 1e-4
    assert 2 * fine[1] - coarse[1] == pytest.approx(expected_variance, rel=5e-4)


def test_corrector_removes_what_the_prior_got_wrong():
    reached = law(predictor_corrector, OUVE(), 1601, steps=800, corrector="ald", snr=0.1, t_eps=1 / 800)
    assert abs(reached[0] - MU_0) < 0.002
    assert reached[1] == pytest.approx(S_0**2, rel=0.002)


def test_bridge_sde_reaches_the_law_of_the_data():
    coarse, fine = (law(bridge_sde, SBVE(), n, steps=n, t_eps=0.0) for n in (400, 800))
    assert abs(coarse[0] - MU_0) < 1e-12  # at any number of steps
    assert fine[1] == pytest.approx(S_0**2, rel=0.03)
    assert abs(fine[1] - S_0**2) < 0.65 * abs(coarse[1] - S_0**2)


def bridge_ode_law(steps: int) -> tuple[complex, float]:
    """Result for Gaussian data, and the standard deviation of the result when the first state had its own.

    From x_1 = y the ODE has one path, that of the mean. To see the others, the first estimate is moved so that
    the state at the first time t_1 stands one standard deviation of its marginal from the mean.
    """
    process, y = SBVE(), torch.full((2, 1, 1, 1), Y, dtype=torch.complex128)
    t_1 = torch.linspace(1, 0, steps + 1)[1]
    deviation = torch.sqrt(process.a(t_1) ** 2 * S_0**2 + process.std(t_1) ** 2) / process.a(t_1)
    moved = torch.stack([torch.zeros_like(deviation), deviation])[:, None, None, None]

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return posterior_mean(process, x_t, t) + moved * (t == 1)[:, None, None, None]

    result = bridge_ode(denoise, process, y, steps=steps, t_eps=0.0).flatten()
    return complex(result[0]), float((result[1] - result[0]).abs())


def test_bridge_ode_carries_mean_and_deviation_to_those_of_the_data():
    coarse, fine = bridge_ode_law(400), bridge_ode_law(800)
    assert abs(coarse[0] - MU_0) < 1e-12  # at any number of steps
    assert fine[1] == pytest.approx(S_0, rel=0.01)
    assert abs(fine[1] - S_0) < 0.6 * abs(coarse[1] - S_0)


@pytest.mark.parametrize("sampler", [bridge_ode, bridge_sde])
def test_estimating_at_the_target_time_biases_the_mean(sampler):
    """Why `previous` is the default: the published choice reaches the mean only with many steps."""
    y = torch.full((1, 1, 1, 1), Y, dtype=torch.complex128)
    draw = () if sampler is bridge_ode else (lambda: torch.zeros_like(y),)
    offsets = {
        place: float(
            (
                sampler(
                    lambda x_t, t: posterior_mean(SBVE(), x_t, t), SBVE(), y, *draw, steps=50, evaluate_at=place
                )
                - MU_0
            ).abs()
        )
        for place in ("previous", "target")
    }
    assert offsets["previous"] < 1e-4
    assert offsets["target"] > 0.02


# ------------------------------------------------------------------- steps of the predictor-corrector


@pytest.mark.parametrize(("fixed_dt", "lengths"), [(False, [0.3, 0.3, 0.3, 0.1]), (True, [0.25] * 4)])
def test_steps_follow_the_grid_or_have_a_fixed_length(fixed_dt, lengths):
    """Where the score is 0, a step of length dt multiplies x - y by 1 + theta dt."""
    process, (y, z) = OUVE(), (complex_noise(2, 1, 8, 6, seed=seed).to(torch.complex128) for seed in range(2))
    draws = iter([z] + [torch.zeros_like(z)] * 4)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return (x_t - expand(process.b(t), y) * y) / expand(process.a(t), y)

    options = {"steps": 4, "corrector": "none", "t_eps": 0.1, "fixed_dt": fixed_dt}
    result = predictor_corrector(denoise, process, y, draws.__next__, **options)
    growth = math.prod(1 + process.theta * length for length in lengths)
    assert torch.allclose(result, y + process.std(ONE) * z * growth, rtol=1e-6)


def test_langevin_step_is_sized_by_norms_averaged_over_the_batch():
    """epsilon = 2 (r |z| / |s|)^2, and x + epsilon s + sqrt(2 epsilon) z."""
    process, r, size = OUVE(), 0.2, torch.tensor([0.1, 1.0, 4.0])[:, None, None, None]
    clean, y, start, z = (size * complex_noise(3, 1, 8, 6, seed=seed) for seed in range(4))
    states, draws = [], iter([start, z, z])

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        states.append(x_t)
        return clean

    predictor_corrector(denoise, process, y, draws.__next__, steps=1, corrector="langevin", snr=r)
    score = score_from_estimate(process, states[0], y, clean, torch.ones(3))
    mean_norm = [sum(float(example.norm()) for example in tensor) / 3 for tensor in (z, score)]
    epsilon = 2 * (r * mean_norm[0] / mean_norm[1]) ** 2
    expected = states[0] + epsilon * score + math.sqrt(2 * epsilon) * z
    assert torch.allclose(states[1], expected, rtol=1e-5, atol=1e-6)


def test_euler_maruyama_of_the_reverse_sde_is_reverse_diffusion():
    """Both are x - (f - g^2 s) dt + g sqrt(dt) z when the forward SDE is discretised by Euler's rule."""
    y = complex_noise(2, 1, 8, 6)
    one, other = (
        predictor_corrector(lambda x, t: 0.5 * x + 0.2 * y, OUVE(), y, drawing(y), steps=5, predictor=predictor)
        for predictor in ("reverse_diffusion", "euler_maruyama")
    )
    assert torch.equal(one, other)


def test_without_a_predictor_langevin_dynamics_alone_finds_the_law_of_the_last_time():
    """Many small corrector steps at t = 1 forget the start; what they reach is the marginal there."""
    process, steps, snr = OUVE(), 200, 0.25
    t = ONE
    variance = float(process.a(t) ** 2 * S_0**2 + process.std(t) ** 2)
    expected = process.a(t) * MU_0 + process.b(t) * Y
    options = {"steps": 1, "predictor": "none", "corrector_steps": steps, "snr": snr}
    reached = law(predictor_corrector, process, steps + 1, **options)
    assert abs(reached[0] - complex(expected)) < 1e-6
    epsilon = 2 * (snr * float(process.std(t))) ** 2
    rate = 1 - epsilon / variance  # each step: deviation times rate, plus variance 2 epsilon
    stationary = 2 * epsilon / (1 - rate**2)  # before each step; the mean of the last one has no noise
    assert reached[1] == pytest.approx(rate**2 * stationary, rel=1e-6)
    assert stationary == pytest.approx(variance, rel=epsilon / variance)  # the step's own error


# --------------------------------------------------------------------------------- steps of the bridge


def states_of(sampler, process: SBVE, estimate: Tensor, y: Tensor, draws: Tensor | None = None, **options):
    """All states of a bridge sampler whose network always answers `estimate`, and the times it was asked."""
    states, times = [], []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        states.append(x_t)
        times.append(t)
        return estimate

    draw = () if draws is None else (iter(draws).__next__,)
    states.append(sampler(denoise, process, y, *draw, **options))
    return states, times


@pytest.mark.parametrize("steps", [1, 2, 10, 50, 200])
def test_weights_of_every_step_sum_to_one(steps):
    y = complex_noise(2, 1, 8, 6).to(torch.complex128)
    states, _ = states_of(bridge_ode, SBVE(), y, y, steps=steps)
    for x_t in states:
        assert torch.allclose(x_t, y, rtol=1e-10)


def test_published_guard_amplifies_the_first_step():
    """epsilon = 1e-8: the weights of the first of 50 steps sum to 1.0201, and y's is 0.976 instead of w_y."""
    y = complex_noise(2, 1, 8, 6).to(torch.complex128)
    w_y = SBVE().b(torch.linspace(1, 1e-4, 51)[1])
    for process, total, of_y in ((PUBLISHED_BRIDGE, 1.0201, 0.97607), (SBVE(), 1.0, float(w_y))):
        same, _ = states_of(bridge_ode, process, y, y, steps=50)
        none, _ = states_of(bridge_ode, process, torch.zeros_like(y), y, steps=50)
        assert float((same[1] / y).real.mean()) == pytest.approx(total, abs=1e-4)
        assert float((none[1] / y).real.mean()) == pytest.approx(of_y, abs=1e-4)


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_first_step_goes_to_the_marginal_of_the_first_estimate(steps):
    estimate, y, z = (complex_noise(2, 1, 8, 6, seed=seed).to(torch.complex128) for seed in range(3))
    t = torch.linspace(1, 1e-4, steps + 1)[1].expand(2)
    states, _ = states_of(bridge_ode, SBVE(), estimate, y, steps=steps)
    assert torch.allclose(states[1], mean(SBVE(), estimate, y, t), rtol=1e-9)
    states, _ = states_of(bridge_sde, SBVE(), estimate, y, z.expand(steps, *z.shape), steps=steps)
    noise = torch.zeros_like(z) if steps == 1 else z  # the last step adds none
    assert torch.allclose(states[1], perturb(SBVE(), estimate, y, t, noise), rtol=1e-9)


@pytest.mark.parametrize("sampler", [bridge_ode, bridge_sde])
def test_bridge_estimates_at_the_time_of_the_state_or_of_the_target(sampler):
    y = complex_noise(2, 1, 8, 6)
    draws = None if sampler is bridge_ode else torch.zeros(4, *y.shape, dtype=y.dtype)
    grid = torch.linspace(1, 1e-4, 5)
    for place, expected in (("previous", grid[:-1]), ("target", grid[1:])):
        _, times = states_of(sampler, SBVE(), y, y, draws, steps=4, evaluate_at=place)
        assert torch.equal(torch.stack(times), expected[:, None].expand(4, 2))


def test_score_and_estimate_are_two_names_for_one_thing():
    """Tweedie's estimate of a Gaussian's exact score gives that score back."""
    x_t, y = complex_noise(3, 1, 8, 6), torch.full((3, 1, 8, 6), Y)
    process, t = OUVE(), torch.tensor([0.03, 0.4, 1.0])
    a, s = expand(process.a(t), x_t), expand(process.std(t), x_t)
    exact = -(x_t - a * MU_0 - (1 - a) * y) / (a**2 * S_0**2 + s**2)
    estimate = posterior_mean(process, x_t, t)
    assert relative(score_from_estimate(process, x_t, y, estimate, t), exact) < 1e-4
