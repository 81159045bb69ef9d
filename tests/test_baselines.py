"""The baseline networks: DCUNet, Conv-TasNet and GaGNet."""

import sys

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from diffse.networks.conv_tasnet import ConvTasNet
from diffse.networks.dcunet import ComplexConv, ComplexConvTranspose, ComplexLinear, DCUNet
from diffse.networks.gagnet import FrequencyUNet, GaGNet

SMALL_DCUNET = {"channels": (4, 4, 4, 8, 8, 16), "freq_bins": 97, "embedding": 16}
SMALL_GAGNET = {"freq_bins": 96, "channels": 4, "features": 16, "stages": 2, "squeeze": 8, "groups": 1}
SMALL_TASNET = {
    "enc_num_feats": 32, "msk_num_feats": 16, "msk_num_hidden_feats": 32, "msk_num_layers": 3,
    "msk_num_stacks": 2,
}  # fmt: skip


def spectra(seed: int, *shape: int, dtype: torch.dtype = torch.complex64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).detach().abs().max() / expected.detach().abs().max())


def case(name: str, frames: int = 13, batch: int = 3) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A small network with seeded weights, and its arguments, one per batch item."""
    torch.manual_seed(0)
    if name == "conv_tasnet":
        return ConvTasNet(**SMALL_TASNET), (spectra(1, batch, 1, 100 * frames).real,)
    if name == "gagnet":
        x = spectra(1, batch, 1, 96, frames)
        return GaGNet(**SMALL_GAGNET), (x, x[:, :0], torch.ones(batch))
    conditional = name == "dcunet"
    x, y = spectra(1, batch, 1, 97, frames), spectra(2, batch, 1 if conditional else 0, 97, frames)
    network = DCUNet(inputs=2 if conditional else 1, conditional=conditional, **SMALL_DCUNET)
    return network, (x, y, torch.linspace(0.1, 0.9, batch))


NAMES = ["dcunet", "dcunet_unconditional", "gagnet", "conv_tasnet"]


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# --------------------------------------------------------------------------------------- published sizes


def test_parameters_are_as_many_as_published():
    with torch.device("meta"):
        one, two, gagnet, tasnet = DCUNet(), DCUNet(embedding_layers=2), GaGNet(), ConvTasNet()
    assert (count(one), count(two)) == (3_531_970, 3_564_994)
    assert count(one) - sum(p.numel() for p in one.parameters() if p.requires_grad) == 64
    assert sum(buffer.numel() for buffer in one.buffers()) == 3_350
    assert count(gagnet) == 11_782_153
    # The published number has room for one more 1x1 convolution: the residual of the last block, unused.
    assert count(tasnet) + 512 * 128 + 128 == 4_918_193
    assert tasnet.network.mask_generator.receptive_field == 1531


# ------------------------------------------------------------------------------------- shapes and batches


@pytest.mark.parametrize("frames", [1, 2, 7, 32])
@pytest.mark.parametrize("name", NAMES)
def test_output_has_the_shape_of_the_input(name, frames):
    network, arguments = case(name, frames, 2)
    output = network(*arguments)
    assert output.shape == arguments[0].shape and output.dtype == arguments[0].dtype
    assert output.isfinite().all()


@pytest.mark.parametrize("length", [1, 15, 16, 17, 1000, 1023])
def test_conv_tasnet_returns_as_many_samples_as_it_gets(length):
    network = ConvTasNet(**SMALL_TASNET)
    assert network(torch.randn(2, 1, length)).shape == (2, 1, length)


@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_dcunet_takes_any_number_of_conditions(inputs):
    network = DCUNet(inputs=inputs, **SMALL_DCUNET).eval()
    x, y = spectra(0, 2, 1, 97, 5), spectra(1, 2, inputs - 1, 97, 5)
    output = network(x, y, torch.ones(2))
    assert output.shape == x.shape
    for place in range(inputs - 1):  # every condition is looked at
        changed = y.clone()
        changed[:, place] += 1
        assert relative(network(x, changed, torch.ones(2)), output) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_batched_equals_single(name):
    network, arguments = case(name)
    network(*arguments)  # batch statistics that are not those of a fresh network
    network.eval()
    batched = network(*arguments)
    for item in range(3):
        single = network(*(argument[item : item + 1] for argument in arguments))
        assert relative(single, batched[item : item + 1]) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name):
    network, arguments = case(name)
    output = network(*arguments)
    (output * output.conj()).real.sum().backward()
    for own, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, own


def test_wrong_sizes_are_refused():
    x = spectra(0, 1, 1, 64, 8)
    with pytest.raises(ValueError, match="97 frequency bins, not 64"):
        DCUNet(**SMALL_DCUNET)(x, x, torch.ones(1))
    with pytest.raises(ValueError, match="96 frequency bins, not 64"):
        GaGNet(**SMALL_GAGNET)(x, x, torch.ones(1))
    for freq_bins in (256, 89):
        with pytest.raises(ValueError, match="multiple of 8 and at least 96"):
            DCUNet(freq_bins=freq_bins)
    with pytest.raises(ValueError, match="6 channel numbers, not 2"):
        DCUNet(channels=(4, 8))
    with pytest.raises(ValueError, match="at least 34, not 33"):
        GaGNet(freq_bins=33)
    with pytest.raises(ValueError, match="odd, not 2"):
        GaGNet(taps=2)
    for network in (GaGNet, ConvTasNet):
        with pytest.raises(ValueError, match="takes 1 input, not 2"):
            network(inputs=2)
    with pytest.raises(ValueError, match="must be 3, not 5"):
        ConvTasNet(msk_kernel_size=5)


def test_smallest_sizes_work():
    x = spectra(0, 1, 1, 34, 3)
    assert GaGNet(**SMALL_GAGNET | {"freq_bins": 34})(x).shape == x.shape  # 97 bins are DCUNet's: see above


def test_missing_torchaudio_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio.models", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs torchaudio: install it with .*diffse\[train\]"):
        ConvTasNet()


# ------------------------------------------------------------------------------------------------ DCUNet


def parts(z: Tensor) -> Tensor:
    return torch.cat([z.real, z.imag], 1)


def joined(h: Tensor) -> Tensor:
    return torch.complex(*h.chunk(2, 1))


@pytest.mark.parametrize("stride, dilation", [((1, 1), (1, 1)), ((2, 1), (2, 1)), ((2, 2), (4, 1))])
def test_complex_convolution_is_one(stride, dilation):
    """conv(i z) = i conv(z) without bias, and it is the convolution with the complex weight f1 + i f2."""
    layer = ComplexConv(3, 5, stride, dilation).double()
    z = spectra(0, 2, 3, 33, 12, dtype=torch.complex128)
    output = joined(layer(parts(z)))
    assert relative(joined(layer(parts(1j * z))), 1j * output) < 1e-13
    weight = torch.complex(layer.f1.weight, layer.f2.weight)
    expected = nnf.conv2d(z, weight, stride=stride, padding=2, dilation=dilation)
    assert relative(output, expected) < 1e-13


@pytest.mark.parametrize("stride, dilation", [((1, 1), (1, 1)), ((2, 1), (2, 1)), ((2, 2), (4, 1))])
def test_transposed_complex_convolution_is_the_adjoint(stride, dilation):
    """<conv(u), v> = <u, conv*(v)>; the transposed layer holds the complex conjugate weight of the adjoint."""
    down = ComplexConv(3, 5, stride, dilation).double()
    up = ComplexConvTranspose(5, 3, stride, dilation).double()
    with torch.no_grad():
        up.f1.weight.copy_(down.f1.weight)  # [c_out, c_in, ...] of the one is [c_in, c_out, ...] of the other
        up.f2.weight.copy_(-down.f2.weight)
    u = spectra(0, 2, 3, 33, 12, dtype=torch.complex128)
    image = joined(down(parts(u)))
    v = spectra(1, *image.shape, dtype=torch.complex128)
    back = joined(up(parts(v), u.shape[-2:]))
    assert back.shape == u.shape
    assert complex((image * v.conj()).sum().detach()) == pytest.approx(
        complex((u * back.conj()).sum().detach()), rel=1e-12
    )


def test_complex_bias_and_linear_layer_follow_the_rule():
    layer = ComplexConvTranspose(2, 1, (1, 1), (1, 1), bias=True)
    at_zero = layer(torch.zeros(1, 4, 6, 6), (5, 5))
    expected = torch.stack([layer.f1.bias - layer.f2.bias, layer.f1.bias + layer.f2.bias], 1)
    assert torch.allclose(at_zero, expected[..., None, None].expand(1, 2, 5, 5))
    linear, z = ComplexLinear(3, 4), spectra(0, 2, 3)
    weight = torch.complex(linear.f1.weight, linear.f2.weight)
    offset = torch.complex(linear.f1.bias - linear.f2.bias, linear.f1.bias + linear.f2.bias)
    assert relative(joined(linear(parts(z))), z @ weight.T + offset) < 1e-5


def test_dcunet_knows_the_time_only_when_conditional():
    for name, expected in (("dcunet", False), ("dcunet_unconditional", True)):
        network, (x, y, t) = case(name)
        network.eval()
        assert torch.equal(network(x, y, t), network(x, y, 1.1 - t)) is expected


def test_dcunet_keeps_its_statistics_in_the_state_dict():
    network, arguments = case("dcunet")
    fresh, _ = case("dcunet")
    for _ in range(3):
        network(*arguments)
    network.eval()
    fresh.eval()
    expected = network(*arguments)
    assert relative(fresh(*arguments), expected) > 1e-2
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh(*arguments), expected)
    assert torch.equal(network(*arguments), expected)  # inference leaves no trace


# ------------------------------------------------------------------------------------------------ GaGNet


def test_gagnet_is_a_bounded_complex_mask():
    network, (x, y, t) = case("gagnet")
    mask = network(x, y, t) / x
    assert mask.real.abs().max() <= 1 + 1e-5 and mask.imag.abs().max() <= 1 + 1e-5
    assert mask.std() > 0.01
    x[..., 5] = 0
    assert network(x, y, t)[..., 5].abs().max() == 0


def test_gagnet_pads_missing_bins_with_zeros():
    """96 bins are 97 with a last one of zeros."""
    narrow, (x, y, t) = case("gagnet")
    wide = GaGNet(**SMALL_GAGNET | {"freq_bins": 97})
    wide.load_state_dict(narrow.state_dict())
    expected = wide(nnf.pad(x, (0, 0, 0, 1)), y, t)
    assert torch.equal(narrow(x, y, t), expected[:, :, :96])


def test_gagnet_looks_into_the_future():
    network, (x, y, t) = case("gagnet", frames=32)
    changed = x.clone()
    changed[..., -1] *= 3
    assert relative(network(changed, y, t)[..., :8], network(x, y, t)[..., :8]) > 1e-5


def test_u_net_of_gagnet_reaches_across_the_band():
    """Bin 15 of 31 hangs on bin 7 of level 1, that on 3 of level 2, that on 1 of level 3: it sees 8 to 22."""
    block = FrequencyUNet(4, 3)
    for layer in (*block.down, *block.up):
        layer[1][0] = nn.Identity()  # instance normalisation couples all bins
    x = torch.randn(1, 4, 31, 2, requires_grad=True)
    block(x)[0, 0, 15, 1].backward()
    reached = x.grad.abs().amax((0, 1)).nonzero()
    assert reached.tolist() == [[bin_, 1] for bin_ in range(8, 23)]


# ------------------------------------------------------------------------------------------------- learning


def overfit(network: nn.Module, arguments: tuple, target: Tensor, steps: int) -> float:
    """Last loss on one batch, over the energy of the target: 1 for silence, 0.75 to 3 for the input itself."""
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(steps):
        loss = (network(*arguments) - target).abs().square().mean() / target.abs().square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def test_dcunet_learns_to_remove_noise():
    network, (x, _, t) = case("dcunet", 16, 2)
    clean = torch.zeros_like(x)
    clean[:, :, 8::12] = 2 * spectra(5, 2, 1, 1, 16)  # harmonics that share one course
    assert overfit(network, (clean + x, clean + x.flip(-1), t), clean, 80) < 0.2


def test_gagnet_learns_to_remove_noise():
    network, (x, y, t) = case("gagnet", 16, 2)
    clean = torch.zeros_like(x)
    clean[:, :, 8::12] = 2 * spectra(5, 2, 1, 1, 16)
    assert overfit(network, (clean + 0.5 * x, y, t), clean, 40) < 0.1


def test_conv_tasnet_learns_to_remove_noise():
    network, (noise,) = case("conv_tasnet", 20, 2)
    n = torch.arange(noise.shape[-1])
    clean = torch.sin(0.05 * n * (1 + 2e-4 * n)) * torch.ones(2, 1, 1)
    assert overfit(network, (clean + noise,), clean, 75) < 0.1
