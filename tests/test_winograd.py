"""Convolutions by Winograd's algorithm against the direct ones: outputs, gradients, and when each is used."""

import json
import os
import subprocess
import sys

import pytest
import tiny
import torch
import torch.nn.functional as nnf

from diffse import costs, winograd
from diffse.compiling import compile_
from diffse.networks.blocks import conv
from diffse.networks.magnitude import MPConv
from diffse.networks.mp_adm import MPADM
from diffse.networks.ncsnpp import NCSNpp

needs_it = pytest.mark.skipif(not winograd.available(), reason="this CPU gains nothing by Winograd's algorithm")
CHANNELS = winograd.CHANNELS


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """Shapes of the inputs that went through Winograd's algorithm."""
    found, convolved = [], winograd._convolved

    def noting(x, *rest):
        found.append(tuple(x.shape))
        return convolved(x, *rest)

    monkeypatch.setattr(winograd, "_convolved", noting)
    return found


def example(batch: int = 2, c_in: int = CHANNELS, c_out: int = CHANNELS, f: int = 32, t: int = 64) -> tuple:
    """Input, filters and bias."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(batch, c_in, f, t, generator=source)
    weight = torch.randn(c_out, c_in, 3, 3, generator=source) * (9 * c_in) ** -0.5
    return x, weight, torch.randn(c_out, generator=source)


def apart(own: torch.Tensor, other: torch.Tensor) -> float:
    return float((own - other).detach().norm() / other.detach().norm())


@needs_it
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("batch", "c_in", "c_out", "f", "t"), [(1, 128, 128, 48, 64), (3, 192, 130, 41, 47)])
def test_outputs_and_gradients_are_those_of_the_direct_convolution(batch, c_in, c_out, f, t, with_bias, calls):
    leaves = example(batch, c_in, c_out, f, t)[: 3 if with_bias else 2]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    expected = nnf.conv2d(*leaves, padding=1)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    others = torch.autograd.grad(expected, leaves, grad)
    own = winograd.conv2d(*leaves)
    assert apart(own, expected) < 1e-5
    for found, other in zip(torch.autograd.grad(own, leaves, grad), others, strict=True):
        assert apart(found, other) < 1e-5
    assert len(calls) == 2  # forward, and the gradient of the input


@pytest.mark.parametrize("pairs", [1, 9, 4096])  # of one matrix product: a row, some rows, all
def test_gradients_pass_the_numerical_check(pairs, monkeypatch):
    """In double precision, with the direct convolution in the place of NNPACK's: on every CPU."""
    monkeypatch.setattr(winograd, "_PAIRS", pairs)
    monkeypatch.setattr(winograd, "_convolved", lambda x, w, b=None: nnf.conv2d(x, w, b, padding=1))
    leaves = [leaf.double().requires_grad_() for leaf in example(2, 3, 2, 5, 6)]
    assert torch.autograd.gradcheck(winograd._Convolution.apply, leaves)


@needs_it
def test_frozen_inputs_and_filters_cost_no_gradient(calls):
    x, weight, bias = example()
    winograd.conv2d(x, weight.requires_grad_(), bias).sum().backward()
    assert len(calls) == 1 and x.grad is None
    x = x.requires_grad_()
    winograd.conv2d(x, weight.detach(), bias).sum().backward()
    assert len(calls) == 3 and x.grad is not None


@needs_it
@pytest.mark.parametrize("layer", [conv(CHANNELS, CHANNELS), MPConv(CHANNELS, CHANNELS, 3)])
def test_layers_use_it(layer, calls):
    x = example(1)[0]
    with torch.inference_mode():
        layer(x)
    assert calls == [tuple(x.shape)]


UNSERVED = {
    "few channels": dict(c_in=winograd.CHANNELS - 1),
    "few places": dict(f=16, t=winograd.PLACES // 16 - 1),
}


@pytest.mark.parametrize("name", UNSERVED)
def test_small_convolutions_stay_direct(name, calls):
    leaves = example(**UNSERVED[name])
    assert torch.equal(winograd.conv2d(*leaves), nnf.conv2d(*leaves, padding=1))
    assert not calls


def test_other_kinds_of_numbers_and_orders_stay_direct(calls):
    x, weight, bias = example(1)
    for kind in (torch.float64, torch.bfloat16):
        winograd.conv2d(x.to(kind), weight.to(kind), bias.to(kind))
    winograd.conv2d(x.to(memory_format=torch.channels_last), weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert winograd.conv2d(x, weight, bias).dtype == torch.bfloat16
    meta = winograd.conv2d(x.to("meta"), weight.to("meta"), bias.to("meta"))
    assert meta.shape == x.shape and not calls


CODE = "from diffse import winograd; import json; print(json.dumps(winograd.available()))"


@needs_it
@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True)])
def test_it_can_be_switched_off(value, expected):
    environment = os.environ | {winograd.VARIABLE: value}
    printed = subprocess.check_output([sys.executable, "-c", CODE], text=True, env=environment)
    assert json.loads(printed) is expected


def test_a_wider_cpu_does_without(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not winograd.available.__wrapped__()


NETWORKS = {
    "ncsnpp": lambda: NCSNpp(nf=CHANNELS, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), freq_bins=64),
    "mp_adm": lambda: MPADM(2, CHANNELS, (1, 1), 1, (), freq_bins=64),
}


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return tiny.woken(NETWORKS[name]())


@needs_it
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_the_same_output_and_gradients(name, calls, monkeypatch):
    network = built(name)
    x = torch.randn(1, 1, 64, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))

    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        network.zero_grad()
        out = network(x, x, torch.full((1,), 0.5))
        out.abs().square().mean().backward()
        return out.detach(), [p.grad for p in network.parameters() if p.grad is not None]

    own, gradients = run()
    assert calls
    monkeypatch.setattr(winograd, "available", lambda: False)
    expected, others = run()
    assert apart(own, expected) < 1e-5
    assert apart(torch.cat([g.flatten() for g in gradients]), torch.cat([g.flatten() for g in others])) < 1e-5


@needs_it
def test_arithmetic_is_counted_as_that_of_direct_convolutions(monkeypatch):
    network = built("ncsnpp").requires_grad_(False)
    x, t = torch.randn(1, 1, 64, 64, dtype=torch.complex64), torch.full((1,), 0.5)
    counts = []
    for active in (True, False):
        monkeypatch.setattr(winograd, "available", lambda active=active: active)
        with costs.counter() as counted:
            network(x, x, t)
        counts.append(counted.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_the_order_of_memory_follows_the_algorithm(monkeypatch):
    monkeypatch.setattr(winograd, "available", lambda: True)
    large, small = conv(CHANNELS, CHANNELS), conv(CHANNELS - 1, CHANNELS)
    assert winograd.memory_format(large) == torch.contiguous_format
    assert winograd.memory_format(small) == torch.channels_last
    monkeypatch.setattr(winograd, "available", lambda: False)
    assert winograd.memory_format(large) == torch.channels_last


@pytest.mark.slow
def test_compiled_networks_do_without(calls):
    network = torch.nn.Sequential(conv(CHANNELS, CHANNELS))
    x = example(1)[0]
    with torch.inference_mode():
        expected = network(x)
        calls.clear()
        compile_(network)
        assert apart(network(x), expected) < 1e-5
    assert not calls
