"""Samplers: the published trajectories, step by step."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from diffse.processes import OUVE, SBVE
from diffse.samplers import bridge_ode, bridge_sde, predictor_corrector, probability_flow_ode


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


class Recorded:
    """One recorded run of a published sampler around a closed-form model, replayed and compared."""

    def __init__(self, path: Path) -> None:
        numbers = np.load(path)
        self.y, self.mu_0, self.noise, self.eval_x, self.eval_t, self.eval_out, self.result = (
            torch.from_numpy(numbers[name])
            for name in ("y", "mu0", "noise", "eval_x", "eval_t", "eval_out", "result")
        )
        self.s_0 = float(numbers["s0"])
        self.draws: Iterator[Tensor] = iter(self.noise)
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def draw(self) -> Tensor:
        return next(self.draws)

    def score_model(self, x_t: Tensor, t: Tensor) -> Tensor:
        """-(x - mean) / variance for x_0 ~ CN(mu_0, s_0^2) on OUVE(1.5, 0.05, 0.5), as a clean estimate."""
        t = t[:, None, None, None]
        a = torch.exp(-1.5 * t)
        kernel = 0.05**2 * (100**t - torch.exp(-3 * t)) * math.log(10) / (1.5 + math.log(10))
        score = -(x_t - (a * self.mu_0 + (1 - a) * self.y)) / (a**2 * self.s_0**2 + kernel)
        self.calls.append((x_t, t.flatten(), score))
        return (x_t + kernel * score - (1 - a) * self.y) / a

    def bridge_model(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Posterior mean of x_0 ~ CN(mu_0, s_0^2) on the bridge with k = 2.6, c = 0.4."""
        total = 2.6**2 - 1
        w_y = ((2.6 ** (2 * t.double()) - 1) / total).float()[:, None, None, None]
        w_x, kernel = 1 - w_y, w_y * (1 - w_y) * 0.4 * total / (2 * math.log(2.6))
        gain = w_x * self.s_0**2 / (w_x**2 * self.s_0**2 + kernel)
        estimate = self.mu_0 + gain * (x_t - w_x * self.mu_0 - w_y * self.y)
        self.calls.append((x_t, t, estimate))
        return estimate

    def worst(self, measure: Callable[[Tensor, Tensor], float], of: str) -> float:
        """Largest difference over all model evaluations: of "x", "t" or "out"."""
        assert len(self.calls) == len(self.eval_x)
        assert next(self.draws, None) is None
        place = ("x", "t", "out").index(of)
        recorded = (self.eval_x, self.eval_t, self.eval_out)[place]
        return max(measure(call[place], expected) for call, expected in zip(self.calls, recorded, strict=True))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgmse_traj_pc_ald_N30", {}),
        ("sgmse_traj_pc_langevin_N10", {"steps": 10, "corrector": "langevin", "snr": 0.2}),
        ("sgmse_traj_pc_none_N10", {"steps": 10, "corrector": "none"}),
        ("storm_traj_pc_none_N50", {"steps": 50, "corrector": "none", "fixed_dt": True}),
        ("storm_traj_pc_ald_N20", {"steps": 20, "fixed_dt": True}),
    ],
)
def test_predictor_corrector_takes_the_published_steps(name, options, golden):
    run = Recorded(golden / f"{name}.npz")
    result = predictor_corrector(run.score_model, OUVE(), run.y, run.draw, **options)
    assert run.worst(relative, "x") < 1e-5
    assert run.worst(relative, "t") < 1e-6
    assert run.worst(relative, "out") < 1e-5
    assert relative(result, run.result) < 1e-5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgmse_traj_ode_rk45", {"denoise_last": False}),
        ("storm_traj_ode_rk45_denoise", {"last_dt": 1 / 30}),
    ],
)
def test_probability_flow_ode_ends_where_the_published_one_does(name, options, golden):
    """Its steps differ: the published code controls the error of all examples together."""
    run = Recorded(golden / f"{name}.npz")
    result = probability_flow_ode(run.score_model, OUVE(), run.y, run.draw, **options)
    assert relative(run.calls[0][0], run.eval_x[0]) < 1e-6
    assert relative(run.calls[0][2], run.eval_out[0]) < 1e-5
    assert float((result - run.result).abs().max()) < 1e-4
    without = {"denoise_last": not options.get("denoise_last", True)}
    run = Recorded(golden / f"{name}.npz")
    other = probability_flow_ode(run.score_model, OUVE(), run.y, run.draw, **without)
    assert float((other - run.result).abs().max()) > 1e-3


def test_bridge_sde_takes_the_published_steps(golden):
    run = Recorded(golden / "sgmse_traj_sb_sde_N50.npz")
    result = bridge_sde(run.bridge_model, SBVE(epsilon=1e-8), run.y, run.draw, evaluate_at="target")
    assert run.worst(relative, "x") < 1e-5
    assert run.worst(relative, "t") < 1e-6
    assert run.worst(relative, "out") < 1e-5
    assert relative(result, run.result) < 1e-5


def test_bridge_ode_takes_the_published_steps(golden):
    """Looser: the published schedule loses three digits at t = 1 in single precision."""

    def absolute(actual: Tensor, expected: Tensor) -> float:
        return float((actual - expected).abs().max())

    run = Recorded(golden / "sgmse_traj_sb_ode_N50.npz")
    result = bridge_ode(run.bridge_model, SBVE(epsilon=1e-8), run.y, evaluate_at="target")
    assert run.worst(absolute, "x") < 2e-3
    assert run.worst(relative, "t") < 1e-6
    assert absolute(result, run.result) < 1.5e-3
