"""What does not fit together is refused in one line, with the reason, when the settings are read."""

import pytest
import tiny

from diffse.errors import DiffseError

SCORE = {"process": {"name": "ouve"}, "objective": {"name": "score_matching"}}
PREDICTIVE = {"process": {"name": "none"}, "objective": {"name": "regression"}}
SMALL = tiny.NETWORK
BLIND = {**SMALL, "conditional": False}
MP_ADM = {"name": "mp_adm", "model_channels": 8, "channel_mult": [1, 1], "num_blocks": 1,
          "attn_resolutions": [], "channels_per_head": 8}  # fmt: skip
PC, DIRECT = {"name": "pc", "steps": 2}, {"name": "direct"}
BRIDGE = {"name": "bridge_ode", "steps": 2}

UNFIT = [
    ({"process": {"name": "sbve"}, "objective": {"name": "score_matching"}}, BRIDGE,
     "objective 'score_matching' does not fit process 'sbve' (allowed: ouve): the score of the bridge"),
    ({"process": {"name": "sbve"}, "objective": {"name": "denoising"}}, BRIDGE, "x_0 cannot be had"),
    ({"process": {"name": "ouve"}, "objective": {"name": "edm2se"}}, PC, "derived for the bridge"),
    ({**SCORE, "process": {"name": "none"}}, DIRECT, "does not fit process 'none'"),
    ({**SCORE}, BRIDGE,
     "sampler 'bridge_ode' does not fit process 'ouve' (allowed: pc, ode, multistep, em, em_proximal)"),
    ({**SCORE, "objective": {"name": "score_matching", "prior": True}}, PC, "a prior of clean speech knows"),
    ({**SCORE}, {"name": "em_proximal"}, "'em_proximal' does not fit: it needs a prior of clean speech"),
    ({**SCORE, "objective": {"name": "score_matching", "prior": True}}, {"name": "em_proximal", "t_eps": 0},
     "t_eps 0 is where the score has no bound"),
    ({**SCORE}, {"name": "em"}, "'em' does not fit: it needs a prior of clean speech"),
    ({**SCORE}, {**PC, "predictor": "none", "corrector": "none"}, "neither predictor nor corrector"),
    ({**SCORE, "network": BLIND}, PC, "needs a network that takes a state and a time"),
    ({**SCORE, "network": {"name": "gagnet"}}, PC, "needs a network that takes a state and a time"),
    ({**PREDICTIVE, "network": SMALL}, DIRECT, "needs a network without time (conditional: false)"),
    ({**PREDICTIVE, "network": {"name": "rvae"}}, DIRECT, "'rvae' and objective 'elbo' need each other"),
    ({**PREDICTIVE, "network": BLIND}, {"name": "vem"}, "'vem' and objective 'elbo'"),
    ({"process": {"name": "sbve"}, "objective": {"name": "edm2se"}, "network": SMALL}, BRIDGE,
     "which 'ncsnpp' cannot take"),
    ({**SCORE, "objective": {"name": "denoising", "preconditioning": {"c_noise": "ln(sigma)/4"}}}, PC,
     "takes its logarithm and needs c_noise: t"),
    ({**SCORE, "network": {**SMALL, "freq_bins": 250}}, PC, "freq_bins (250) must be a multiple of stem"),
    ({**SCORE, "network": {**MP_ADM, "stem": 3}}, PC, "must be a multiple of stem"),
    ({**SCORE, "predictor": {"network": SMALL}}, PC, "a predictor has no time"),
    ({**SCORE, "predictor": {"network": BLIND, "fine_tune": False}}, PC, "never trained"),
    ({"process": {"name": "ouve"}, "objective": {"name": "data_prediction"},
      "predictor": {"network": BLIND, "refine": True}}, PC, "a residual, whose waveform means nothing"),
    ({"process": {"name": "sbve"}, "objective": {"name": "data_prediction"}, "predictor": {"network": BLIND}},
     BRIDGE, "regeneration needs process ouve"),
    ({**SCORE, "power_ema": {"stds": [0.05, 0.3]}}, PC, "lengths between 0 and 0.28"),
    ({**SCORE, "predictor": {"network": BLIND, "pretrain_steps": 12}}, PC, "leaves none of the 12 steps"),
    ({**SCORE, "process": {"name": "ouve", "sigma_min": 0.5, "sigma_max": 0.5}}, PC, "sigma_min must be less"),
    ({"process": {"name": "sbve", "k": 1}, "objective": {"name": "data_prediction"}},
     BRIDGE, "has no logarithm"),
    ({"process": {"name": "sbve"}, "objective": {"name": "data_prediction"}},
     {**BRIDGE, "t_eps": 0, "evaluate_at": "target"}, "must be more than 0"),
    ({**SCORE}, {**PC, "t_eps": 0}, "t_eps 0 is where the score has no bound"),
    ({**SCORE, "network": {**SMALL, "output_scaling": "before"}}, PC, "divides by t already"),
    ({**SCORE, "power_ema": {"stds": [0.1, 0.1], "use": 0}}, PC, "stands there twice"),
    ({**SCORE, "power_ema": {"stds": []}}, PC, "lengths between 0 and 0.28"),
    ({**SCORE, "power_ema": {"stds": [0.1], "use": 0.05}}, PC, "not tracked; choose one of stds (0.1) or 0"),
]  # fmt: skip


