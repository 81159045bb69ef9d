"""NCSN++ against the numbers of the published network."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from diffse.networks.folding import fold, unfold
from diffse.networks.ncsnpp import NCSNpp, published_names, published_unused

# NCSN++M as StoRM's code has it; the paper says nothing of 2 x - 1.
NCSNPP_M = dict(ch_mult=(1, 2, 2, 2), num_res_blocks=1, attn_resolutions=(), centered=False)
PREDICTOR_M = dict(inputs=1, conditional=False, **NCSNPP_M)
SCORE_M = dict(inputs=3, output_scaling="before", **NCSNPP_M)
UNCONDITIONAL = dict(inputs=1, output_scaling="before")

VARIANTS = {
    "sgmse_ncsnpp_small": dict(output_scaling="before"),
    "sgmse_ncsnpp_v2_small": dict(),
    "sgmse_ncsnpp_48k_small": dict(output_scaling="after", pyramid=False, attn_resolutions=(), freq_bins=768),
    "storm_ncsnppM_disc_small": PREDICTOR_M,
    "storm_ncsnppM_score6_small": SCORE_M,
    "udiffse_uncond_small": UNCONDITIONAL,
}


@pytest.fixture(scope="module")
def recipe(golden):
    """The golden files' rule that makes weights from names."""
    spec = importlib.util.spec_from_file_location("recipe", golden / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_recipe_weights(network: NCSNpp, recipe, prefix: str = "") -> dict[str, np.ndarray]:
    """Fill a network by the golden rule and return the arrays by published name."""
    names = {own: prefix + name for own, name in published_names(network).items()}
    arrays = {names[own]: recipe.weight(names[own], tuple(p.shape)) for own, p in network.named_parameters()}
    network.load_state_dict({own: torch.from_numpy(arrays[name]) for own, name in names.items()})
    return arrays


def unused_weights(network: NCSNpp, shapes: dict, recipe) -> dict[str, np.ndarray]:
    """The published arrays that the network does without, by the golden rule."""
    return {name: recipe.weight(name, tuple(shapes[name])) for name in published_unused(network)}


def relative(actual, expected) -> float:
    return float((actual - expected).abs().max().detach() / expected.abs().max())


@pytest.mark.parametrize("name", VARIANTS)
def test_small_network_matches_the_published_output_and_gradients(name, golden, recipe):
    reference = torch.load(golden / f"{name}.pt", weights_only=True)
    network = NCSNpp(nf=16, **VARIANTS[name])
    arrays = load_recipe_weights(network, recipe)
    shapes = {key: stats[0] for key, stats in reference.get("stock_init_stats", {}).items()}
    assert recipe.digest(arrays | unused_weights(network, shapes, recipe)) == reference["weights_sha256"]
    inputs = [reference[key].requires_grad_() for key in ("x", "y") if key in reference]
    z = torch.cat(inputs, 1)  # StoRM's conditions are recorded behind x, SGMSE's by themselves
    output = network(z[:, :1], z[:, 1:], reference["t"])
    assert relative(output, reference["output"]) < 1e-4
    (output * reference["cotangent"].conj()).real.sum().backward()
    for key, value in zip(("grad_x", "grad_y"), inputs, strict=False):
        assert relative(value.grad, reference[key]) < 1e-3
    names = published_names(network)
    trained = {names[own]: p for own, p in network.named_parameters() if p.requires_grad}
    assert trained.keys() == reference["param_grad_norm"].keys()
    for published, parameter in trained.items():
        expected = float(reference["param_grad_norm"][published])
        assert float(parameter.grad.norm()) == pytest.approx(expected, rel=1e-3, abs=1e-3), published


FULL = {
    "sgmse_ncsnpp": (dict(output_scaling="before"), 65_590_822, 0),
    "sgmse_ncsnpp_v2": (dict(), 65_590_822, 0),
    "storm_ncsnppM_disc": (PREDICTOR_M, 27_342_350, 2_363_904 + 128),
    "storm_ncsnppM_score6": (SCORE_M, 27_776_038, 0),
    "udiffse_uncond": (UNCONDITIONAL, 65_558_292, 0),
}


@pytest.mark.parametrize("name", FULL)
def test_published_size_has_the_published_names_and_shapes(name, golden):
    options, published_count, unused_count = FULL[name]
    reference = json.loads((golden / f"{name}_full.json").read_text())
    with torch.device("meta"):
        network = NCSNpp(**options)
    names, unused = published_names(network), published_unused(network)
    assert not set(unused) & set(names.values())
    shapes = {names[own]: list(p.shape) for own, p in network.named_parameters()}
    needed = {key: value for key, value in reference["state_dict"].items() if key not in unused}
    assert shapes == needed
    assert list(shapes) == list(needed)  # the order importers rely on
    dead = sum(int(np.prod(reference["state_dict"][key])) for key in unused)
    assert dead == unused_count
    assert sum(p.numel() for p in network.parameters()) + dead == published_count
    if "n_trainable" in reference:
        fixed = sum(p.numel() for p in network.parameters() if not p.requires_grad)
        assert fixed == (128 if network.conditional else 0)
        assert reference["n_params"] - reference["n_trainable"] == 128


@pytest.mark.parametrize("name", ["sgmse_ncsnpp", "storm_ncsnppM_disc"])
def test_published_size_matches_the_published_output(name, golden, recipe):
    reference = np.load(golden / f"{name}_full.npz")
    description = json.loads((golden / f"{name}_full.json").read_text())
    network = NCSNpp(**FULL[name][0])
    arrays = load_recipe_weights(network, recipe)
    arrays |= unused_weights(network, description["state_dict"], recipe)
    assert recipe.digest(arrays) == description["weights_sha256"]
    x, t, expected = (torch.from_numpy(reference[key]) for key in ("x", "t", "output"))
    y = torch.from_numpy(reference["y"]) if "y" in reference else x[:, :0]
    with torch.inference_mode():
        assert relative(network(x, y, t), expected) < 5e-4


@pytest.mark.parametrize("name", ["sgmse_ncsnpp_v2_small", "storm_ncsnppM_disc_small"])
def test_initialisation_has_the_published_statistics(name, golden):
    reference = torch.load(golden / f"{name}.pt", weights_only=True)["stock_init_stats"]
    torch.manual_seed(0)
    network = NCSNpp(nf=16, **VARIANTS[name])
    names = published_names(network)
    for own, parameter in network.named_parameters():
        if names[own].startswith("output_layer"):
            continue  # a handful of values from torch's own default
        parameter = parameter.detach()
        shape, mean, std = reference[names[own]]
        assert list(parameter.shape) == shape
        tolerance = 5 * max(std, 1e-12) / np.sqrt(parameter.numel())
        assert float(parameter.mean()) == pytest.approx(mean, abs=2 * tolerance + 1e-9), names[own]
        if parameter.numel() > 1:
            assert float(parameter.std()) == pytest.approx(std, rel=0.35, abs=1e-6), names[own]


def test_stem_and_depth_are_free_and_wrong_shapes_are_refused():
    network = NCSNpp(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), stem=4, zero_output=True)
    x = torch.randn(2, 1, 256, 6, dtype=torch.complex64)
    output = network(x, x, torch.tensor([0.1, 0.9]))
    assert output.shape == x.shape
    assert output.abs().max() < 1e-3  # last convolutions start near zero
    with pytest.raises(ValueError, match="256 frequency bins"):
        network(x[:, :, :128], x[:, :, :128], torch.ones(2))
    with pytest.raises(ValueError, match="multiples of 2"):
        network(x[..., :5], x[..., :5], torch.ones(2))


