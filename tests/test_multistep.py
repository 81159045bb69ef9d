"""The multistep sampler: the bridge's own steps at order 1, the flow at order 2, the SDE's law with noise."""

import math

import pytest
import torch
from test_samplers import MU_0, ONE, S_0, Y, complex_noise, drawing, law, posterior_mean, relative

from diffse.multistep import multistep
from diffse.processes import OUVE, SBVE
from diffse.samplers import bridge_ode, bridge_sde, time_grid


@pytest.mark.parametrize(("eta", "sampler"), [(0.0, bridge_ode), (1.0, bridge_sde)])
def test_order_1_on_the_bridge_takes_the_papers_steps(eta, sampler):
    y, steps, t_eps = complex_noise(2, 1, 8, 6), 6, 0.1
    last = float(time_grid(steps + 1, t_eps)[-2])  # the time of the paper's last evaluation

    def denoise(x_t, t):
        return 0.5 * x_t + (0.4 - 0.2 * t[:, None, None, None]) * y

    draw = drawing(y)
    draw_again = drawing(y)
    draw_again()  # of the start, which has none on the bridge
    own = (draw_again,) if eta else ()
    expected = sampler(denoise, SBVE(), y, *own, steps=steps, t_eps=t_eps, result="estimate")
    found = multistep(denoise, SBVE(), y, draw, steps=steps, order=1, eta=eta, t_eps=last)
    assert relative(found, expected) < 1e-5
    second = multistep(denoise, SBVE(), y, drawing(y), steps=steps, order=2, t_eps=last)
    assert relative(second, expected) > 1e-3


def flow(process: OUVE, t_eps: float) -> tuple[complex, float]:
    """Mean and variance of the estimate at t_eps on the exact probability-flow ODE, for Gaussian data."""
    end = torch.tensor([t_eps], dtype=torch.float64)
    marginal = [math.sqrt(float(process.a(t)) ** 2 * S_0**2 + float(process.std(t)) ** 2) for t in (ONE, end)]
    means = [process.a(t) * MU_0 + process.b(t) * Y for t in (ONE, end)]
    states = [means[1] + (start - means[0]) * marginal[1] / marginal[0] for start in (Y, Y + process.std(ONE))]
    ends = [posterior_mean(process, s.reshape(1, 1, 1, 1).to(torch.complex128), end).item() for s in states]
    return ends[0], abs(ends[1] - ends[0]) ** 2


@pytest.mark.parametrize("order", [1, 2])
def test_error_falls_with_the_order(order):
    expected = flow(OUVE(), 0.03)
    errors = []
    for steps in (20, 40, 80):
        found = law(multistep, OUVE(), 1, steps=steps, order=order, t_eps=0.03)
        errors.append(abs(found[0] - expected[0]) + abs(math.sqrt(found[1]) - math.sqrt(expected[1])))
    ratio = math.sqrt(errors[0] / errors[2])
    assert ratio == pytest.approx(2**order, rel=0.3)


def test_with_noise_it_reaches_the_law_of_the_data():
    coarse, fine = (law(multistep, SBVE(), n, steps=n, order=1, eta=1.0, t_eps=1e-5) for n in (400, 800))
    assert abs(fine[0] - MU_0) < 1e-4
    assert fine[1] == pytest.approx(S_0**2, rel=0.03)
    assert abs(fine[1] - S_0**2) < 0.65 * abs(coarse[1] - S_0**2)


def test_with_noise_it_reaches_the_law_of_the_reverse_sde():
    """The start CN(y, s(1)^2) is not the marginal at t = 1; the SDE shrinks that gap by a known factor."""
    process = OUVE()
    coarse, fine = (law(multistep, process, n, steps=n, order=1, eta=1.0, t_eps=1e-5) for n in (200, 400))
    a, s = float(process.a(ONE)), float(process.std(ONE))
    left = a * S_0**2 / (a**2 * S_0**2 + s**2)  # of a deviation at t = 1
    assert abs(2 * fine[0] - coarse[0] - (MU_0 + left * (Y - (a * MU_0 + (1 - a) * Y)))) < 1e-3
    assert 2 * fine[1] - coarse[1] == pytest.approx(S_0**2 - left**2 * a**2 * S_0**2, rel=5e-3)


def test_t_start_begins_at_the_noisy_input_with_less_noise():
    y, times = complex_noise(1, 1, 64, 64), []

    def denoise(x_t, t):
        times.append((float(t[0]), float((x_t - y).abs().square().mean())))
        return y

    multistep(denoise, OUVE(), y, drawing(y), steps=3, t_start=0.5, t_eps=0.1)
    assert [t for t, _ in times] == pytest.approx([0.5, 0.3, 0.1])
    assert times[0][1] == pytest.approx(float(OUVE().std(torch.tensor([0.5]))) ** 2, rel=0.05)
