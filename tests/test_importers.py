"""Published checkpoints become checkpoints of diffse that compute what the published programs compute."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from tiny import voice

from diffse import checkpoint, importers
from diffse.enhancer import Enhancer
from diffse.errors import DiffseError
from diffse.importers import lightning, sgmse
from diffse.networks import ncsnpp
from diffse.networks.ncsnpp import NCSNpp

SMALL = {"nf": 8, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": []}
SCORE = {"inputs": 2}
PREDICTOR = {"inputs": 1, "conditional": False}
PAIR = {"denoiser_net.": PREDICTOR, "score_net.": {"inputs": 3}}


def lightning_file(path, weights: dict, hyper: dict | None, average: bool = True, **changes):
    """A file as Lightning writes it: the average has `weights`, the state dict others."""
    noise = torch.Generator().manual_seed(0)
    raw = {name: torch.randn(value.shape, generator=noise) for name, value in weights.items()}
    content = {
        "epoch": 3,
        "global_step": 77,
        "pytorch-lightning_version": "2.1.4",
        "state_dict": OrderedDict(raw if average else weights),
        "optimizer_states": [{}],
        "hyper_parameters": hyper,
    }
    if average:
        shadow = list(weights.values())
        content["ema"] = {
            "decay": 0.999, "num_updates": 77, "shadow_params": shadow, "collected_params": list(raw.values())
        }  # fmt: skip
    content |= changes
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


def published_shapes(prefix: str = "dnn.", **options) -> dict[str, tuple]:
    """Published names and shapes of an NCSN++, as a file holds them."""
    network = NCSNpp(**options)
    names = ncsnpp.published_names(network)
    return {prefix + names[own]: tuple(value.shape) for own, value in network.named_parameters()}


def random_weights(shapes: dict[str, tuple]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def small_file(path, hyper: dict | None = None, average: bool = True):
    """A small checkpoint of sgmse, and its weights by published name."""
    weights = random_weights(published_shapes(**SMALL))
    return lightning_file(path, weights, SMALL | (hyper or {}), average), weights


def imported(folder) -> tuple[dict, dict]:
    """Description and tensors of a checkpoint folder."""
    return checkpoint.describe(folder), checkpoint.load_weights(folder)


# --------------------------------------------------------------------------------------- what is taken


def test_the_average_is_taken_and_never_the_state_dict(tmp_path):
    path, weights = small_file(tmp_path / "x.ckpt")
    result = importers.run(path, tmp_path / "m", "sgmse")
    description, tensors = imported(tmp_path / "m")
    assert sorted(float(t.sum()) for t in tensors.values()) == sorted(float(t.sum()) for t in weights.values())
    assert result["weights"] == "averaged parameters (ema), 77 updates"
    found = description["imported"]
    assert (found["file"], found["epoch"], found["global_step"], found["lightning"]) == (
        "x.ckpt",
        3,
        77,
        "2.1.4",
    )
    assert found["kind"] == "sgmse" and len(found["sha256"]) == 64 and description["step"] == 77


def test_without_an_average_the_state_dict_is_taken_and_said(tmp_path):
    path, weights = small_file(tmp_path / "x.ckpt", average=False)
    result = importers.run(path, tmp_path / "m", "sgmse")
    assert "no average" in result["weights"] and any("no average" in line for line in result["warnings"])
    tensors = imported(tmp_path / "m")[1]
    assert sorted(float(t.sum()) for t in tensors.values()) == sorted(float(t.sum()) for t in weights.values())


def test_an_average_of_trained_parameters_alone_takes_the_fixed_ones_from_the_state_dict(tmp_path):
    path, weights = small_file(tmp_path / "x.ckpt")
    content = torch.load(path, weights_only=True)
    fixed = list(weights).index("dnn.all_modules.0.W")
    del content["ema"]["shadow_params"][fixed]
    torch.save(content, path)
    importers.run(path, tmp_path / "m", "sgmse")
    tensors = imported(tmp_path / "m")[1]
    assert torch.equal(tensors["embedding.fourier.weight"], content["state_dict"]["dnn.all_modules.0.W"])
    assert torch.equal(tensors["output_layer.bias"], weights["dnn.output_layer.bias"])


def test_frequencies_that_a_predictor_does_not_use_are_left_out_of_the_list_too(tmp_path):
    """StoRM, with a list of trained parameters alone: two fixed ones are missing in it."""
    shapes = {"denoiser_net.output_layer.weight": (2, 2, 1, 1), "denoiser_net.all_modules.0.W": (8,)}
    for prefix, options in PAIR.items():
        shapes |= published_shapes(prefix, **SMALL, **options)
    weights = random_weights(shapes)
    path = lightning_file(tmp_path / "x.ckpt", weights, SMALL)
    content = torch.load(path, weights_only=True)
    kept = [value for key, value in weights.items() if not key.endswith("modules.0.W")]
    content["ema"]["shadow_params"] = kept
    torch.save(content, path)
    importers.run(path, tmp_path / "m")
    tensors = imported(tmp_path / "m")[1]
    assert torch.equal(tensors["predictor.output_layer.bias"], weights["denoiser_net.output_layer.bias"])
    assert torch.equal(tensors["score.output_layer.bias"], weights["score_net.output_layer.bias"])
    fixed = content["state_dict"]["score_net.all_modules.0.W"]
    assert torch.equal(tensors["score.embedding.fourier.weight"], fixed)


def test_the_loss_of_training_beside_the_network_is_left_out(tmp_path):
    path, weights = small_file(
        tmp_path / "x.ckpt", {"backbone": "ncsnpp_v2", "sde": "sbve", "pesq_weight": 5e-4}
    )
    content = torch.load(path, weights_only=True)
    content["state_dict"] |= {"pesq_loss.fbank": torch.ones(3), "pesq_loss.to_spec.window": torch.ones(4)}
    torch.save(content, path)
    assert importers.run(path, tmp_path / "m", "sgmse")["warnings"] == []
    description, tensors = imported(tmp_path / "m")
    assert len(tensors) == len(weights)
    assert description["train"]["objective"]["pesq_weight"] == 5e-4


def edited(change):
    """A file whose content is changed by `change`."""

    def make(path):
        small_file(path)
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return make


def _shape(content):
    content["ema"]["shadow_params"][5] = torch.ones(3, 3)


def _nan(content):
    content["ema"]["shadow_params"][4].view(-1)[0] = float("nan")


FAULTS = {
    "count": (lambda c: c["ema"]["shadow_params"].extend([torch.ones(1)] * 2), "average has"),
    "one short": (lambda c: c["ema"]["shadow_params"].pop(), "do not belong together"),
    "shape": (_shape, "is (3, 3)"),
    "nan": (_nan, "no finite number"),
    "no list": (lambda c: c["ema"].pop("shadow_params"), "no list"),
    "lacking": (lambda c: c["state_dict"].pop("dnn.output_layer.bias"), "lacks 'dnn.output_layer.bias'"),
    "foreign": (lambda c: c["state_dict"].update({"dnn.all_modules.99.W": torch.ones(1)}), "also holds"),
    "other width": (lambda c: c["hyper_parameters"].update(nf=12), "that the file describes"),
    "empty": (lambda c: c["state_dict"].clear(), "no state dict"),
    "lines": (lambda c: c["state_dict"].update({"a\n\x1b[1mb": torch.ones(1)}), "also holds 'a [1mb'"),
    "no tensor": (lambda c: c["state_dict"].update({"dnn.x": 3}), "no state dict"),
    "odd nf": (lambda c: c["hyper_parameters"].update(nf="many"), "hyper-parameter nf is 'many'"),
    "odd theta": (lambda c: c["hyper_parameters"].update(theta=float("nan")), "hyper-parameter theta"),
    "process": (lambda c: c["hyper_parameters"].update(sde="ouvp"), "hyper-parameter sde is 'ouvp'"),
    "transform": (lambda c: c["hyper_parameters"].update(transform_type="log"), "transform_type is 'log'"),
    "dcunet": (lambda c: c["hyper_parameters"].update(backbone="dcunet"), "not documented"),
    "network": (lambda c: c["hyper_parameters"].update(backbone="ncsnpp_v9"), "'ncsnpp_v9'"),
    "no name": (lambda c: c["hyper_parameters"].update(backbone=["ncsnpp"]), "hyper-parameter backbone"),
    "sigma": (lambda c: c["hyper_parameters"].update(sigma_min=-1.0), "sigma_min"),
    "huge": (lambda c: c["hyper_parameters"].update(nf=1 << 40), "from 1 to 2048"),
    "bottomless": (lambda c: c["hyper_parameters"].update(ch_mult=[1] * 16), "ch_mult"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_fit_is_one_line_and_leaves_nothing(fault, tmp_path):
    change, message = FAULTS[fault]
    path = tmp_path / "x.ckpt"
    edited(change)(path)
    with pytest.raises(DiffseError) as caught:
        importers.run(path, tmp_path / "m", "sgmse")
    text = str(caught.value)
    assert message in text and str(path) in text and "\n" not in text
    assert sorted(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------- what is switched on


V2 = {"backbone": "ncsnpp_v2"}
BRIDGE = V2 | {"sde": "sbve", "loss_type": "data_prediction"}
PUBLISHED = {  # hyper-parameters, networks, kind, some of the settings, kind of the sampler and some of its
    "sgmse": (
        {"backbone": "ncsnpp", "N": 1000, "sampler_type": "pc"}, {"dnn.": SCORE}, "sgmse",
        {"network.output_scaling": "before", "objective.sign": -1, "objective.scaling": "none", "factor": 0.15},
        {"name": "pc", "steps": 30, "fixed_dt": False, "snr": 0.5}, ("zero", "padded"),
    ),
    "first files": ({"gpus": 4, "nolog": False}, {"dnn.": SCORE}, "sgmse",
        {"process.theta": 1.5, "network.output_scaling": "before", "rate": 16000},
        {"name": "pc", "steps": 30}, ("zero", "padded"),
    ),
    "48 kHz": (
        {"backbone": "ncsnpp_48k"}, {"dnn.": SCORE | {"pyramid": False, "freq_bins": 768}}, "sgmse",
        {"rate": 48000, "process.theta": 2.0, "process.sigma_max": 1.0, "factor": 0.065,
         "network.output_scaling": "after", "network.freq_bins": 768, "network.pyramid": False},
        {"name": "pc", "steps": 30}, ("reflection", "padded"),
    ),
    "M1": (V2 | {"network_scaling": "1/sigma"}, {"dnn.": SCORE}, "sgmse",
        {"objective.scaling": "1/sigma", "objective.sign": 1, "network.output_scaling": "none"},
        {"name": "pc"}, ("reflection", "padded"),
    ),
    "M3": (
        V2 | {"loss_type": "denoiser", "loss_weighting": "edm", "c_in": "edm", "c_out": "edm", "c_skip": "edm"},
        {"dnn.": SCORE}, "sgmse",
        {"objective.name": "denoising", "objective.across_batch": True, "objective.preconditioning.c_in": "edm",
         "objective.preconditioning.c_out": "1", "objective.preconditioning.c_skip": "0"},
        {"name": "pc"}, ("reflection", "padded"),
    ),
    "M5": (BRIDGE | {"N": 25}, {"dnn.": SCORE}, "sgmse",
        {"process.epsilon": 1e-8, "process.k": 2.6, "objective.l1_weight": 0.001},
        {"name": "bridge_ode", "steps": 25, "evaluate_at": "target", "t_eps": 1e-4}, ("reflection", "padded"),
    ),
    "M7, SDE": (BRIDGE | {"sampler_type": "sde", "pesq_weight": 5e-4}, {"dnn.": SCORE}, "sgmse",
        {"objective.pesq_weight": 5e-4}, {"name": "bridge_sde", "steps": 50}, ("reflection", "padded"),
    ),
    "StoRM": (
        {"mode": "regen-joint-training", "spec_factor": 0.33, "condition": "both", "sigma_max": 0.4},
        PAIR, "storm",
        {"predictor.conditioning": "both", "predictor.published": True, "predictor.network.conditional": False,
         "predictor.network.centered": False, "network.centered": False, "factor": 0.33,
         "process.sigma_max": 0.4},
        {"name": "pc", "steps": 50, "fixed_dt": True, "corrector": "ald"}, ("zero", "padded"),
    ),
    "StoRM, estimate": (
        {"condition": "post_denoiser"}, PAIR | {"score_net.": SCORE}, "storm",
        {"predictor.conditioning": "estimate"}, {"name": "pc", "fixed_dt": True}, ("zero", "padded"),
    ),
    "predictor": ({"loss_type": "mae", "spec_factor": 0.33}, {"dnn.": PREDICTOR}, "storm",
        {"process.name": "none", "objective.name": "regression", "objective.error": "absolute"},
        {"name": "direct"}, ("zero", "padded"),
    ),
    "SGMSE+M": ({"spatial_channels": 1}, {"dnn.": SCORE}, "storm",
        {"network.centered": False, "objective.sign": -1, "predictor": None},
        {"name": "pc", "fixed_dt": True}, ("zero", "padded"),
    ),
    "UDiffSE": ({"sde": "ouve", "transform_type": "exponent"}, {"dnn.": {"inputs": 1}}, "udiffse",
        {"objective.prior": True, "normalise": "clean"},
        {"name": "em", "samples": 2, "first_likelihood": 2, "start": "marginal", "grid": "linspace"},
        ("zero", "padded"),
    ),
}  # fmt: skip


def published_file(path, name: str):
    hyper, networks, kind, *_ = PUBLISHED[name]
    shapes = {}
    for prefix, options in networks.items():
        shapes |= published_shapes(prefix, **SMALL, **options)
    return lightning_file(path, random_weights(shapes), SMALL | hyper), kind


def entry(settings: dict, key: str):
    for part in key.split("."):
        settings = settings[part]
    return settings


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_behaviour_is_switched_on_and_the_system_runs(name, tmp_path):
    _, _, _, train, sampler, (padding, synthesis) = PUBLISHED[name]
    path, kind = published_file(tmp_path / "x.ckpt", name)
    result = importers.run(path, tmp_path / "m", kind, name="mine")
    description, _ = imported(tmp_path / "m")
    assert {key: entry(description["train"], key) for key in train} == train
    enhance = description["enhance"]
    assert {key: enhance["sampler"][key] for key in sampler} == sampler
    assert (enhance["padding"], enhance["synthesis"], enhance["batch"]) == (padding, synthesis, 1)
    assert description["recipe"] == result["recipe"] == "mine"
    assert description["parameters"] == result["parameters"] > 0
    few = {} if sampler["name"] == "direct" else {"steps": 1}
    out = Enhancer.from_checkpoint(tmp_path / "m", "cpu", **few)(voice(0, 0.3), 16000)
    assert out.shape == (4800,) and np.isfinite(out).all() and out.any()


@pytest.mark.parametrize("name", ["StoRM", "StoRM, estimate", "predictor", "SGMSE+M", "UDiffSE"])
def test_kinds_are_told_apart(name, tmp_path):
    path, kind = published_file(tmp_path / "x.ckpt", name)
    assert importers.run(path, tmp_path / "m")["kind"] == kind


def test_ignored_and_missing_settings_are_said(tmp_path):
    odd = {"mystery": 3, "an\nother": "x", "lr": "odd", "batch_size": 0}
    path, _ = small_file(tmp_path / "x.ckpt", odd)
    [warning] = importers.run(path, tmp_path / "m", "sgmse")["warnings"]
    assert "an other, mystery" in warning
    assert imported(tmp_path / "m")[0]["train"]["lr"] == 1e-4
    bare = lightning.parse(path, {"state_dict": {"dnn.output_layer.bias": torch.ones(2)}})
    assert any("no hyper-parameters" in line for line in importers._warnings(bare, sgmse.plan(bare)))
    path, kind = published_file(tmp_path / "z.ckpt", "M3")
    assert any("c_skip are ignored" in line for line in importers.run(path, tmp_path / "o", kind)["warnings"])


# ---------------------------------------------------------------------------------- what the user does wrong


def test_only_an_earlier_import_of_the_same_file_is_replaced(tmp_path):
    path, _ = small_file(tmp_path / "x.ckpt")
    first = importers.run(path, tmp_path / "m", "sgmse")
    assert importers.run(path, tmp_path / "m", "sgmse") == first
    (tmp_path / "empty").mkdir()
    importers.run(path, tmp_path / "empty", "sgmse")
    other, _ = small_file(tmp_path / "y.ckpt", {"theta": 2.0})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("all of it")
    for target in (tmp_path / "m", tmp_path / "full", path):
        with pytest.raises(DiffseError, match="choose another folder"):
            importers.run(other, target, "sgmse")
    assert (tmp_path / "full" / "thesis.tex").read_text() == "all of it"
    assert imported(tmp_path / "m")[0]["train"]["process"]["theta"] == 1.5


def test_names_and_kinds_are_checked(tmp_path):
    path, _ = small_file(tmp_path / "epoch=115 (best).ckpt")
    assert importers.run(path, tmp_path / "m", "sgmse")["recipe"] == "epoch_115_best"
    with pytest.raises(DiffseError, match="cannot be a name"):
        importers.run(path, tmp_path / "n", "sgmse", name="a/b")
    with pytest.raises(DiffseError, match="kind 'magic' is not known; allowed: sgmse, storm, edm2se, udiffse"):
        importers.run(path, tmp_path / "n", "magic")
    for kind, message in (
        ("edm2se", "no state dict of EDM2SE"),
        ("udiffse", "network that the file describes"),
    ):
        with pytest.raises(DiffseError, match=message):
            importers.run(path, tmp_path / "n", kind)
    assert not (tmp_path / "n").exists()


OTHERS = {
    "list": ([torch.ones(2)], "holds a list"),
    "training state": ({"net": {}, "optimizer": {}, "ema": {}, "state": {}}, "EDM2SE training"),
    "other system": ({"state_dict": {"encoder.weight": torch.ones(2)}}, "not a published system"),
    "settings alone": ({"hyper_parameters": {"nf": 16}}, "no state dict"),
    "nothing": ({}, "it is empty"),
    "text keys": ({"state_dict": {1: torch.ones(1)}}, "no state dict"),
    "sparse": ({"state_dict": {"dnn.w": torch.ones(2, 2).to_sparse()}}, "no state dict"),
}


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"backbone_denoiser": "convtasnet"}, "network 'convtasnet' (backbone_denoiser) cannot be imported"),
        ({"backbone_score": ["x"]}, "(backbone_score) cannot be imported"),
        ({"sde": "ouvp"}, "hyper-parameter sde is 'ouvp'"),
        ({"condition": "noisy"}, "'score_net.output_layer.weight' is (2, 6, 1, 1)"),
        ({"spatial_channels": 2}, "spatial_channels"),
    ],
)
def test_what_storm_offers_and_diffse_has_not_is_refused(hyper, message, tmp_path):
    shapes = {}
    for prefix, options in PAIR.items():
        shapes |= published_shapes(prefix, **SMALL, **options)
    path = lightning_file(tmp_path / "x.ckpt", random_weights(shapes), SMALL | hyper)
    with pytest.raises(DiffseError) as caught:
        importers.run(path, tmp_path / "m")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", OTHERS)
def test_content_of_another_kind_is_one_line(name, tmp_path):
    content, message = OTHERS[name]
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(DiffseError) as caught:
        importers.run(tmp_path / "x.pt", tmp_path / "m")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()