@pytest.mark.parametrize(("train", "sampler", "reason"), UNFIT, ids=[reason[:40] for *_, reason in UNFIT])
def test_an_unfit_pair_is_one_line_with_its_reason(tmp_path, train, sampler, reason):
    changes = {"train__score": {**tiny.TRAIN, **train}, "enhance__score": {"sampler": sampler}}
    with pytest.raises(DiffseError) as error:
        tiny.write_params(tmp_path, **changes)
    told = str(error.value)
    assert reason in told and "params.yaml" in told and "score" in told and "\n" not in told


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"enhance__score": {"sampler": PC, "ema": 0.05}}, "needs the snapshots of a training with power_ema"),
        ({"sweeps": {"mine": {"system": "other.toy", "corpus": "toy"}}}, "is no system that is trained"),
        ({"sweeps": {"mine": {"system": "score.toy", "corpus": "else"}}}, "is not one of the corpora selected"),
        (
            {"swaps": {"mine": {"system": "score.toy", "predictor": "other.toy", "corpus": "toy"}}},
            "swaps.mine.predictor",
        ),
    ],
)
def test_settings_that_name_what_is_not_there_are_refused(tmp_path, changes, reason):
    with pytest.raises(DiffseError) as error:
        tiny.write_params(tmp_path, **changes)
    assert reason in str(error.value) and "params.yaml" in str(error.value)


FIT = [
    ({"process": {"name": "ouve"}, "objective": {"name": "data_prediction"}}, PC),
    ({"process": {"name": "sbve"}, "objective": {"name": "data_prediction"}, "network": MP_ADM}, BRIDGE),
    ({**SCORE, "network": MP_ADM}, {"name": "ode"}),
    ({**PREDICTIVE, "network": BLIND}, DIRECT),
    ({**SCORE, "predictor": {"network": {"name": "gagnet"}}}, PC),
]


@pytest.mark.parametrize(("train", "sampler"), FIT)
def test_other_pairs_are_accepted(tmp_path, train, sampler):
    tiny.write_params(tmp_path, train__score={**tiny.TRAIN, **train}, enhance__score={"sampler": sampler})


@pytest.mark.parametrize("name", ["unprocessed", "sweeps", "swaps"])
def test_external_names_that_mean_something_else_are_refused(tmp_path, name):
    with pytest.raises(DiffseError, match="choose another name"):
        tiny.write_params(tmp_path, externals=[name], external={name: {"folder": f"sources/external/{name}"}})
