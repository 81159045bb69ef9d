"""params.yaml is read strictly: every mistake is one line with file, line number, key and what is allowed."""

import dataclasses

import pytest
import yaml
from tiny import PARAMS, write_params

from diffse import settings
from diffse.errors import DiffseError
from diffse.settings_limits import LIMITS, outside
from diffse.settings_reader import from_plain, to_plain

TEXT = yaml.safe_dump(PARAMS, sort_keys=False)


def load(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return settings.load(path)


MISTAKES = {
    "misspelt": (
        "min_seconds: 0.2",
        "min_second: 0.2",
        r"line \d+: unknown setting .*did you mean 'min_seconds'",
    ),
    "unknown block": (
        "corpora:",
        "corporas: []\ncorpora:",
        r"unknown setting 'corporas'.*did you mean 'corpora'",
    ),
    "type": ("steps: 12", "steps: twelve", r"'train.bridge.steps' is 'twelve'; a whole number is needed"),
    "bool for int": ("steps: 12", "steps: true", r"a whole number is needed"),
    "choice": ("name: sbve", "name: sbvee", r"is 'sbvee'; allowed: ouve, sbve"),
    "infinite": ("lr: 0.002", "lr: .inf", r"a finite number is needed"),
    "list": ("ch_mult:\n      - 1\n      - 1", "ch_mult: 1", r"a list is needed"),
    "missing": ("corpora:\n- toy\n", "", r"lacks the setting 'corpora'"),
    "sampler pair": ("name: bridge_ode", "name: pc", r"sampler 'pc' does not fit process 'sbve'"),
    "objective pair": (
        "name: data_prediction",
        "name: score_matching",
        r"objective 'score_matching' does not fit",
    ),
    "recipe": ("recipes:\n- bridge", "recipes:\n- brige", r"recipes names 'brige', which has no entry"),
    "corpus": ("train_corpora:\n- toy", "train_corpora:\n- tou", r"train_corpora names 'tou'"),
    "too small": ("steps: 12", "steps: 0", r"line \d+: 'train.bridge.steps' is 0; give at least 1"),
    "not positive": ("lr: 0.002", "lr: 0.0", r"'train.bridge.lr' is 0.0; give more than 0"),
    "too large": ("max_rejected: 0.0", "max_rejected: 1.5", r"is 1.5; give from 0 to 1"),
    "in a list": ("ch_mult:\n      - 1", "ch_mult:\n      - 0", r"network.ch_mult' is 0; give at least 1"),
    "stem": ("stem: 8", "stem: 7", r"network: freq_bins \(256\) must be a multiple of stem \(7\)"),
    "no levels": ("ch_mult:\n      - 1\n      - 1", "ch_mult: []", r"there must be one"),
    "too narrow": ("nf: 8", "nf: 3", r"network.nf' is 3; give at least 4"),
    "twice": ("corpora:\n- toy\n", "corpora:\n- toy\ncorpora:\n- toy\n", r"'corpora' appears twice"),
    "syntax": ("corpora:\n- toy\n", "corpora: [toy\n", r"line \d+: not valid YAML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake, tmp_path):
    old, new, pattern = MISTAKES[mistake]
    assert old in TEXT
    with pytest.raises(DiffseError, match=pattern) as caught:
        load(tmp_path, TEXT.replace(old, new, 1))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "params.yaml") in str(caught.value)


def test_limits_are_those_of_settings_and_hold_for_the_defaults():
    blocks = [kind for kind in vars(settings).values() if dataclasses.is_dataclass(kind)]
    fields = [(entry.name, entry.default) for kind in blocks for entry in dataclasses.fields(kind)]
    assert LIMITS.keys() <= {name for name, _ in fields}
    for name, default in fields:
        for value in default if isinstance(default, tuple) else (default,):
            assert not isinstance(value, int | float) or outside(name, value) == "", name


def test_line_numbers_are_those_of_the_file(tmp_path):
    text = TEXT.replace("min_seconds: 0.2", "min_second: 0.2")
    line = 1 + text[: text.index("min_second:")].count("\n")
    with pytest.raises(DiffseError, match=f"line {line}:"):
        load(tmp_path, text)


def test_defaults_are_the_published_values():
    network = settings.NCSNpp()
    assert (network.nf, network.ch_mult, network.num_res_blocks) == (128, (1, 1, 2, 2, 2, 2, 2), 2)
    assert (settings.OUVE().theta, settings.OUVE().sigma_min, settings.OUVE().sigma_max) == (1.5, 0.05, 0.5)
    assert (settings.SBVE().k, settings.SBVE().c) == (2.6, 0.4)
    assert (settings.Stft().n_fft, settings.Stft().hop, settings.Stft().exponent) == (510, 128, 0.5)
    assert (settings.PredictorCorrector().steps, settings.PredictorCorrector().snr) == (30, 0.5)


def test_settings_go_through_json_and_back(tmp_path):
    params = write_params(tmp_path)
    for kind, value in ((settings.Train, params.train["bridge"]), (settings.Enhance, params.enhance["score"])):
        assert from_plain(kind, to_plain(value), "x") == value


def test_scientific_notation_is_a_number(tmp_path):
    assert load(tmp_path, TEXT.replace("lr: 0.002", "lr: 1e-4", 1)).train["bridge"].lr == 1e-4
