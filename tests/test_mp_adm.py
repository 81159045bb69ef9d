"""MP-ADM against the numbers of the published network, and what magnitude preservation promises."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from diffse.edm2se import EDM2SE
from diffse.networks.folding import fold, unfold
from diffse.networks.magnitude import (
    MPAttention,
    MPConv,
    MPFourier,
    conv_of_doubled,
    mp_cat,
    mp_silu,
    pixel_norm,
    sum_weights,
)
from diffse.networks.mp_adm import MPADM, DecoderBlock, EncoderBlock, published_names, published_unused
from diffse.processes import SBVE
from diffse.spectrogram import Spectrogram

SMALL = dict(model_channels=16, channels_per_head=16, balance="raw")
TINY = dict(model_channels=8, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(), channels_per_head=8)
LABELS = torch.tensor([-0.6, -0.2])


@pytest.fixture(scope="module")
def recipe(golden):
    """The golden files' rule that makes weights from names."""
    spec = importlib.util.spec_from_file_location("recipe", golden / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_recipe_weights(network: MPADM, recipe, shapes: dict) -> dict[str, np.ndarray]:
    """Fill a network by the golden rule and return the arrays by published name, unused ones included."""
    names = published_names(network)
    arrays = {names[own]: recipe.weight(names[own], tuple(p.shape)) for own, p in network.state_dict().items()}
    network.load_state_dict({own: torch.from_numpy(arrays[name]) for own, name in names.items()})
    return arrays | {name: recipe.weight(name, tuple(shapes[name])) for name in published_unused(network)}


def as_complex(x: Tensor) -> Tensor:
    """Real and imaginary channels [..., 2, F, T] -> complex [..., 1, F, T]."""
    return torch.complex(x[..., 0:1, :, :], x[..., 1:2, :, :])


def published_objective(network: MPADM, **options) -> EDM2SE:
    """The published system around a network: the recorded outputs are its clean estimates."""
    options = {"c_in": "published", "weighting": "published"} | options
    return EDM2SE(network, SBVE(per_channel=True, epsilon=1e-8), Spectrogram(factor=0.9375), **options)


def relative(actual: Tensor, expected: Tensor) -> float:
    return float(((actual - expected).abs().max() / expected.abs().max()).detach())


def complex_noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def speaking(**options) -> MPADM:
    """A network whose gains are open; as initialised they are 0 and so is the output."""
    torch.manual_seed(0)
    network = MPADM(**options)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(0.7)
    return network


# ------------------------------------------------------------------------------------ published numbers


@pytest.fixture(scope="module")
def small(golden, recipe):
    reference = torch.load(golden / "edm2se_cs1_small.pt", weights_only=True)
    network = MPADM(**SMALL)
    shapes = {name: value.shape for name, value in reference["state_dict"].items()}
    arrays = load_recipe_weights(network, recipe, shapes)
    assert recipe.digest(arrays) == reference["weights_sha256"]
    assert list(sorted(arrays)) == list(sorted(shapes))
    return reference, network.eval()


def test_small_network_matches_the_published_output_and_gradients(small):
    reference, network = small
    x, y, t = as_complex(reference["x"]).requires_grad_(), as_complex(reference["y"]), reference["t"]
    objective = published_objective(network)
    output = objective.denoise(x, objective.prepare(y), t)
    logvar = network.logvar(objective.coefficients(t).c_noise)
    assert relative(output, as_complex(reference["output"])) < 1e-5
    assert relative(logvar, reference["logvar"].flatten()) < 1e-5
    network.zero_grad()
    ((output * as_complex(reference["cotangent"]).conj()).real.sum() + logvar.sum()).backward()
    assert relative(x.grad, as_complex(reference["grad_x"])) < 1e-4
    names = published_names(network)
    expected = reference["param_grad_norm"]
    assert {names[own] for own, _ in network.named_parameters()} == set(expected)
    for own, parameter in network.named_parameters():
        assert float(parameter.grad.norm()) == pytest.approx(expected[names[own]], rel=1e-3), own


def test_normalised_weights_are_those_of_the_published_training(small):
    reference, network = small
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, y, t = as_complex(reference["x"]), as_complex(reference["y"]), reference["t"]
    objective = published_objective(network)
    try:
        network.normalise_weights_()
        with torch.inference_mode():
            output = objective.denoise(x, objective.prepare(y), t)
        assert relative(output, as_complex(reference["output_train_mode"])) < 1e-5
        names, expected = published_names(network), reference["after_train_forward_norms"]
        for own, value in network.state_dict().items():
            if not own.startswith("logvar_linear"):  # that head was not called in the recorded pass
                assert float(value.norm()) == pytest.approx(expected[names[own]], rel=1e-5), own
    finally:
        network.load_state_dict(before)


def test_sigmoid_balance_is_the_raw_balance_in_other_coordinates(small):
    reference, network = small
    other = MPADM(**SMALL | {"balance": "sigmoid"}).eval()
    state = network.state_dict()
    balances = [name for name in state if name.endswith("condition.balance")]
    assert len(balances) == 20
    other.load_state_dict(state | {name: torch.logit(state[name]) for name in balances})
    x, y = as_complex(reference["x"]), as_complex(reference["y"])
    with torch.inference_mode():
        assert relative(other(x, y, LABELS), network(x, y, LABELS)) < 1e-5


@pytest.mark.parametrize(("attn_resolutions", "unused"), [((16,), 8_738_589), ((16, 8), 7_427_869)])
def test_published_size_has_the_published_names_and_shapes(attn_resolutions, unused, golden):
    reference = json.loads((golden / "edm2se_cs1_full.json").read_text())
    with torch.device("meta"):
        network = MPADM(balance="raw", attn_resolutions=attn_resolutions)
    names = published_names(network)
    shapes = {names[own]: list(value.shape) for own, value in network.state_dict().items()}
    dropped = published_unused(network)
    assert shapes == {name: s for name, s in reference["state_dict"].items() if name not in dropped}
    assert set(dropped) <= set(reference["state_dict"])
    assert sum(int(np.prod(reference["state_dict"][name])) for name in dropped) == unused
    assert sum(p.numel() for p in network.parameters()) == reference["n_params"] - unused
    assert reference["n_params"] == 71_209_059


def test_published_size_matches_the_published_output(golden, recipe):
    description = json.loads((golden / "edm2se_cs1_full.json").read_text())
    reference = np.load(golden / "edm2se_cs1_full.npz")
    network = MPADM(balance="raw").eval()
    arrays = load_recipe_weights(network, recipe, description["state_dict"])
    assert recipe.digest(arrays) == description["weights_sha256"]
    objective = published_objective(network)
    x, y, t, expected, logvar = (torch.from_numpy(reference[k]) for k in ("x", "y", "t", "output", "logvar"))
    with torch.inference_mode():
        output = objective.denoise(as_complex(x), objective.prepare(as_complex(y)), t)
        assert relative(network.logvar(objective.coefficients(t).c_noise), logvar.flatten()) < 1e-5
    assert relative(output, as_complex(expected)) < 5e-5


# --------------------------------------------------------------------------------- magnitude preservation


@torch.no_grad()
def test_layers_keep_unit_variance():
    torch.manual_seed(0)
    x, other = torch.randn(4, 64, 32, 32), torch.randn(4, 64, 32, 32)
    for layer in (MPConv(64, 128, 3), MPConv(64, 128, 1)):
        layer.weight.mul_(7)  # the stored scale must not matter
        inside = layer(x)[..., 1:-1, 1:-1]  # zeros beyond the edges
        assert float(inside.var()) == pytest.approx(1, abs=0.02)
        assert float(layer(x, gain=0.25)[..., 1:-1, 1:-1].var()) == pytest.approx(1 / 16, rel=0.02)
    assert float(mp_silu(x).square().mean()) == pytest.approx(1, abs=0.01)
    for balance in (0.3, 0.5, torch.tensor(0.9)):
        keep, add = sum_weights(balance)
        assert float(add / keep) == pytest.approx(float(balance) / (1 - float(balance)))
        assert float((keep * x + add * other).var()) == pytest.approx(1, abs=0.02)
    assert float(MPFourier(4096)(torch.tensor([-0.7])).square().mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("f", "frames"), [(1, 1), (4, 6), (5, 3)])
def test_convolution_of_doubled_places_is_the_plain_one(f, frames):
    x = torch.randn(2, 3, f, frames, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    doubled = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    expected = torch.nn.functional.conv2d(doubled, weight, padding=1)
    found = conv_of_doubled(x, weight)
    assert torch.allclose(found, expected, atol=1e-12)
    seen = torch.randn_like(expected)
    gradients = (torch.autograd.grad((out * seen).sum(), (x, weight)) for out in (found, expected))
    for own, plain in zip(*gradients, strict=True):
        assert torch.allclose(own, plain, atol=1e-11)
    assert torch.autograd.gradcheck(conv_of_doubled, (x[:1], weight[:2]))


def test_normalised_rows_have_unit_root_mean_square():
    """The published anchor 0.9998 for unit filters: the small constant divides, too."""
    layer = MPConv(32, 16, 3)
    with torch.no_grad():
        layer.weight.mul_(0.5)
    layer.normalise_()
    assert torch.allclose(layer.weight.square().mean((1, 2, 3)).sqrt(), torch.tensor(0.9998), atol=5e-5)
    x = torch.randn(2, 16, 5, 3)
    expected = x / (1e-4 + x.square().mean(1, keepdim=True).sqrt())
    assert torch.allclose(pixel_norm(x), expected, rtol=1e-5)


def test_silence_has_no_infinite_gradient():
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    pixel_norm(x).sum().backward()
    assert torch.equal(pixel_norm(x), torch.zeros(1, 4, 2, 2))
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(("n_a", "n_b", "balance"), [(24, 8, 0.5), (16, 16, 0.5), (16, 16, 0.3)])
def test_concatenation_shares_the_variance_as_balanced(n_a, n_b, balance):
    torch.manual_seed(0)
    a, b = torch.randn(2, n_a, 64, 64), torch.randn(2, n_b, 64, 64)
    joined = mp_cat(a, b, balance)
    assert float(joined.square().mean()) == pytest.approx(1, abs=0.02)
    share = joined[:, n_a:].square().sum() / joined.square().sum()
    assert float(share) == pytest.approx(balance**2 / (balance**2 + (1 - balance) ** 2), abs=0.01)


def test_features_stay_of_unit_size_through_the_network():
    network = speaking(model_channels=16, channels_per_head=16)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)  # the stored scale must not matter
    sizes = []
    for block in network.modules():
        if isinstance(block, EncoderBlock | DecoderBlock):
            block.register_forward_hook(lambda *call: sizes.append(float(call[-1].square().mean())))
    x = complex_noise(0, 1, 1, 256, 64) * 2**0.5
    with torch.inference_mode():
        network(x, x, LABELS[:1])
    assert len(sizes) == 49
    assert min(sizes) > 0.3  # zeros beyond the edges matter on 4 x 1 places
    assert max(sizes) < 3


def test_forward_writes_no_weight_and_normalising_hardly_moves_the_output():
    network = speaking(**TINY).train()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, y = complex_noise(0, 2, 1, 256, 6), complex_noise(1, 2, 1, 256, 6)
    output = network(x, y, LABELS)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.normalise_weights_()
    for name, value in network.named_parameters():
        if value.ndim > 1:
            assert torch.allclose(value.flatten(1).square().mean(1), torch.ones(()), atol=1e-3), name
        else:
            assert torch.equal(value, before[name])
    assert 0 < relative(network(x, y, LABELS), output) < 1e-3


# ----------------------------------------------------------------------------------- shapes and settings


def test_a_new_network_says_nothing_and_hears_half_of_its_condition():
    for kind, half in (("sigmoid", 0.0), ("raw", 0.5)):
        network = MPADM(**TINY, balance=kind)
        x = complex_noise(0, 1, 1, 256, 2)
        assert torch.equal(network(x, x, LABELS[:1]), torch.zeros_like(x))
        balances = [value for name, value in network.named_parameters() if name.endswith("balance")]
        assert len(balances) == 3
        assert all(value.item() == half for value in balances)
    with pytest.raises(ValueError, match="balance"):
        MPADM(**TINY, balance="half")


@pytest.mark.parametrize("stem", [1, 4])
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_any_number_of_conditions_and_any_stem(inputs, stem):
    network = speaking(inputs=inputs, stem=stem, **TINY)
    x, y = complex_noise(0, 2, 1, 256, 6), complex_noise(1, 2, inputs - 1, 256, 6)
    output = network(x, y, LABELS)
    assert output.shape == x.shape
    assert output.dtype == torch.complex64
    assert relative(network(x, y, LABELS + 0.3), output) > 1e-2
    for part in range(inputs - 1):
        moved = y.clone()
        moved[:, part] += complex_noise(9, 2, 256, 6)
        assert relative(network(x, moved, LABELS), output) > 1e-2


def test_frames_are_free_and_examples_do_not_meet():
    network = speaking(**TINY | {"attn_resolutions": (128,)}).eval()
    assert network.frame_multiple == 2
    for frames in (2, 6, 30):
        x, y = complex_noise(0, 2, 1, 256, frames), complex_noise(1, 2, 1, 256, frames)
        together = network(x, y, LABELS)
        alone = torch.cat([network(x[i : i + 1], y[i : i + 1], LABELS[i : i + 1]) for i in range(2)])
        assert relative(alone, together) < 1e-5


def test_wrong_sizes_are_refused():
    network = MPADM(**TINY)
    x = complex_noise(0, 2, 1, 256, 6)
    with pytest.raises(ValueError, match=r"256 frequency bins .* not 128"):
        network(x[:, :, :128], x[:, :, :128], LABELS)
    with pytest.raises(ValueError, match="multiples of 2, not 256 x 5"):
        network(x[..., :5], x[..., :5], LABELS)
    with pytest.raises(ValueError, match="1 conditions, not 1 and 0"):
        network(x, x[:, :0], LABELS)
    with pytest.raises(ValueError, match="multiples of 8, not 257"):
        MPADM(**TINY | {"stem": 4}, freq_bins=257)


def test_attention_dropout_and_clipping_act_where_they_should():
    x = complex_noise(0, 1, 1, 256, 4)
    plain, attending = speaking(**TINY), speaking(**TINY | {"attn_resolutions": (256,)})
    assert [block.attention is not None for block in plain.decoder.values()] == [True] + 6 * [False]
    assert sum(block.attention is not None for block in attending.encoder.values()) == 1
    assert sum(block.attention is not None for block in attending.decoder.values()) == 3
    dropping = speaking(**TINY, dropout=0.5)
    assert torch.equal(dropping.eval()(x, x, LABELS[:1]), plain(x, x, LABELS[:1]))
    assert relative(dropping.train()(x, x, LABELS[:1]), plain(x, x, LABELS[:1])) > 0.01
    assert not speaking(**TINY, clip=0.0)(x, x, LABELS[:1]).any()


def test_attention_sees_every_place():
    """A change in the last frame reaches the first one only where a block attends."""
    x, y = complex_noise(0, 1, 1, 256, 64), complex_noise(1, 1, 1, 256, 64)
    moved = y.clone()
    moved[..., -1] += 1
    for attending in (True, False):
        network = speaking(**TINY).eval()
        if not attending:
            network.decoder["128_in0"].attention = None
        change = (network(x, moved, LABELS[:1]) - network(x, y, LABELS[:1])).abs()[..., 0].max()
        assert (change.item() > 0) == attending


def test_heads_share_the_channels_equally():
    for channels, per_head, heads in ((128, 64, 2), (16, 64, 1), (20, 6, 2)):
        attention = MPAttention(channels, per_head, 0.3)
        assert attention.heads == heads
        assert attention(torch.randn(1, channels, 2, 3)).shape == (1, channels, 2, 3)


@torch.no_grad()
def test_log_variance_follows_its_label_alone():
    network = speaking(**TINY)
    assert network.logvar(LABELS).shape == (2,)
    assert network.logvar(LABELS)[0] != network.logvar(LABELS)[1]
    assert float(network.logvar(LABELS)[1]) == pytest.approx(float(network.logvar(LABELS[1:])), abs=1e-6)


@pytest.mark.parametrize("stem", [1, 4])
def test_folding_is_undone_exactly_and_keeps_neighbours_together(stem):
    x = complex_noise(0, 2, 1, 16, 5)
    folded = fold(x, stem)
    assert folded.shape == (2, 2 * stem, 16 // stem, 5)
    assert torch.equal(unfold(folded, stem), x)
    for channel in range(stem):
        assert torch.equal(folded[:, channel], x.real[:, 0, channel::stem])
        assert torch.equal(folded[:, stem + channel], x.imag[:, 0, channel::stem])


def test_kept_filters_follow_every_change_of_the_weights():
    """Without gradients the normalised filters are computed once; what changes the weights makes them anew."""
    torch.manual_seed(0)
    layer, x = MPConv(4, 6, 3), torch.randn(1, 4, 8, 8)
    other = MPConv(4, 6, 3)

    def agrees() -> bool:
        with torch.no_grad():
            kept = [layer(x), layer(x), layer(x, gain=2.0)]
        computed = layer(x).detach()
        return all(
            torch.equal(a, b) for a, b in zip(kept, (computed, computed, layer(x, gain=2.0)), strict=True)
        )

    assert agrees()
    layer.normalise_()
    assert agrees()
    layer.load_state_dict(other.state_dict())
    assert agrees()
    torch.optim.SGD(layer.parameters(), 0.1).step()
    layer(x).sum().backward()
    torch.optim.SGD(layer.parameters(), 0.1).step()
    assert agrees()
    layer.double(), other.double()
    x = x.double()
    assert agrees()
