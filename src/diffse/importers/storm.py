"""Checkpoints of storm: StoRM (predictor and score network), its predictor alone, its score network alone."""

import re

from diffse.errors import DiffseError
from diffse.importers import parts
from diffse.importers.lightning import Published
from diffse.importers.parts import Hyper, Plan

_LARGE = "ncsnpplarge"
# NCSN++M of paper 002, section IV-B, and the large network.
_NETWORKS = {
    "ncsnpp": {"ch_mult": [1, 2, 2, 2], "num_res_blocks": 1, "attn_resolutions": []},
    _LARGE: {"ch_mult": [1, 1, 2, 2, 2, 2, 2], "num_res_blocks": 2, "attn_resolutions": [16]},
}
_CONDITIONING = {"both": "both", "noisy": "noisy", "post_denoiser": "estimate"}
_LOSSES = {"mse": "squared", "mae": "absolute", "sisdr": "si_sdr"}


def plan(published: Published) -> Plan:
    """Settings that repeat the published program for a checkpoint of storm."""
    hyper = published.hyper
    hyper.skip("transform", "mode", "discriminative", "input_channels", "N", "sde_n")
    hyper.choice("spatial_channels", 1, {1: 1})
    stft, factor = parts.transform(hyper, 0.15)
    train = parts.training(hyper, stft, hyper.whole("sr", 16000), factor, published.step)
    train["peak_of"] = "utterance"
    prefix, sampler = "dnn.", _predictor_corrector()
    if has_pair(published):
        prefix, system = "", _regeneration(hyper, stft)
    elif is_predictor(published):
        sampler, system = {"name": "direct"}, _predictor_alone(hyper, stft)
    else:
        system = _score_alone(hyper, stft, "backbone")
    enhance = parts.whole_files(sampler, "zero", "padded")
    return Plan("storm", train | system, stft, enhance, prefix)


def has_pair(published: Published) -> bool:
    """Whether the file holds a predictor and a score network."""
    return any(name.startswith("denoiser_net.") for name in published.state)


def is_predictor(published: Published) -> bool:
    """Whether its one network sees the noisy spectrogram alone and has no layers for the time."""
    first = published.state.get("dnn.output_layer.weight")
    time = published.state.get("dnn.all_modules.1.weight")
    one_input = first is not None and first.ndim == 4 and first.shape[1] == 2
    return one_input and (time is None or time.ndim != 2)


def is_score(published: Published) -> bool:
    """Whether its one score network is of storm: NCSN++M has 36 units, those of sgmse have 56 or 77."""
    units = [re.match(r"dnn\.all_modules\.(\d+)\.", name) for name in published.state]
    few = max((int(unit[1]) for unit in units if unit), default=99) < 40
    hyper = published.hyper
    return few or hyper.has("discriminative", "spatial_channels") or hyper.values.get("backbone") == _LARGE


def _network(hyper: Hyper, stft: dict, entry: str, **options) -> dict:
    name = parts.shown(hyper.values.get(entry, "ncsnpp"))
    if name not in _NETWORKS:
        raise DiffseError(
            f"{hyper.source}: network '{name}' ({entry}) cannot be imported: neither the names nor "
            f"the sizes of its weights are documented; diffse knows {', '.join(_NETWORKS)}"
        )
    hyper.skip(entry)
    sizes = _NETWORKS[name]
    return {
        "name": "ncsnpp",
        "nf": hyper.whole("nf", 128, most=2048),
        "ch_mult": hyper.wholes("ch_mult", tuple(sizes["ch_mult"])),
        "num_res_blocks": hyper.whole("num_res_blocks", sizes["num_res_blocks"], most=32),
        "attn_resolutions": hyper.wholes("attn_resolutions", tuple(sizes["attn_resolutions"])),
        "freq_bins": stft["n_fft"] // 2 + 1,
        "centered": hyper.choice("centered", False, {True: True, False: False}),
        **options,
    }


def _predictor_corrector() -> dict:
    """Steps of length 1/N, as the published program takes them on a grid that ends at 0.03."""
    options = {"corrector": "ald", "corrector_steps": 1, "snr": 0.5, "t_eps": 0.03, "fixed_dt": True}
    return {"name": "pc", "steps": 50, **options}


def _score_alone(hyper: Hyper, stft: dict, entry: str) -> dict:
    hyper.choice("sde", "ouve", {"ouve": "ouve"})
    return {
        "process": parts.ouve(hyper),
        "objective": parts.minus_score(hyper),
        "network": _network(hyper, stft, entry, output_scaling="before"),
    }


def _predictor_alone(hyper: Hyper, stft: dict) -> dict:
    hyper.skip("theta", "sigma_min", "sigma_max", "sde", "loss_type")
    return {
        "process": {"name": "none"},
        "objective": {
            "name": "regression",
            "error": _LOSSES.get(str(hyper.values.get("loss_type")), "squared"),
        },
        "network": _network(hyper, stft, "backbone", conditional=False),
    }


def _regeneration(hyper: Hyper, stft: dict) -> dict:
    hyper.skip("backbone")
    predictor = {
        "network": _network(hyper, stft, "backbone_denoiser", conditional=False),
        "conditioning": hyper.choice("condition", "both", _CONDITIONING),
        "published": True,
    }
    return _score_alone(hyper, stft, "backbone_score") | {"predictor": predictor}
