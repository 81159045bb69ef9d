"""The probability-flow ODE: exact answers, scipy's steps, and examples that do not disturb each other."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp
from test_samplers import MU_0, ONE, S_0, Y, complex_noise, drawing, posterior_mean, snr_db
from torch import Tensor

from diffse.processes import OUVE
from diffse.samplers import predictor_corrector, probability_flow_ode, runge_kutta_45


def gaussian(x_t: Tensor, t: Tensor) -> Tensor:
    return posterior_mean(OUVE(), x_t, t)


# -------------------------------------------------------------------------------------------- Runge-Kutta


def rotation(t: Tensor, x: Tensor) -> Tensor:
    """A nonlinear problem that every example meets with its own rate."""
    rate = torch.tensor([1.0, 3.0, 10.0], dtype=torch.float64)[: len(x), None]
    return (1j * rate - 0.3 * t[:, None]) * x + torch.sin(t)[:, None] * x.conj()


@pytest.mark.parametrize("ends", [(1.0, 0.03), (0.0, 2.0)])
def test_one_example_takes_exactly_the_steps_of_scipy(ends):
    start = complex_noise(1, 5).to(torch.complex128)
    asked, scipys = [], []

    def slope(t: Tensor, x: Tensor) -> Tensor:
        asked.append(float(t))
        return rotation(t, x)

    def scipy_slope(t: float, x) -> Tensor:
        scipys.append(t)
        return rotation(torch.tensor([t], dtype=torch.float64), torch.from_numpy(x)[None])[0].numpy()

    solution = solve_ivp(scipy_slope, ends, start[0].numpy(), rtol=1e-6, atol=1e-8)
    result = runge_kutta_45(slope, start, *ends, 1e-6, 1e-8)
    assert torch.allclose(result[0], torch.from_numpy(solution.y[:, -1]), rtol=1e-10)
    assert asked == pytest.approx(scipys, rel=1e-9)


def test_every_example_keeps_its_own_tolerance_and_steps():
    start = complex_noise(3, 5).to(torch.complex128)
    together = runge_kutta_45(rotation, start, 1.0, 0.0, 1e-7, 1e-9)
    for i in range(3):

        def slope(t: Tensor, x: Tensor, i=i) -> Tensor:
            return rotation(t.expand(3), x.expand(3, 5))[i : i + 1]

        alone = runge_kutta_45(slope, start[i : i + 1], 1.0, 0.0, 1e-7, 1e-9)
        assert torch.allclose(alone[0], together[i], rtol=1e-12)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_error_is_what_the_tolerance_allows(tolerance):
    """dx/dt = i k x has the answer x e^(i k t)."""
    k, start = torch.tensor([1.0, 5.0, 25.0], dtype=torch.float64)[:, None], torch.ones(3, 4) + 0j
    result = runge_kutta_45(lambda t, x: 1j * k * x, start.to(torch.complex128), 0.0, 1.0, tolerance, tolerance)
    error = (result - torch.exp(1j * k)).abs().max()
    assert tolerance / 1e3 < float(error) < 30 * tolerance


def test_zero_slope_and_zero_state_need_no_luck():
    start = torch.zeros(2, 4, dtype=torch.complex128)
    assert torch.equal(runge_kutta_45(lambda t, x: torch.zeros_like(x), start, 1.0, 0.0, 1e-5, 1e-5), start)


@pytest.mark.parametrize("when", [0.0, 0.5])
def test_an_example_that_is_not_finite_ends_as_nan_and_leaves_the_others_alone(when):
    """From the start, or from t = 0.5 on: its steps shrink until it is given up."""

    def slope(t: Tensor, x: Tensor) -> Tensor:
        broken = (t >= when) & torch.tensor([False, True, False])
        return torch.where(broken[:, None], torch.full_like(x, math.nan), rotation(t, x))

    start = complex_noise(3, 5).to(torch.complex128)
    result = runge_kutta_45(slope, start, 0.0, 1.0, 1e-6, 1e-6)
    expected = runge_kutta_45(rotation, start, 0.0, 1.0, 1e-6, 1e-6)
    assert result[1].isnan().all()
    assert torch.allclose(result[[0, 2]], expected[[0, 2]], rtol=1e-12)


# ------------------------------------------------------------------------------------------------ the ODE


def exact_flow(start: Tensor, t: Tensor) -> Tensor:
    """Where the flow takes a state from t = 1 to t for Gaussian data.

    Deviations from the mean m(t) of the marginal scale with its standard deviation, and dm/dt = theta (y - m)
    whatever the data are; but y + s(1) z starts with deviation y - m(1).
    """
    process = OUVE()

    def marginal(t: Tensor) -> tuple[complex, float]:
        a, s = float(process.a(t)), float(process.std(t))
        return a * MU_0 + (1 - a) * Y, math.sqrt(a**2 * S_0**2 + s**2)

    (m_1, d_1), (m_t, d_t) = marginal(ONE), marginal(t)
    return m_t + (start - m_1) * d_t / d_1


def test_flow_of_gaussian_data_is_the_exact_one():
    y = torch.full((2, 1, 8, 6), Y, dtype=torch.complex128)
    z = complex_noise(2, 1, 8, 6).to(torch.complex128)
    for t_eps in (0.03, 0.3):
        options = {"t_eps": t_eps, "denoise_last": False, "rtol": 1e-9, "atol": 1e-9}
        result = probability_flow_ode(gaussian, OUVE(), y, lambda: z, **options)
        expected = exact_flow(OUVE().prior(y, z), torch.tensor(t_eps, dtype=torch.float64))
        assert float((result - expected).abs().max()) < 1e-7


def test_last_step_is_the_noise_free_step_of_the_reverse_sde():
    y, z = complex_noise(2, 1, 8, 6), complex_noise(2, 1, 8, 6, seed=1)
    options = {"t_eps": 0.05}
    x = probability_flow_ode(gaussian, OUVE(), y, lambda: z, denoise_last=False, **options)
    result = probability_flow_ode(gaussian, OUVE(), y, lambda: z, **options)
    t = torch.full((2,), 0.05)
    score = (OUVE().a(t).float()[0] * gaussian(x, t) + OUVE().b(t).float()[0] * y - x) / OUVE().std(t)[0] ** 2
    slope = OUVE().drift(x, y) - OUVE().diffusion(t)[0] ** 2 * score
    assert torch.allclose(result, (x - 0.05 * slope).to(x.dtype), atol=1e-5)
    longer = probability_flow_ode(gaussian, OUVE(), y, lambda: z, last_dt=0.1, **options)
    assert torch.allclose(longer, (x - 0.1 * slope).to(x.dtype), atol=1e-5)


def test_a_perfect_estimate_gives_the_clean_signal_back():
    clean, y = complex_noise(2, 1, 8, 6), complex_noise(2, 1, 8, 6, seed=1)
    result = probability_flow_ode(lambda x, t: clean, OUVE(), y, drawing(y))
    pc = predictor_corrector(lambda x, t: clean, OUVE(), y, drawing(y), corrector="none")
    assert snr_db(result, clean) > 25
    assert snr_db(result, clean) > snr_db(pc, clean) - 3


def test_tighter_tolerances_cost_calls_and_buy_accuracy():
    y, z = torch.full((2, 1, 8, 6), Y), complex_noise(2, 1, 8, 6)
    errors, costs = [], []
    for tolerance in (1e-2, 1e-4, 1e-6):
        calls = []

        def denoise(x_t: Tensor, t: Tensor, calls=calls) -> Tensor:
            calls.append(t)
            return gaussian(x_t, t)

        options = {"rtol": tolerance, "atol": tolerance, "denoise_last": False}
        result = probability_flow_ode(denoise, OUVE(), y, lambda: z, **options)
        expected = exact_flow(OUVE().prior(y, z), torch.tensor(0.03, dtype=torch.float64))
        errors.append(float((result - expected).abs().max()))
        costs.append(len(calls))
        assert (len(calls) - 2) % 6 == 0
    assert errors[0] > 5 * errors[1] > 5 * errors[2]
    assert costs[0] < costs[1] < costs[2]


def test_times_stay_between_one_and_the_last():
    y, times = complex_noise(3, 1, 8, 6), []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        times.append(t)
        return gaussian(x_t, t)

    probability_flow_ode(denoise, OUVE(), y, drawing(y))
    times = torch.stack(times)
    assert torch.equal(times[0], torch.ones(3))
    assert torch.equal(times[-1], torch.full((3,), 0.03))
    assert times.min() == torch.tensor(0.03)


def test_a_broken_example_does_not_spoil_its_batch():
    y = complex_noise(3, 1, 8, 6)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        broken = torch.tensor([False, True, False])[:, None, None, None]
        return torch.where(broken, torch.full_like(x_t, math.nan), gaussian(x_t, t))

    result = probability_flow_ode(denoise, OUVE(), y, drawing(y))
    expected = probability_flow_ode(gaussian, OUVE(), y, drawing(y))
    assert result[1].isnan().all()
    assert torch.allclose(result[[0, 2]], expected[[0, 2]], rtol=1e-5, atol=1e-6)
