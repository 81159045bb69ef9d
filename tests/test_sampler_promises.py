"""Samplers: the grids of their times, and what every sampler promises."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from test_samplers import MU_0, complex_noise, drawing, law, snr_db
from torch import Tensor

from diffse.multistep import multistep
from diffse.processes import OUVE, SBVE
from diffse.samplers import (
    bridge_ode,
    bridge_sde,
    direct,
    predictor_corrector,
    probability_flow_ode,
    time_grid,
)

# ---------------------------------------------------------------------------------------------- the grid


RULES = ["uniform", "quadratic", "cosine"]


@pytest.mark.parametrize("t_eps", [0.0, 1e-4, 0.03])
@pytest.mark.parametrize("points", [2, 3, 31, 200])
@pytest.mark.parametrize("rule", RULES)
def test_grid_falls_from_exactly_one_to_exactly_its_end(rule, points, t_eps):
    grid = time_grid(points, t_eps, rule)
    assert grid.shape == (points,)
    assert grid[0] == 1
    assert grid[-1] == torch.tensor(t_eps)
    assert (grid[1:] < grid[:-1]).all()


@pytest.mark.parametrize("rule", RULES)
def test_grid_of_one_point_is_the_start(rule):
    assert torch.equal(time_grid(1, 0.03, rule), torch.ones(1))


def test_rules_put_the_short_steps_where_they_say():
    uniform, quadratic, cosine = (time_grid(41, 0.02, rule).diff().neg() for rule in RULES)
    assert torch.allclose(uniform, torch.full((40,), 0.98 / 40), rtol=1e-4)
    assert (quadratic[1:] < quadratic[:-1]).all()
    assert (cosine[1:20] > cosine[:19]).all()
    assert torch.allclose(cosine, cosine.flip(0), rtol=1e-3, atol=1e-6)
    middle = time_grid(3, 0.2, "quadratic")[1], time_grid(3, 0.2, "cosine")[1]
    assert torch.allclose(torch.stack(middle), torch.tensor([0.4, 0.6]))


@pytest.mark.parametrize("rule", RULES)
def test_samplers_ask_at_the_times_of_their_grid(rule):
    y, times = complex_noise(2, 1, 8, 6), []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        times.append(t)
        return 0.5 * x_t

    predictor_corrector(denoise, OUVE(), y, drawing(y), steps=4, corrector="none", grid=rule)
    assert torch.equal(torch.stack(times), time_grid(4, 0.03, rule)[:, None].expand(4, 2))
    for sampler, draw in ((bridge_ode, ()), (bridge_sde, (drawing(y),))):
        times.clear()
        sampler(denoise, SBVE(), y, *draw, steps=4, grid=rule)
        assert torch.equal(torch.stack(times), time_grid(5, 1e-4, rule)[:-1, None].expand(4, 2))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_leads_to_the_clean_signal(rule):
    clean, y = complex_noise(2, 1, 8, 6), complex_noise(2, 1, 8, 6, seed=1)
    for steps in (1, 2, 25):
        assert snr_db(bridge_ode(lambda x, t: clean, SBVE(), y, steps=steps, grid=rule), clean) > 60
    result = predictor_corrector(lambda x, t: clean, OUVE(), y, drawing(y), grid=rule)
    assert snr_db(result, clean) > 25
    mean_of_data = law(bridge_sde, SBVE(), 50, steps=50, t_eps=0.0, grid=rule)[0]
    assert abs(mean_of_data - MU_0) < 1e-12


@pytest.mark.parametrize("evaluate_at", ["previous", "target"])
@pytest.mark.parametrize("sampler", [bridge_ode, bridge_sde])
def test_result_may_be_the_last_estimate(sampler, evaluate_at):
    """EDM2SE returns what the network said last, of which the state at t_eps > 0 is only a part."""
    y, estimates = complex_noise(2, 1, 8, 6), []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        estimates.append(0.5 * x_t + 1)
        return estimates[-1]

    draw = () if sampler is bridge_ode else (drawing(y),)
    options = {"steps": 4, "t_eps": 0.1, "evaluate_at": evaluate_at}
    result = sampler(denoise, SBVE(), y, *draw, result="estimate", **options)
    assert result is estimates[-1]
    assert len(estimates) == 4
    draw = () if sampler is bridge_ode else (drawing(y),)
    assert not torch.allclose(sampler(denoise, SBVE(), y, *draw, **options), result, atol=0.01)


# ------------------------------------------------------------------------------------------ every sampler


PC, ODE = partial(predictor_corrector, steps=5), probability_flow_ode
SAMPLERS = {  # sampler, process, network calls (None: error control decides)
    "pc": (PC, OUVE(), 10),
    "pc with 3 corrections": (partial(PC, corrector_steps=3), OUVE(), 20),
    "pc without corrector": (partial(PC, corrector="none", corrector_steps=2), OUVE(), 5),
    "pc without predictor": (partial(PC, predictor="none", corrector_steps=2), OUVE(), 10),
    "pc euler": (partial(PC, predictor="euler_maruyama", grid="quadratic"), OUVE(), 10),
    "pc langevin": (partial(PC, corrector="langevin", snr=0.2), OUVE(), 10),
    "pc of one step": (partial(PC, steps=1, grid="cosine"), OUVE(), 2),
    "ode": (ODE, OUVE(), None),
    "ode without last step": (partial(ODE, denoise_last=False, rtol=1e-3), OUVE(), None),
    "bridge ode": (lambda d, p, y, draw: bridge_ode(d, p, y, steps=6), SBVE(), 6),
    "bridge sde": (partial(bridge_sde, steps=6, result="estimate", grid="cosine"), SBVE(), 6),
    "multistep": (partial(multistep, steps=6), OUVE(), 6),
    "multistep of order 1 with noise": (
        partial(multistep, steps=4, order=1, eta=0.5, grid="cosine"),
        OUVE(),
        4,
    ),
    "multistep on the bridge": (partial(multistep, steps=6), SBVE(), 6),
    "direct": (lambda d, p, y, draw: direct(d, y), None, 1),
}
WITHOUT_DRAWS = {"bridge ode", "multistep on the bridge", "direct"}


def sample(name: str, y: Tensor, draw: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """Result and number of network calls of a sampler around a shrinking estimate."""
    sampler, process, _ = SAMPLERS[name]
    calls = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        assert x_t.dtype == y.dtype
        assert t.shape == y.shape[:1]
        assert t.dtype == y.real.dtype
        return 0.5 * x_t + (0.4 - 0.2 * t[:, None, None, None]) * y

    return sampler(denoise, process, y, draw), len(calls)


@pytest.mark.parametrize("name", SAMPLERS)
def test_number_of_network_calls_is_the_documented_one(name):
    y = complex_noise(2, 1, 8, 6)
    result, calls = sample(name, y, drawing(y))
    assert SAMPLERS[name][2] in (None, calls)
    assert result.shape == y.shape
    assert result.dtype == y.dtype


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_gives_the_same_result_and_another_seed_another(name):
    y = complex_noise(2, 1, 8, 6)
    first, again, other = (sample(name, y, drawing(y, seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name in WITHOUT_DRAWS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_order_of_the_batch_does_not_matter(name):
    y, order = complex_noise(4, 1, 8, 6), torch.tensor([2, 0, 3, 1])
    draw, draw_again = drawing(y), drawing(y)
    result, _ = sample(name, y, draw)
    permuted, _ = sample(name, y[order], lambda: draw_again()[order])
    assert torch.allclose(permuted, result[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if "langevin" not in name])
def test_an_example_alone_gives_what_it_gives_in_a_batch(name):
    """Not so with the Langevin corrector, whose step size is an average over the batch, as published."""
    y = complex_noise(4, 1, 8, 6) * torch.tensor([1, 100, 1, 0])[:, None, None, None]
    draw, draw_again = drawing(y), drawing(y)
    result, _ = sample(name, y, draw)
    alone, _ = sample(name, y[2:3], lambda: draw_again()[2:3])
    assert torch.allclose(alone, result[2:3], rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SAMPLERS)
def test_gpu_gives_what_the_cpu_gives(name):
    y = complex_noise(2, 1, 8, 6)
    draw, draw_again = drawing(y), drawing(y)
    expected, _ = sample(name, y, draw)
    result, _ = sample(name, y.cuda(), lambda: draw_again().cuda())
    assert torch.allclose(result.cpu(), expected, rtol=1e-4, atol=1e-5)
