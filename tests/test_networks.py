"""NCSN++ against the numbers of the published network."""

import hashlib
import importlib.util
import json

import numpy as np
import pytest
import torch

from diffse.networks.ncsnpp import NCSNpp, published_names

VARIANTS = {
    "sgmse_ncsnpp_small": dict(output_scaling="before"),
    "sgmse_ncsnpp_v2_small": dict(),
    "sgmse_ncsnpp_48k_small": dict(output_scaling="after", pyramid=False, attn_resolutions=(), freq_bins=768),
}


@pytest.fixture(scope="module")
def recipe(golden):
    """The golden files' rule that makes weights from names."""
    spec = importlib.util.spec_from_file_location("recipe", golden / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_recipe_weights(network: NCSNpp, recipe) -> dict[str, np.ndarray]:
    """Fill a network by the golden rule and return the arrays by published name."""
    names = published_names(network)
    arrays = {names[own]: recipe.weight(names[own], tuple(p.shape)) for own, p in network.named_parameters()}
    network.load_state_dict({own: torch.from_numpy(arrays[name]) for own, name in names.items()})
    return arrays


def relative(actual, expected) -> float:
    return float((actual - expected).abs().max().detach() / expected.abs().max())


@pytest.mark.parametrize("name", VARIANTS)
def test_small_network_matches_the_published_output_and_gradients(name, golden, recipe):
    reference = torch.load(golden / f"{name}.pt", weights_only=True)
    network = NCSNpp(nf=16, **VARIANTS[name])
    arrays = load_recipe_weights(network, recipe)
    assert recipe.digest(arrays) == reference["weights_sha256"]
    x, y = reference["x"].requires_grad_(), reference["y"].requires_grad_()
    output = network(x, y, reference["t"])
    assert relative(output, reference["output"]) < 1e-4
    (output * reference["cotangent"].conj()).real.sum().backward()
    assert relative(x.grad, reference["grad_x"]) < 1e-3
    assert relative(y.grad, reference["grad_y"]) < 1e-3
    names = published_names(network)
    for own, parameter in network.named_parameters():
        if parameter.requires_grad:
            expected = float(reference["param_grad_norm"][names[own]])
            assert float(parameter.grad.norm()) == pytest.approx(expected, rel=1e-3, abs=1e-3), names[own]


@pytest.mark.parametrize("name", ["sgmse_ncsnpp", "sgmse_ncsnpp_v2"])
def test_published_size_has_the_published_names_and_shapes(name, golden):
    reference = json.loads((golden / f"{name}_full.json").read_text())
    with torch.device("meta"):
        network = NCSNpp()
    names = published_names(network)
    shapes = {names[own]: list(p.shape) for own, p in network.named_parameters()}
    assert shapes == reference["state_dict"]
    assert list(shapes) == list(reference["state_dict"])  # the order importers rely on
    assert sum(p.numel() for p in network.parameters()) == reference["n_params"] == 65_590_822
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == reference["n_trainable"]


def test_published_size_matches_the_published_output(golden, recipe):
    reference = np.load(golden / "sgmse_ncsnpp_full.npz")
    network = NCSNpp(output_scaling="before")
    arrays = load_recipe_weights(network, recipe)
    expected_hash = json.loads((golden / "sgmse_ncsnpp_full.json").read_text())["weights_sha256"]
    assert recipe.digest(arrays) == expected_hash
    x, y, t, expected = (torch.from_numpy(reference[key]) for key in ("x", "y", "t", "output"))
    with torch.inference_mode():
        assert relative(network(x, y, t), expected) < 5e-4


def test_initialisation_has_the_published_statistics(golden):
    reference = torch.load(golden / "sgmse_ncsnpp_v2_small.pt", weights_only=True)["stock_init_stats"]
    torch.manual_seed(0)
    network = NCSNpp(nf=16)
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


def test_folding_is_undone_exactly():
    network = NCSNpp(nf=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), stem=4)
    x = torch.randn(2, 1, 256, 5, dtype=torch.complex64)
    assert torch.equal(network._unfold(network._fold(x)), x)
    digest = hashlib.sha256(network._fold(x).numpy().tobytes()).hexdigest()
    assert digest != hashlib.sha256(x.numpy().tobytes()).hexdigest()
