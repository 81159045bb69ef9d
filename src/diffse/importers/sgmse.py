"""Checkpoints of sgmse: SGMSE+ (first and 48 kHz network), M1 to M3, and the bridges M5 to M8."""

from diffse.errors import DiffseError
from diffse.importers import parts
from diffse.importers.lightning import Published
from diffse.importers.parts import Hyper, Plan

_BACKBONES = {"ncsnpp": "ncsnpp", "ncsnpp_v2": "ncsnpp_v2", "ncsnpp_48k": "ncsnpp_48k"}
_UNDOCUMENTED = {"dcunet": "the names of its weights are not documented"}
# What the README of the 48 kHz network says to train it with.
_WIDE_TRANSFORM = {"factor": 0.065, "exponent": 0.667, "n_fft": 1534, "hop": 384}
_WIDE_PROCESS = {"theta": 2.0, "sigma_min": 0.1, "sigma_max": 1.0}
_NUMBERS = {"1": "1", "edm": "edm", "sigma": "sigma", "1/sigma": "1/sigma"}


def plan(published: Published) -> Plan:
    """Settings that repeat the published program for a checkpoint of sgmse."""
    hyper = published.hyper
    name = parts.shown(hyper.values.get("backbone", "ncsnpp"))
    if name in _UNDOCUMENTED:
        raise DiffseError(f"{hyper.source}: network '{name}' cannot be imported: {_UNDOCUMENTED[name]}")
    backbone = hyper.choice("backbone", "ncsnpp", _BACKBONES)
    wide = backbone == "ncsnpp_48k"
    stft, factor = parts.transform(hyper, **_WIDE_TRANSFORM) if wide else parts.transform(hyper, 0.15)
    process, sampler = _process(hyper, wide)
    notes: list[str] = []
    train = {
        "process": process,
        "objective": _objective(hyper, backbone, process["name"], notes),
        "network": network(hyper, backbone, stft),
        **parts.training(hyper, stft, _rate(hyper, wide, notes), factor, published.step),
    }
    padding = "zero" if backbone == "ncsnpp" else "reflection"
    return Plan("sgmse", train, stft, parts.whole_files(sampler, padding, "padded"), notes=notes)


def _rate(hyper: Hyper, wide: bool, notes: list[str]) -> int:
    """The published program takes the rate from the network's name."""
    rate = hyper.whole("sr", 48000 if wide else 16000)
    if wide and rate != 48000:
        notes.append(f"sr says {rate}, but the published program runs this network at 48000 Hz; taken")
        return 48000
    return rate


def network(hyper: Hyper, backbone: str, stft: dict) -> dict:
    """NCSN++ as sgmse builds it."""
    wide = backbone == "ncsnpp_48k"
    scaling = {"ncsnpp": "before", "ncsnpp_48k": "after", "ncsnpp_v2": "none"}[backbone]
    return {
        "name": "ncsnpp",
        "nf": hyper.whole("nf", 128, most=2048),
        "ch_mult": hyper.wholes("ch_mult", (1, 1, 2, 2, 2, 2, 2)),
        "num_res_blocks": hyper.whole("num_res_blocks", 2, most=32),
        "attn_resolutions": hyper.wholes("attn_resolutions", () if wide else (16,)),
        "freq_bins": stft["n_fft"] // 2 + 1,
        "pyramid": not wide,
        "output_scaling": hyper.choice("scale_by_sigma", True, {True: scaling, False: "none"}),
        "centered": hyper.choice("centered", True, {True: True, False: False}),
        "dropout": hyper.number("dropout", 0.0),
    }


def _process(hyper: Hyper, wide: bool) -> tuple[dict, dict]:
    """Process and sampler, as the published program for enhancement sets them."""
    if hyper.choice("sde", "ouve", {"ouve": "ouve", "sbve": "sbve"}) == "ouve":
        hyper.skip("N", "k", "c", "eps", "sampler_type")  # the program sets its own number of steps
        sampler = {"name": "pc", "steps": 30, "corrector": "ald", "snr": 0.5, "t_eps": 0.03}
        return parts.ouve(hyper, **_WIDE_PROCESS if wide else {}), sampler
    hyper.skip("theta", "sigma_min", "sigma_max")
    process = {
        "name": "sbve",
        "k": hyper.number("k", 2.6),
        "c": hyper.number("c", 0.4),
        "epsilon": hyper.number("eps", 1e-8),
    }
    kind = hyper.choice("sampler_type", "ode", {"ode": "bridge_ode", "sde": "bridge_sde"})
    sampler = {"name": kind, "steps": hyper.whole("N", 50), "t_eps": 1e-4, "evaluate_at": "target"}
    return process, sampler


def _objective(hyper: Hyper, backbone: str, process: str, notes: list[str]) -> dict:
    """What the network predicts. The first networks give minus the score, whatever else is set."""
    if backbone != "ncsnpp_v2":
        hyper.skip("loss_weighting", "network_scaling", "c_in", "c_out", "c_skip", "sigma_data")
        hyper.skip("l1_weight", "pesq_weight")
        return parts.minus_score(hyper)
    kinds = {"score_matching": _score, "denoiser": _denoiser, "data_prediction": _data_prediction}
    default = "data_prediction" if process == "sbve" else "score_matching"
    return hyper.choice("loss_type", default, kinds)(hyper, notes)


def _score(hyper: Hyper, notes: list[str]) -> dict:
    hyper.skip("loss_weighting", "l1_weight", "pesq_weight")
    scaling = hyper.choice("network_scaling", None, {None: "none", "1/sigma": "1/sigma", "1/t": "1/t"})
    return {"name": "score_matching", "scaling": scaling, "preconditioning": _preconditioning(hyper)}


def _denoiser(hyper: Hyper, notes: list[str]) -> dict:
    hyper.skip("l1_weight", "pesq_weight")
    conditioning = _preconditioning(hyper)
    if (conditioning["c_out"], conditioning["c_skip"]) != ("1", "0"):
        notes.append("c_out and c_skip are ignored, as the published program does for loss_type denoiser")
    weighting = hyper.choice("loss_weighting", "sigma^2", {name: name for name in ("1", "sigma^2", "edm")})
    conditioning |= {"c_out": hyper.choice("network_scaling", None, {None: "1", "1/sigma": "1/sigma"})}
    return {
        "name": "denoising",
        "preconditioning": conditioning | {"c_skip": "0"},
        "weighting": weighting,
        "across_batch": weighting == "edm",
    }


def _data_prediction(hyper: Hyper, notes: list[str]) -> dict:
    hyper.skip("loss_weighting")
    conditioning = _preconditioning(hyper)
    if hyper.choice("network_scaling", None, {None: False, "1/sigma": True}):
        if conditioning["c_out"] != "1":
            raise DiffseError(
                f"{hyper.source}: network_scaling and c_out {conditioning['c_out']!r} together cannot be "
                "imported for loss_type data_prediction"
            )
        conditioning["c_out"] = "1/sigma"
    return {
        "name": "data_prediction",
        "l1_weight": hyper.number("l1_weight", 0.001),
        "pesq_weight": hyper.number("pesq_weight", 0.0),
        "preconditioning": conditioning,
    }


def _preconditioning(hyper: Hyper) -> dict:
    return {
        "c_in": hyper.choice("c_in", "1", {"1": "1", "edm": "edm"}),
        "c_skip": hyper.choice("c_skip", "0", {"0": "0", "edm": "edm"}),
        "c_out": hyper.choice("c_out", "1", _NUMBERS),
        "sigma_data": hyper.number("sigma_data", 0.1),
    }
