"""Imported checkpoints against the numbers of the published programs."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_importers import lightning_file, published_shapes

from diffse import importers, recipes
from diffse.enhancer import Enhancer
from diffse.importers import edm2se, lightning

STORM = {"spatial_channels": 1, "spec_factor": 0.33, "sde": "ouve"}


@pytest.fixture(scope="module")
def recipe(golden):
    """The golden files' rule that makes weights from names."""
    spec = importlib.util.spec_from_file_location("recipe", golden / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def relative(actual, expected) -> float:
    return float(abs(actual - expected).max() / abs(expected).max())


# ----------------------------------------------------------------------------- against published numbers


@pytest.mark.parametrize(
    ("name", "noise", "options"),
    [("sgmse_ouve_ncsnpp", "noise_float", {"steps": 3}), ("storm_denoiser", "noise", {})],
)
def test_an_imported_checkpoint_enhances_as_the_published_program(name, noise, options, golden, tmp_path):
    """Its state dict holds other weights than its average, and its hyper-parameters name a class."""
    reference = np.load(golden / "e2e" / f"{name}_enhanced.npz")
    importers.run(golden / "e2e" / f"{name}.ckpt", tmp_path / "model")
    enhancer = Enhancer.from_checkpoint(tmp_path / "model", "cpu", **options)
    draws = iter(torch.from_numpy(reference[noise]))
    sample = enhancer._sample
    enhancer._sample = lambda y, draw: sample(y, lambda: next(draws))
    out = enhancer(reference["noisy"], 16000)
    assert relative(out, reference["enhanced_float"]) < 2e-5
    assert next(draws, None) is None


NETWORKS = {  # golden file -> hyper-parameters, kind
    "sgmse_ncsnpp_small": ({"backbone": "ncsnpp"}, "sgmse"),
    "sgmse_ncsnpp_v2_small": ({"backbone": "ncsnpp_v2", "sde": "sbve"}, "sgmse"),
    "sgmse_ncsnpp_48k_small": ({"backbone": "ncsnpp_48k"}, "sgmse"),
    "storm_ncsnppM_disc_small": ({"backbone": "ncsnpp", **STORM}, "storm"),
    "udiffse_uncond_small": ({}, "udiffse"),
}


def golden_weights(golden, recipe, name: str, prefix: str) -> tuple[dict, dict]:
    """A golden file, and its weights by published name in the order of the file."""
    reference = torch.load(golden / f"{name}.pt", weights_only=True)
    shapes = reference.get("weight_shapes") or {
        key: tuple(value.shape) for key, value in reference["state_dict"].items()
    }
    weights = {
        prefix + key: torch.from_numpy(recipe.weight(key, tuple(shape))) for key, shape in shapes.items()
    }
    return reference, weights


@pytest.mark.parametrize("name", NETWORKS)
def test_an_imported_network_gives_the_published_output(name, golden, recipe, tmp_path):
    hyper, kind = NETWORKS[name]
    reference, weights = golden_weights(golden, recipe, name, "dnn.")
    result = importers.run(lightning_file(tmp_path / "x.ckpt", weights, {"nf": 16, **hyper}), tmp_path / "m")
    assert result["kind"] == kind and result["warnings"] == []
    system = recipes.load_system(tmp_path / "m")
    y = reference.get("y", reference["x"][:, :0])
    assert relative(system.network(reference["x"], y, reference["t"]), reference["output"]) < 1e-4


def test_both_networks_of_storm_give_the_published_output(golden, recipe, tmp_path):
    """One list of averages covers both: predictor first."""
    predictor, weights = golden_weights(golden, recipe, "storm_ncsnppM_disc_small", "denoiser_net.")
    score, more = golden_weights(golden, recipe, "storm_ncsnppM_score6_small", "score_net.")
    path = lightning_file(tmp_path / "x.ckpt", weights | more, {"nf": 16, "condition": "both", **STORM})
    result = importers.run(path, tmp_path / "m")
    assert result["kind"] == "storm" and "predictor ncsnpp" in result["settings"]
    system = recipes.load_system(tmp_path / "m")
    x, none = predictor["x"], predictor["x"][:, :0]
    assert relative(system.network.predictor(x, none, predictor["t"]), predictor["output"]) < 1e-4
    x, t = score["x"], score["t"]
    assert relative(system.network.score(x[:, :1], x[:, 1:], t), score["output"]) < 1e-4


def test_a_state_dict_of_edm2se_gives_the_published_output(golden, tmp_path, monkeypatch):
    """The numbers were made with attention at 16 bins; the published program enhances with 16 and 8."""
    reference = torch.load(golden / "edm2se_cs1_small.pt", weights_only=True)
    path = tmp_path / "edm2se_vbdmd.ckpt"
    torch.save(reference["state_dict"], path)
    x, y = (torch.complex(z[:, :1], z[:, 1:]) for z in (reference["x"], reference["y"]))
    expected = torch.complex(reference["output"][:, :1], reference["output"][:, 1:])
    errors = {}
    for attention in ([16], [16, 8]):
        monkeypatch.setattr(edm2se, "_ATTENTION", attention)
        result = importers.run(path, tmp_path / f"m{len(attention)}")
        system = recipes.load_system(tmp_path / f"m{len(attention)}")
        given = system.objective.prepare(y)
        errors[len(attention)] = relative(system.objective.denoise(x, given, reference["t"]), expected)
    assert errors[1] < 1e-4
    assert 1e-4 < errors[2] < 0.05
    label = system.objective.coefficients(reference["t"]).c_noise.float()
    assert relative(system.network.logvar(label), reference["logvar"].flatten()) < 1e-4
    assert result["kind"] == "edm2se" and any("sigma_x" in warning for warning in result["warnings"])


SIZES = {  # kind -> parts of the file, parameters that are used, of all that it has
    "storm": (
        {"denoiser_net.": "storm_ncsnppM_disc", "score_net.": "storm_ncsnppM_score6"},
        27_342_350 - 2_363_904 - 128 + 27_776_038,
    ),
    "edm2se": ({"": "edm2se_cs1"}, 71_209_059 - 7_427_869),
    "sgmse": ({"dnn.": "sgmse_ncsnpp"}, 65_590_822),
    "udiffse": ({"dnn.": "udiffse_uncond"}, 65_558_292),
}


@pytest.mark.parametrize("kind", SIZES)
def test_every_tensor_of_the_published_size_finds_its_place(kind, golden):
    """Each tensor of the file is filled with its own number."""
    parts, parameters = SIZES[kind]
    shapes = {}
    for prefix, name in parts.items():
        reference = json.loads((golden / f"{name}_full.json").read_text())
        shapes |= {prefix + key: shape for key, shape in reference["state_dict"].items()}
    numbers = {key: torch.tensor(float(place), dtype=torch.half) for place, key in enumerate(shapes)}
    weights = {key: number.expand(shapes[key]) for key, number in numbers.items()}
    content = {"state_dict": weights, "hyper_parameters": {}, "ema": {"shadow_params": list(weights.values())}}
    published = lightning.parse(Path("x.ckpt"), weights if kind == "edm2se" else content)
    assert importers.detect(published) == kind
    plan = importers.KINDS[kind](published)
    train, stft, _ = importers._settings(published.source, "x", plan)
    network, _ = importers._network(published, plan, train, stft)
    assert recipes.count_parameters(network) == parameters
    names = sys.modules[type(network).__module__].published_names(network)
    for own, value in network.state_dict().items():
        assert (value.min() == value.max() == numbers[plan.prefix + names[own]]).item(), own
        assert value.dtype == torch.float32


# ------------------------------------------------------------------------- hyper-parameters to objectives


def golden_json(golden, name: str) -> dict:
    return json.loads((golden / f"{name}_losses.json").read_text())


def imported_objective(path, weights: dict, hyper: dict, kind: str):
    """Objective of the imported system, and its training settings."""
    result = importers.run(lightning_file(path, weights, hyper), path.parent / "m")
    assert result["kind"] == kind
    system = recipes.load_system(path.parent / "m")
    return system.objective, system.train


def batch(golden, name: str) -> list[torch.Tensor]:
    """The published batch x_0, y, t, z."""
    numbers = np.load(golden / f"{name}_loss_batch.npz")
    return [torch.from_numpy(numbers[key]) for key in ("X", "Y", "t", "z") if key in numbers]


SGMSE_LOSSES = [
    "score_matching",
    "v2_score_matching_c_out_1/sigma",
    "v2_score_matching_scaling_1/sigma",
    "v2_score_matching_scaling_1/t",
    "v2_denoiser_w1",
    "v2_denoiser_sigma2",
    "v2_denoiser_edmweight_B3_as_shipped",
    "v2_data_prediction_sbve",
    "v2_data_prediction_sbve_edm_precond",
    "v2_data_prediction_sbve_pesq",
    "v2_score_matching_edm_precond",
]


@pytest.mark.parametrize("name", SGMSE_LOSSES)
def test_hyper_parameters_of_sgmse_give_the_published_loss(name, golden, recipe, tmp_path):
    expected = golden_json(golden, "sgmse")["losses"][name]
    _, weights = golden_weights(golden, recipe, "sgmse_ncsnpp_small", "dnn.")
    hyper = {"nf": 16, "sigma_data": 0.1, "l1_weight": 0.001, **expected["config"]}
    objective, _ = imported_objective(tmp_path / "x.ckpt", weights, hyper, "sgmse")
    loss = objective.loss(*batch(golden, "sgmse")).mean()
    assert float(loss) == pytest.approx(expected["loss"], rel=1e-4)


STORM_LOSSES = {  # published loss -> prefixes of its networks, inputs of the score network, hyper-parameters
    "score_mse": ("dnn.", 2, {}),
    "score_mae": ("dnn.", 2, {"loss_type": "mae"}),
    "disc_mse": ("dnn.", 0, {"discriminative": True}),
    "storm_joint_both": ("", 3, {"condition": "both"}),
    "storm_joint_post_denoiser": ("", 2, {"condition": "post_denoiser"}),
    "storm_joint_noisy": ("", 2, {"condition": "noisy"}),
}


@pytest.mark.parametrize("name", STORM_LOSSES)
def test_hyper_parameters_of_storm_give_the_published_loss(name, golden, recipe, tmp_path):
    """Weights follow from names, which carry the prefixes here."""
    prefix, inputs, hyper = STORM_LOSSES[name]
    sizes = {"nf": 16, "ch_mult": (1, 2, 2, 2), "num_res_blocks": 1, "attn_resolutions": ()}
    shapes = {}
    if prefix != "dnn." or inputs == 0:
        shapes |= published_shapes(prefix or "denoiser_net.", inputs=1, conditional=False, **sizes)
    if inputs:
        shapes |= published_shapes(prefix or "score_net.", inputs=inputs, **sizes)
    weights = {key: torch.from_numpy(recipe.weight(key, shape)) for key, shape in shapes.items()}
    objective, train = imported_objective(tmp_path / "x.ckpt", weights, {"nf": 16, **STORM, **hyper}, "storm")
    loss = objective.loss(*batch(golden, "storm")).mean()
    assert float(loss) == pytest.approx(golden_json(golden, "storm")["losses"][name]["loss"], rel=1e-4)
    assert train.factor == 0.33


def test_hyper_parameters_of_udiffse_give_the_published_loss(golden, recipe, tmp_path):
    _, weights = golden_weights(golden, recipe, "udiffse_uncond_small", "dnn.")
    objective, train = imported_objective(tmp_path / "x.ckpt", weights, {"nf": 16}, "udiffse")
    x_0, t, z = batch(golden, "udiffse")
    loss = objective.loss(x_0, x_0, t, z).mean()
    assert float(loss) == pytest.approx(golden_json(golden, "udiffse")["score_mse"], rel=1e-4)
    assert train.normalise == "clean"
