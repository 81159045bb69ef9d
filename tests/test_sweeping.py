"""Sweeps and swaps with small real systems: the right numbers, no work twice, and mistakes in one line."""

import json
import shutil
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pandas
import pytest
import tiny

from diffse import cli, enhancer, paths, progress, settings, swapping, sweeping, training, trials
from diffse.data import manifest, shards
from diffse.errors import DiffseError
from diffse.metrics.score import score_pair

ALONE = {**tiny.NETWORK, "conditional": False}
TRAIN = {**tiny.TRAIN, "steps": 6, "validate_files": 1}
EMA = {"stds": [0.05, 0.1], "snapshot_every": 1, "use": 0.1}
RECIPES = {
    "train": {
        "storm": {
            **TRAIN, "process": {"name": "ouve"}, "objective": {"name": "score_matching"},
            "predictor": {"network": ALONE}, "power_ema": EMA,
        },
        "first": {
            **TRAIN, "process": {"name": "none"}, "objective": {"name": "regression"}, "network": ALONE,
        },
    },
    "enhance": {"storm": {"sampler": {"name": "pc", "steps": 2}}, "first": {"sampler": {"name": "direct"}}},
    "sweeps": {
        "steps": {
            "system": "storm.toy", "corpus": "toy", "values": [4, 1], "files": 2,
            "metrics": ["si_sdr", "estoi"],
        },
        "ema": {
            "system": "storm.toy", "corpus": "toy", "over": "ema", "values": [0, 0.05, 0.07], "files": 1,
            "metrics": ["si_sdr"],
        },
    },
    "swaps": {
        "other": {
            "system": "storm.toy", "predictor": "first.toy", "corpus": "toy", "files": 2, "metrics": ["si_sdr"],
        },
    },
}  # fmt: skip


