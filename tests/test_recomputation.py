"""Gradient checkpointing and kept memory: what they save, and that no number changes."""

import copy
import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from diffse import pages
from diffse.networks.mp_adm import MPADM
from diffse.networks.ncsnpp import NCSNpp
from diffse.networks.recomputation import recompute

NETWORKS = {
    "ncsnpp": lambda: NCSNpp(nf=16, ch_mult=(1, 2, 2), num_res_blocks=2, attn_resolutions=(8,), freq_bins=32),
    "ncsnpp with dropout": lambda: NCSNpp(nf=16, ch_mult=(1, 2), num_res_blocks=1, freq_bins=32, dropout=0.3),
    "mp_adm": lambda: MPADM(
        model_channels=16, channel_mult=(1, 2, 2), num_blocks=2, attn_resolutions=(8,), freq_bins=32
    ),
}


def backward(network: torch.nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Output, gradients, and bytes that autograd kept for the backward pass, weights left out."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 1, 32, 16, dtype=torch.complex64, generator=draw) for _ in range(2))
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = network(x, y, torch.full((2,), 0.5))
    held = sum(kept.values())
    out.abs().square().sum().backward()
    return out.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, held


@pytest.mark.parametrize("name", NETWORKS)
def test_recomputation_keeps_every_number_and_at_most_half_the_features(name):
    torch.manual_seed(0)
    network = tiny.woken(NETWORKS[name](), 0.1)
    other = copy.deepcopy(network)
    assert recompute(other) > 5
    assert other.state_dict().keys() == network.state_dict().keys()
    out, gradients, held = backward(network)
    out_again, gradients_again, held_again = backward(other)
    assert torch.equal(out, out_again)
    assert gradients.keys() == gradients_again.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradients_again[key], gradient, rtol=1e-6, atol=1e-6)
    assert held_again <= held / 2


def test_a_network_that_recomputes_can_be_used_without_gradients():
    network = NETWORKS["mp_adm"]()
    recompute(network)
    x = torch.randn(1, 1, 32, 16, dtype=torch.complex64)
    with torch.inference_mode():
        assert network(x, x, torch.ones(1)).shape == x.shape


FAULTS = """
import resource, sys
sys.path.insert(0, {source!r})
import torch
from diffse import pages
kept = pages.keep()
for _ in range(20):  # until the heap has the room
    torch.empty(1 << 24).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.empty(1 << 24).fill_(1)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("value", ["", "0"])
def test_kept_memory_costs_no_page_faults(value, monkeypatch):
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library has no mallopt")
    monkeypatch.setenv(pages.VARIABLE, value)
    code = FAULTS.format(source=str(Path(pages.__file__).parents[1]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    assert kept == str(value != "0")
    assert (int(faults) < 1000) == (value != "0")  # 64 MiB are 16384 pages, in each of twenty rounds
