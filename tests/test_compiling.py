"""Compiled networks: the numbers of the plain ones, at every size, compiled once."""

import copy

import pytest
import tiny
import torch
from torch._dynamo.utils import counters

from diffse.compiling import compile_
from diffse.networks.mp_adm import MPADM
from diffse.networks.ncsnpp import NCSNpp
from diffse.networks.recomputation import recompute

SIZES = [(2, 16), (2, 24), (1, 16), (3, 32), (1, 8), (2, 8)]  # examples and frames
BINS = 32
NETWORKS = {
    "ncsnpp": lambda: NCSNpp(
        nf=8, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), bottleneck_attention=False, freq_bins=BINS
    ),
    "mp_adm": lambda: MPADM(
        model_channels=8, channel_mult=(1, 1), num_blocks=1, attn_resolutions=(), freq_bins=BINS
    ),
}


def network_of(name: str) -> torch.nn.Module:
    """A tiny network, with values where weights start at zero."""
    torch.manual_seed(0)
    return tiny.woken(NETWORKS[name]())


def inputs(examples: int, frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, y = torch.randn(2, examples, 1, BINS, frames, dtype=torch.complex64)
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
@pytest.mark.parametrize("name", NETWORKS)
def test_one_program_serves_all_lengths_and_batches(name):
    plain = network_of(name).eval()
    compiled = copy.deepcopy(plain)
    assert compile_(compiled) == 1
    assert compile_(compiled) == 1  # no second time
    graphs = []
    with torch.inference_mode():
        for size in SIZES:
            given = inputs(*size)
            assert distance(compiled(*given), plain(*given)) < 1e-5
            graphs.append(counters["stats"]["unique_graphs"])
    assert set(graphs) == {1}, dict(counters["graph_break"])  # one for the whole network: it breaks nowhere


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_plain_network(checkpointing):
    plain = network_of("ncsnpp")
    compiled = copy.deepcopy(plain)
    if checkpointing:
        recompute(compiled)
    compile_(compiled, fixed_size=True)
    given = inputs(2, 16)
    for network in (plain, compiled):
        network(*given).abs().square().mean().backward()
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for own, other in zip(compiled.parameters(), plain.parameters(), strict=True):
        if other.grad is not None:
            assert distance(own.grad, other.grad) < 1e-4
