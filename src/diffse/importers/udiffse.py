"""Checkpoints of UDiffSE: a prior of clean speech."""

from diffse.importers import parts, sgmse
from diffse.importers.lightning import Published
from diffse.importers.parts import Plan

# The published program for enhancement; paper 004 has b = 4 and the likelihood from the first iteration on.
_SAMPLER = {
    "name": "em",
    "steps": 30,
    "em_iterations": 5,
    "likelihood_weight": 1.5,
    "samples": 2,
    "rank": 4,
    "likelihood_every": 2,
    "first_likelihood": 2,
    "likelihood_step": "dt",
    "likelihood_count": "up",
    "corrector_scale": 0.5,
    "grid": "linspace",
    "t_eps": 0.03,
    "start": "marginal",
    "last_noise": False,
    "normalise": True,
}


def plan(published: Published) -> Plan:
    """Settings that repeat the published program for a checkpoint of UDiffSE."""
    hyper = published.hyper
    hyper.choice("backbone", "ncsnpp", {"ncsnpp": "ncsnpp"})
    hyper.choice("sde", "ouve", {"ouve": "ouve"})
    hyper.skip("N")
    stft, factor = parts.transform(hyper, 0.15)
    train = {
        "process": parts.ouve(hyper),
        "objective": parts.minus_score(hyper) | {"prior": True},
        "network": sgmse.network(hyper, "ncsnpp", stft),
        **parts.training(hyper, stft, hyper.whole("sr", 16000), factor, published.step),
    }
    if not hyper.has("normalize"):
        train["normalise"] = "clean"
    return Plan("udiffse", train, stft, parts.whole_files(_SAMPLER, "zero", "padded"))


def is_prior(published: Published) -> bool:
    """Whether its network sees one spectrogram and a time."""
    first = published.state.get("dnn.output_layer.weight")
    time = published.state.get("dnn.all_modules.1.weight")
    return first is not None and first.ndim == 4 and first.shape[1] == 2 and time is not None and time.ndim == 2