@pytest.mark.parametrize("stem", [1, 4])
def test_folding_is_undone_exactly_and_neighbours_become_channels(stem):
    x = torch.randn(2, 1, 256, 5, dtype=torch.complex64)
    folded = fold(x, stem)
    assert folded.shape == (2, 2 * stem, 256 // stem, 5)
    assert torch.equal(unfold(folded, stem), x)
    for bin_ in (0, 1, 5, 255):
        assert torch.equal(folded[:, bin_ % stem, bin_ // stem], x[:, 0, bin_].real)
        assert torch.equal(folded[:, stem + bin_ % stem, bin_ // stem], x[:, 0, bin_].imag)


def tiny(**options) -> NCSNpp:
    torch.manual_seed(0)
    return NCSNpp(**(dict(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), stem=8) | options))


def test_predictor_has_nothing_that_depends_on_time():
    """The same blocks without the embedding and the layer of each block that takes it."""
    network = tiny(inputs=1, conditional=False)
    x = torch.randn(2, 1, 256, 4, dtype=torch.complex64)
    outputs = [network(x, x[:, :0], t) for t in (torch.ones(2), torch.tensor([0.1, 0.9]), torch.zeros(2))]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    conditional = tiny(inputs=1).state_dict()
    absent = conditional.keys() - network.state_dict().keys()
    assert absent == {name for name in conditional if "embedding." in name or ".dense." in name}
    assert all(p.requires_grad for p in network.parameters())
    with pytest.raises(ValueError, match="output_scaling is 'before'"):
        tiny(conditional=False, output_scaling="before")


def test_uncentred_input_is_two_v_minus_one():
    """On every real channel, so that zero becomes -1."""
    plain, uncentred = tiny(), tiny(centered=False)
    x = torch.randn(2, 2, 256, 4, dtype=torch.complex64)
    t = torch.tensor([0.1, 0.9])
    mapped = 2 * x - (1 + 1j)
    assert torch.allclose(uncentred(x[:, :1], x[:, 1:], t), plain(mapped[:, :1], mapped[:, 1:], t), rtol=1e-5)
