"""Presets: every one builds, fits together, and has the size that its paper states."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from diffse import presets, recipes, settings, settings_checks
from diffse.errors import DiffseError
from diffse.settings_reader import build

ROOT = Path(__file__).parents[1]
NAMES = [name for name in presets.table() if not name.endswith("_small")]
# Parameters as published (fact: counted on the published code), fixed Fourier frequencies included.
PUBLISHED = {
    "m1": 65_590_822, "m5": 65_590_822, "m1_48k": 64_739_854, "dcunet": 3_531_970, "udiffse": 65_558_292,
    "sgmse_m": 27_756_314, "gagnet": 11_782_153,
}  # fmt: skip


def system(name: str) -> tuple[settings.Train, settings.Enhance]:
    params = settings.load(ROOT / "params.yaml")
    return params.train[name], params.enhance[name]


def estimated(train: settings.Train) -> settings.Train:
    """With the levels that a stage estimates from the training data."""
    if not isinstance(train.objective, settings.EDM2SE):
        return train
    return dataclasses.replace(train, objective=dataclasses.replace(train.objective, sigma_x=0.4, sigma_n=0.3))


def parameters(name: str) -> int:
    train, _ = system(name)
    with torch.device("meta"):
        return recipes.count_parameters(recipes.build_network(train, train.stft or settings.Stft()))


@pytest.mark.parametrize("name", presets.table())
def test_every_preset_is_a_recipe_that_fits_together(name):
    train, enhance = system(name)
    settings_checks.check_recipe(name, train, enhance)
    network = recipes.build_network(train, train.stft or settings.Stft()) if name.endswith("_small") else None
    if network is not None:  # weights that a checkpoint would not hold cannot be loaded
        held = set(network.state_dict())
        assert {key for key, _ in network.named_buffers()} <= held
        assert recipes.count_parameters(network) < 4_000_000
        recipes.build_objective(estimated(train), train.stft or settings.Stft(), network)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name):
    assert parameters(name) == PUBLISHED[name]


def test_storm_is_two_networks():
    predictive = parameters("ncsnppm")
    assert parameters("storm") == predictive + 27_776_038
    assert parameters("storm_noisy") == predictive + 27_756_314


def test_every_preset_has_a_line_in_the_documentation():
    page = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == NAMES


def applied(tmp_path, text: str) -> settings.Train:
    (tmp_path / "params.yaml").write_text(text)
    from diffse.settings_reader import read_yaml

    node = presets.applied(read_yaml(tmp_path / "params.yaml"))
    return build(settings.Train, node.value["train"].value["mine"])


def test_a_recipe_changes_what_it_says_and_nothing_else(tmp_path):
    train = applied(tmp_path, "train:\n  mine: {preset: m6, batch: 3, objective: {l1_weight: 0.5}}\n")
    assert train.batch == 3 and train.objective.l1_weight == 0.5
    assert train.objective.pesq_weight == 1e-3 and isinstance(train.process, settings.SBVE)


def test_another_tag_replaces_the_whole_block(tmp_path):
    train = applied(tmp_path, "train:\n  mine: {preset: m1_48k, process: {name: sbve}}\n")
    assert train.process == settings.SBVE()


def test_mistakes_name_the_line_that_the_user_wrote(tmp_path):
    with pytest.raises(DiffseError, match=r"params.yaml, line 2: 'train.mine.preset' is 'm55'; did you mean"):
        applied(tmp_path, "train:\n  mine: {preset: m55}\n")
    with pytest.raises(DiffseError, match=r"line 2: unknown setting 'train.mine.bach'; did you mean 'batch'"):
        applied(tmp_path, "train:\n  mine: {preset: m5, bach: 1}\n")


def test_a_small_form_keeps_the_mathematics():
    for name in NAMES:
        large, small = system(name)[0], system(f"{name}_small")[0]
        assert (large.process, large.objective) == (small.process, small.objective)
        assert type(large.network) is type(small.network)