def write_params(root: Path, **changes) -> settings.Params:
    """Settings of the project; `changes` as for tiny.write_params."""
    base = json.loads(json.dumps(RECIPES))  # no entry is shared between calls
    return tiny.write_params(root, recipes=["storm", "first"], **base, **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A project with a StoRM system and a predictive one, trained for a few steps."""
    root = tmp_path_factory.mktemp("sweeping")
    tiny.make_project(root)
    params = write_params(root)
    for system in ("storm.toy", "first.toy"):
        training.run(params, system, root)
    return root


@pytest.fixture
def root(trained, tmp_path, monkeypatch) -> Path:
    folder = shutil.copytree(trained, tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def refused(root: Path, verb, name: str, **changes) -> str:
    with pytest.raises(DiffseError) as caught:
        verb.run(write_params(root, **changes), name, root)
    assert "\n" not in str(caught.value)
    assert not (root / "results").exists()
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ sweeps


def test_a_sweep_over_steps_is_what_each_number_of_steps_gives(root):
    params = write_params(root)
    sweeping.run(params, "steps", root)
    folder = paths.sweep(root, "steps")
    assert {file.name for file in folder.iterdir()} == {"summary.json", "table.csv", "figure.svg"}
    summary = summary_of(folder)
    assert [trial["name"] for trial in summary["trials"]] == ["unprocessed input", "1 step", "4 steps"]
    assert [trial["evaluations"] for trial in summary["trials"]] == [None, 1 + 2, 1 + 8]
    assert summary["trials"][0]["real_time_factor"] is None
    assert all(trial["real_time_factor"] > 0 for trial in summary["trials"][1:])
    single = enhancer.Enhancer.from_checkpoint(
        paths.model(root, "storm.toy") / "best", "cpu", steps=4, enhance=params.enhance["storm"]
    )
    for score in summary["trials"][2]["scores"]:
        clean, noisy, rate = pair(root, score["id"])
        expected = score_pair(clean, noisy, single(noisy, rate, score["id"]), rate, ("si_sdr",))
        assert score["si_sdr"] == pytest.approx(expected["si_sdr"], abs=1e-3)


def pair(root: Path, utterance: str) -> tuple[np.ndarray, np.ndarray, int]:
    folder = paths.mixtures(root, "toy")
    row = manifest.read(folder).set_index("id").loc[utterance].to_dict()
    return *shards.read_pair(folder, row), int(row["rate"])


def test_samplers_are_compared_at_every_number_of_steps(root):
    samplers = {"own": {"name": "pc", "steps": 9}, "few": {"name": "multistep"}}
    params = write_params(root, sweeps__steps__samplers=samplers)
    sweeping.run(params, "steps", root)
    found = {trial["name"]: trial for trial in summary_of(paths.sweep(root, "steps"))["trials"]}
    assert list(found) == ["unprocessed input", "own, 1 step", "own, 4 steps", "few, 1 step", "few, 4 steps"]
    assert [trial["evaluations"] for trial in found.values()] == [None, 3, 9, 2, 5]
    system = enhancer.Enhancer.from_checkpoint(
        paths.model(root, "storm.toy"), sampler=params.sweeps["steps"].samplers["few"], steps=4
    )
    for score in found["few, 4 steps"]["scores"]:
        clean, noisy, rate = pair(root, score["id"])
        expected = score_pair(clean, noisy, system(noisy, rate, score["id"]), rate, ("si_sdr",))["si_sdr"]
        assert score["si_sdr"] == pytest.approx(expected, abs=1e-3)
    figure = (paths.sweep(root, "steps") / "figure.svg").read_text()
    assert "network evaluations (log scale)" in figure
    assert "few, 4 steps" in figure


def test_the_table_holds_means_intervals_and_the_input(root):
    sweeping.run(write_params(root), "steps", root)
    summary = summary_of(paths.sweep(root, "steps"))
    table = pandas.read_csv(paths.sweep(root, "steps") / "table.csv")
    assert list(table["name"]) == ["unprocessed input", "1 step", "4 steps"]
    assert list(table["si_sdr_n"]) == [2, 2, 2]
    for line, trial in zip(table.to_dict("records"), summary["trials"], strict=True):
        values = [score["si_sdr"] for score in trial["scores"]]
        assert line["si_sdr"] == pytest.approx(np.mean(values), abs=1e-5)
        assert min(values) - 1e-5 <= line["si_sdr_low"] <= line["si_sdr_high"] <= max(values) + 1e-5


def test_files_are_spread_evenly_over_the_split(root):
    ids = [row["id"] for row in trials.choose(root, "toy", "valid", 2).rows]
    assert ids == ["valid_speaker_valid0", "valid_speaker_valid2"]
    assert (
        len(trials.choose(root, "toy", "test", 0).rows) == len(trials.choose(root, "toy", "test", 99).rows) == 3
    )


def test_a_sweep_over_the_average_takes_raw_tracked_and_reconstructed_weights(root):
    params = write_params(root)
    sweeping.run(params, "ema", root)
    found = summary_of(paths.sweep(root, "ema"))["trials"]
    assert [trial["name"] for trial in found] == [
        "unprocessed input",
        "no average",
        "length 0.05",
        "length 0.07",
    ]
    model = paths.model(root, "storm.toy")
    wanted = {"no average": (model / "raw", None), "length 0.07": (model / "best", 0.07)}
    for trial in found:
        if trial["name"] in wanted:
            folder, ema = wanted[trial["name"]]
            (score,) = trial["scores"]
            clean, noisy, rate = pair(root, score["id"])
            wave = enhancer.Enhancer.from_checkpoint(folder, "cpu", ema=ema)(noisy, rate, score["id"])
            expected = score_pair(clean, noisy, wave, rate, ("si_sdr",))["si_sdr"]
            assert score["si_sdr"] == pytest.approx(expected, abs=1e-3)
    assert len({trial["scores"][0]["si_sdr"] for trial in found}) == 4


def test_the_figure_is_one_file_that_needs_nothing_else(root):
    sweeping.run(write_params(root), "steps", root)
    text = (paths.sweep(root, "steps") / "figure.svg").read_text()
    drawing = xml.etree.ElementTree.fromstring(text)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "prefers-color-scheme: dark" in text
    space = "{http://www.w3.org/2000/svg}"
    assert [panel.find(f"{space}text").text for panel in drawing.findall(f"{space}g")] == ["SI-SDR", "ESTOI"]
    assert len(drawing.findall(f".//{space}path[@class='guide']")) == 2
    assert "storm.toy" in drawing.find(f"{space}title").text
    assert "Dashed: the unprocessed input" in drawing.find(f"{space}desc").text


# ----------------------------------------------------------------------------------------------- resuming


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Names of the variants that are really enhanced, in order."""
    names, real = [], trials._measured
    monkeypatch.setattr(
        trials,
        "_measured",
        lambda plan, variant, *rest: names.append(variant.name) or real(plan, variant, *rest),
    )
    return names


def test_what_is_scored_is_not_scored_again(root, measured):
    sweeping.run(write_params(root), "steps", root)
    first = summary_of(paths.sweep(root, "steps"))
    assert measured == ["unprocessed input", "1 step", "4 steps"]
    assert (counted := progress.facts())["done"] == counted["total"] > 0
    sweeping.run(write_params(root, sweeps__steps__values=[1, 2, 4]), "steps", root)
    assert measured[3:] == ["2 steps"]
    assert (again := progress.facts())["done"] == again["total"] == counted["total"] * 4 // 3
    second = summary_of(paths.sweep(root, "steps"))
    assert [second["trials"][place] for place in (0, 1, 3)] == first["trials"]
    # settings of another recipe, and other intervals over the same scores
    sweeping.run(write_params(root, evaluate__bootstrap=50, enhance__first__batch=3), "steps", root)
    assert len(measured) == 4
    sweeping.run(write_params(root, enhance__storm__seed=7), "steps", root)
    assert measured[4:] == ["1 step", "4 steps"]


def test_a_stopped_sweep_goes_on_where_it_was(root, measured, monkeypatch):
    real = trials.score_job

    def stop(job, rate, metrics, tools):
        if len(measured) == 3:
            raise KeyboardInterrupt
        return real(job, rate, metrics, tools)

    monkeypatch.setattr(trials, "score_job", stop)
    with pytest.raises(KeyboardInterrupt):
        sweeping.run(write_params(root), "steps", root)
    assert not paths.sweep(root, "steps").exists()
    monkeypatch.setattr(trials, "score_job", real)
    sweeping.run(write_params(root), "steps", root)
    assert measured[3:] == ["4 steps"]
    assert [file.name for file in paths.sweep(root, "steps").parent.iterdir()] == ["steps"]


def test_other_code_scores_again(root, measured, monkeypatch):
    sweeping.run(write_params(root), "ema", root)
    monkeypatch.setattr(trials, "_code", lambda: "other")
    sweeping.run(write_params(root), "ema", root)
    assert len(measured) == 8


# ------------------------------------------------------------------------------------------------- swaps


def test_a_swap_shows_both_predictors_alone_and_behind_the_system(root):
    params = write_params(root)
    swapping.run(params, "other", root)
    found = {trial["name"]: trial for trial in summary_of(paths.swap(root, "other"))["trials"]}
    own, other = "storm.toy, its predictor alone", "first.toy, predictor alone"
    assert list(found) == ["unprocessed input", own, other, "storm.toy", "storm.toy with first.toy"]
    assert [trial["evaluations"] for trial in found.values()] == [None, 1, 1, 5, 5]
    single = enhancer.Enhancer.from_checkpoint(paths.model(root, "first.toy") / "best", "cpu")
    swapped = enhancer.Enhancer.from_checkpoint(
        paths.model(root, "storm.toy") / "best", "cpu", predictor=paths.model(root, "first.toy"),
        enhance=params.enhance["storm"],
    )  # fmt: skip
    for name, system in ((other, single), ("storm.toy with first.toy", swapped)):
        for score in found[name]["scores"]:
            clean, noisy, rate = pair(root, score["id"])
            expected = score_pair(clean, noisy, system(noisy, rate, score["id"]), rate, ("si_sdr",))["si_sdr"]
            assert score["si_sdr"] == pytest.approx(expected, abs=1e-3)
    assert found[own]["parameters"] < found["storm.toy"]["parameters"]
    assert len({json.dumps(trial["scores"]) for trial in found.values()}) == 5


# ------------------------------------------------------------------------------------------------ mistakes

MISTAKES = [
    ("steps", {"sweeps__steps__values": [1, 2.5]}, "sweeps.steps.values: 2.5 is no number of steps"),
    ("steps", {"sweeps__steps__values": [0]}, "sweeps.steps.values: 0 is no number of steps"),
    ("steps", {"sweeps__steps__files": -1}, "files' is -1; give"),
    ("steps", {"sweeps__steps__metrics": []}, "sweeps.steps.metrics: there are none"),
    ("steps", {"sweeps__steps__values": []}, "sweeps.steps.values: there are none"),
    ("steps", {"sweeps__steps__system": "first.toy"}, "sampler 'direct' has no number of steps to change"),
    (
        "steps",
        {"sweeps__steps__metrics": ["peqs"]},
        "sweeps.steps.metrics: 'peqs' is not a metric (allowed: pesq",
    ),
    (
        "steps",
        {"sweeps__steps__samplers": {"x": {"name": "bridge_ode"}}},
        "sweeps.steps.samplers.x: sampler 'bridge_ode' does not fit process 'ouve'",
    ),
    (
        "ema",
        {"sweeps__ema__samplers": {"x": {"name": "pc"}}},
        "sweeps.ema.samplers: they are run at numbers of steps",
    ),
    ("ema", {"sweeps__ema__values": [0.001, 0.05]}, "sweeps.ema.values: 0.001 cannot be had: "),
    (
        "ema",
        {"sweeps__ema__values": [0], "sweeps__ema__system": "first.toy"},
        "models/first.toy/raw, which a training",
    ),
    (
        "ema",
        {"sweeps__ema__values": [0.1], "sweeps__ema__system": "first.toy"},
        "no snapshots of weight averages",
    ),
]


@pytest.mark.parametrize(("name", "changes", "message"), MISTAKES)
def test_what_cannot_be_swept_is_one_line_before_any_work(root, measured, name, changes, message):
    assert message in refused(root, sweeping, name, **changes)
    assert not measured


def test_what_cannot_be_swapped_is_one_line_before_any_work(root, measured):
    text = refused(
        root, swapping, "other", swaps__other__system="first.toy", swaps__other__predictor="storm.toy"
    )
    assert "has no predictor that could be exchanged" in text
    shutil.rmtree(paths.model(root, "first.toy"))
    assert "no such checkpoint" in refused(root, swapping, "other")
    assert not measured


def test_an_empty_split_is_one_line(root):
    folder = paths.mixtures(root, "toy")
    frame = manifest.read(folder)
    manifest.write(frame[frame["split"] != "valid"], folder)
    assert "no utterances in the valid split" in refused(root, sweeping, "steps")


# --------------------------------------------------------------------------------------------- the chain


def test_the_command_line_sweeps_swaps_and_reports(root, capsys):
    write_params(root)
    for arguments in (["evaluate", "unprocessed", "toy"], ["sweep", "steps"], ["swap", "other"], ["report"]):
        assert cli.main(arguments) == 0, capsys.readouterr().err
    page = (root / "report" / "index.html").read_text()
    assert "steps: storm.toy at different numbers of sampling steps" in page
    assert "other: storm.toy with the predictor of first.toy" in page
    assert "The sweep ema has not been run." in page
