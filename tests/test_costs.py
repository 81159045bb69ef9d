"""What enhancing costs: arithmetic against the shapes of the layers, memory against what was taken."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from test_enhancer import make_checkpoint
from torch import nn

from diffse import costs, enhance_corpus, paths, settings, training
from diffse.enhancer import Enhancer
from diffse.metrics import evaluate


def enhancer(folder, steps: int) -> Enhancer:
    return Enhancer.from_checkpoint(make_checkpoint(folder), device="cpu", steps=steps)


def by_shapes(system: Enhancer, wave: np.ndarray) -> int:
    """MACs of all convolutions and dense layers, from what goes in and comes out of them."""
    total = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    layers = [m for m in system.system.network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    system(wave, system.rate)
    for hook in hooks:
        hook.remove()
    return total


def test_arithmetic_is_that_of_the_layers(tmp_path):
    wave = tiny.voice(0, 1.0)
    system = enhancer(tmp_path, steps=3)
    found = costs.macs_per_second(system, wave)
    assert found == pytest.approx(by_shapes(system, wave), rel=0.05)  # filters of the resampling come on top
    assert found >= by_shapes(system, wave)


def test_arithmetic_grows_with_the_steps_and_not_with_the_length(tmp_path):
    one, two = (costs.macs_per_second(enhancer(tmp_path / str(n), n), tiny.voice(0, 2.04)) for n in (1, 2))
    assert two == pytest.approx(2 * one, rel=1e-3)
    twice = costs.macs_per_second(enhancer(tmp_path / "3", 1), np.tile(tiny.voice(0, 2.04), 3))
    assert twice == pytest.approx(one, rel=0.15)  # padding weighs less


def test_counting_leaves_the_count_of_evaluations_alone(tmp_path):
    system = enhancer(tmp_path, steps=3)
    costs.macs_per_second(system, tiny.voice(0, 0.5))
    assert (system._counted.signals, system._counted.examples) == (0, 0)


BLOCKS = """
import numpy as np, torch
from diffse import costs
with costs.PeakMemory(torch.device("cpu")) as before:
    pass
with costs.PeakMemory(torch.device("cpu")) as within:
    block = np.ones(25_000_000)  # 200 MB
    block[::512] += 1
del block
with costs.PeakMemory(torch.device("cpu")) as after:
    pass
print(before.megabytes, within.megabytes, after.megabytes)
"""


def test_peak_memory_is_that_of_the_block():
    # a process of its own: one that has trained or enhanced keeps freed memory
    done = subprocess.run([sys.executable, "-c", BLOCKS], capture_output=True, text=True, check=True)
    before, within, after = map(float, done.stdout.split())
    assert 190 < within - before < 260
    assert after < within - 100


@pytest.mark.gpu
def test_peak_memory_of_a_gpu_is_what_was_allocated():
    with costs.PeakMemory(torch.device("cuda")) as memory:
        torch.ones(25_000_000, device="cuda")
    assert memory.megabytes >= 100


def test_costs_reach_the_summary(tmp_path):
    params = tiny.make_project(tmp_path, recipes=["bridge"], evaluate={"metrics": ["si_sdr"], "processes": 1})
    training.run(params, "bridge.toy", tmp_path)
    made = enhance_corpus.run(params, "bridge.toy", "toy", tmp_path)
    evaluate.run(params, "bridge.toy", "toy", tmp_path)
    summary = json.loads((paths.results(tmp_path, "bridge.toy", "toy") / "summary.json").read_text())
    for name in ("macs_per_second", "peak_memory_mb", "parameters", "evaluations", "real_time_factor"):
        assert summary[name] == made[name] > 0
    again = enhance_corpus.run(params, "bridge.toy", "toy", tmp_path)
    assert again["macs_per_second"] == made["macs_per_second"]
    fewer = settings.Evaluate(metrics=("si_sdr",), processes=1)
    evaluate.run(dataclasses.replace(params, evaluate=fewer), "unprocessed", "toy", tmp_path)
    summary = json.loads((paths.results(tmp_path, "unprocessed", "toy") / "summary.json").read_text())
    assert summary["macs_per_second"] is None
