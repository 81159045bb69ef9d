"""Compiled networks: the numbers of the plain ones, at every size, compiled once."""

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from diffse import recipes, settings
from diffse.compiling import compile_
from diffse.networks.recomputation import recompute
from diffse.presets import table
from diffse.settings_reader import build

SIZES = [(2, 128), (2, 192), (1, 128), (3, 256), (1, 64), (2, 64)]  # examples and frames


def network_of(preset: str) -> torch.nn.Module:
    """Of a preset, with values where weights start at zero."""
    train = build(settings.Train, table()[preset].value["train"])
    torch.manual_seed(0)
    network = recipes.build_network(train, train.stft or settings.Stft())
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad and parameter.abs().max() < 1e-3:
                parameter.normal_(0, 0.02)
    return network


def inputs(examples: int, frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, y = torch.randn(2, examples, 1, 256, frames, dtype=torch.complex64)
    return x, y, torch.full((examples,), 0.5)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["m1_small", "edm2se_small"])
def test_one_program_serves_all_lengths_and_batches(preset):
    plain = network_of(preset).eval()
    compiled = copy.deepcopy(plain)
    assert compile_(compiled) == 1
    assert compile_(compiled) == 1  # no second time
    graphs = []
    with torch.inference_mode():
        for size in SIZES:
            given = inputs(*size)
            assert distance(compiled(*given), plain(*given)) < 1e-5
            graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert len(set(graphs)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_plain_network(checkpointing):
    plain = network_of("m1_small")
    compiled = copy.deepcopy(plain)
    if checkpointing:
        recompute(compiled)
    compile_(compiled, fixed_size=True)
    given = inputs(2, 64)
    for network in (plain, compiled):
        network(*given).abs().square().mean().backward()
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for own, other in zip(compiled.parameters(), plain.parameters(), strict=True):
        if other.grad is not None:
            assert distance(own.grad, other.grad) < 1e-4
