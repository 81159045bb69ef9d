"""Sweeps, swaps and external systems in the report."""

import itertools
import shutil
import xml.etree.ElementTree
from pathlib import Path

import pytest
import yaml
from report_project import (
    GOOD,
    NASTY,
    PARAMS,
    Outline,
    make_enhanced,
    make_mixtures,
    make_project,
    make_results,
    page_of,
    score_table,
    text_of,
)

from diffse import paths, settings, storage
from diffse.errors import DiffseError
from diffse.report import build, sweeps, trials

THEIRS = "theirs"
MORE = {
    "externals": [THEIRS],
    "external": {THEIRS: {"folder": "sources/external/theirs", "paper": "Theirs (2020)"}},
    "sweeps": {
        "fine": {"system": GOOD, "corpus": "demo"},
        "average": {"system": GOOD, "corpus": "demo", "over": "ema", "values": [0, 0.1]},
        "later": {"system": GOOD, "corpus": "demo"},
    },
    "swaps": {"other": {"system": GOOD, "predictor": GOOD, "corpus": "demo"}},
}


def trial(name: str, value: float | None, si_sdr: float | None, estoi: float | None) -> dict:
    def found(mean: float | None) -> dict:
        ends = {"low": None, "high": None} if mean is None else {"low": mean - 0.1, "high": mean + 0.2}
        return {"mean": mean, **ends, "n": 0 if mean is None else 5, "missing": 5 if mean is None else 0}

    costs = [None] * 3 if name == "unprocessed input" else [2 * (value or 0) + 1, 1500000, 0.25]
    return {
        "name": name, "value": value, "key": "k", "scores": [],
        **dict(zip(("evaluations", "parameters", "real_time_factor"), costs, strict=True)),
        "metrics": {"si_sdr": found(si_sdr), "estoi": found(estoi)},
    }  # fmt: skip


def summary(kind: str, name: str, rows: list[dict], **facts) -> dict:
    return {
        "format": 1, "kind": kind, "name": name, "system": GOOD, "corpus": "demo", "split": "valid", "files": 5,
        "confidence": 0.95, "units": {"si_sdr": "dB", "estoi": ""}, **facts, "trials": rows,
    }  # fmt: skip


INPUT = trial("unprocessed input", None, 4.0, 0.5)
SWEEP = summary(
    "sweep", "fine", [INPUT, trial("1 step", 1, 3.0, 0.6), trial("10 steps", 10, 9.0, 0.55)], over="steps"
)
LENGTHS = [trial("no average", 0, 1.0, None), trial("length 0.1", 0.1, 2.0, None)]
AVERAGE = summary("sweep", "average", [INPUT, *LENGTHS], over="ema")
SWAP = summary("swap", "other", [INPUT, trial(f"{GOOD} with {NASTY}", None, 5.0, 0.7)], predictor=NASTY)


def write(root: Path) -> None:
    """Results of two sweeps, one swap and an external system on both corpora."""
    for folder, found in (
        (paths.sweep(root, "fine"), SWEEP),
        (paths.sweep(root, "average"), AVERAGE),
        (paths.swap(root, "other"), SWAP),
    ):
        storage.write_json(folder / "summary.json", found)
    for seed, corpus in enumerate(("demo", "pairs")):
        rows, waves = make_mixtures(root, corpus, seed)  # the same as before
        estimates = make_enhanced(root, THEIRS, corpus, waves, 0.9)
        make_results(root, THEIRS, corpus, score_table(rows, waves, estimates, 0.1))
        file = paths.enhanced(root, THEIRS, corpus) / "enhanced.json"
        facts = {"external": True, "paper": "Theirs (2020)", "sampler": None, "parameters": None}
        settings_of = {"folder": "sources/external/theirs", "command": []}
        storage.write_json(file, storage.read_json(file) | facts | {"settings": settings_of})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[settings.Params, Path]:
    root = tmp_path_factory.mktemp("sweeps")
    make_project(root)
    write(root)
    (root / "params.yaml").write_text(yaml.safe_dump(yaml.safe_load(PARAMS) | MORE, sort_keys=False))
    params = settings.load(root / "params.yaml")
    build.run(params, root)
    return params, root


# -------------------------------------------------------------------------------------------------- page


def test_sections_and_links_are_there_when_results_are(made, tmp_path):
    outline = Outline(page_of(made[1]))
    ids = {attributes.get("id") for _, attributes in outline.elements}
    links = {link["href"] for link in outline.all("a")}
    assert {"sweeps", "swaps"} <= ids
    assert {"#sweeps", "#swaps"} <= links
    make_project(tmp_path)
    build.run(settings.load(tmp_path / "params.yaml"), tmp_path)
    page = page_of(tmp_path)
    assert 'id="sweeps"' not in page
    assert 'id="swaps"' not in page
    assert "external" not in text_of(page)


def test_the_sections_are_accessible(made):
    page = page_of(made[1])
    outline = Outline(page)
    assert outline.open == []
    levels = [int(tag[1]) for tag, _ in outline.elements if tag in ("h1", "h2", "h3", "h4")]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(outline.all("caption")) == len(outline.all("table"))
    part = page[page.index('<section id="sweeps"') : page.index('<section id="training"')]
    inner = Outline(part)
    drawings = [one for one in inner.all("svg") if one.get("role") == "img"]
    assert len(drawings) == 3  # of the second sweep ESTOI has no value, and a swap has no figure
    for drawing in drawings:
        assert "Dashed: the unprocessed input" in drawing["aria-label"]
    regions = [one for one in inner.all("div") if one.get("class") == "scroll"]
    assert [one["aria-label"] for one in regions] == ["Scores of fine", "Scores of average", "Scores of other"]
    assert all(one["tabindex"] == "0" for one in regions)
    assert {one["scope"] for one in inner.all("th")} == {"col", "row"}


def test_of_several_samplers_the_front_is_named():
    rows = [INPUT]
    for family, scores in (("slow", (3.0, 5.0, 4.0)), ("quick", (2.0, 6.0, 5.5))):
        rows += [
            trial(f"{family}, {n} steps", n, s, 0.5) | {"family": family}
            for n, s in zip((1, 2, 4), scores, strict=True)
        ]
    found = trials.parse(summary("sweep", "fine", rows, over="steps"))
    text = " ".join(sweeps.sentences(found))
    assert "from few evaluations to many: slow, 1 steps, quick, 2 steps." in text
    assert "ESTOI than" not in text  # all equal: the first alone
    chart = sweeps.charts(found)[0]
    assert [series.name for series in chart.series] == ["slow", "quick"]


def test_the_page_says_what_was_found(made):
    page, text = page_of(made[1]), text_of(page_of(made[1]))
    assert f"fine: {GOOD} at different numbers of sampling steps" in text
    assert "5 files of demo, valid split. SI-SDR is highest for 10 steps: 9.00 dB (8.90 to 9.20)." in text
    assert "ESTOI is highest for 1 step: 0.600 (0.500 to 0.800)." in text
    assert "The sweep later has not been run." in text
    assert "1.50 M" in text
    assert "n = 0, 5 missing" in text
    assert f"{GOOD} with {NASTY}" in text.replace("\u200b", "")
    assert "<img src=x" not in page


def test_an_external_system_stands_beside_the_others(made):
    page = page_of(made[1])
    text = text_of(page)
    assert "external: Theirs (2020)" in text
    assert f"{THEIRS} improves its input in SI-SDR by +" in text
    assert f"{THEIRS} has no" not in text
    assert "external: files" in text
    assert f"checkpoint {THEIRS}" not in text  # no gate is expected of a training that there was not
    assert page.count("<audio") == 2 * 3 * 5  # corpora, files, signals


def test_text_forms_hold_them_too(made):
    _, root = made
    lines = (root / "report" / "summary.md").read_text("utf-8").splitlines()
    start = lines.index(next(line for line in lines if line.startswith("## fine")))
    table = [line for line in lines[start:] if line.startswith("|")]
    assert table[2].startswith("| unprocessed input | 4.00 [3.90 to 4.20] | 0.500 [0.400 to 0.700] | – ")
    assert table[4].split(" | ")[3:] == ["21", "0.250", "1.50 M |"]
    assert any(line.startswith("## other") for line in lines)
    with open(root / "report" / "summary.csv", encoding="utf-8") as stream:
        assert sum(f",{THEIRS}," in line for line in stream) == 2 * (9 + 3)


# ------------------------------------------------------------------------------------------------ figure


def test_the_figure_shows_means_intervals_and_the_input():
    first, second = sweeps.charts(trials.parse(SWEEP))
    assert [tick.text for tick in first.x_ticks] == ["1", "10"]
    (series,) = first.series
    assert [point.title for point in series.points] == [
        "1 step: 3.00 dB (2.90 to 3.20)",
        "10 steps: 9.00 dB (8.90 to 9.20)",
    ]
    low, high = series.points
    assert low.x < high.x
    assert low.y > high.y
    assert series.bars.count("V") == 2
    level = float(first.guide.split("H")[0].split()[1])
    assert high.y < level < low.y  # the input lies between
    assert second.y_label == "ESTOI"


def test_the_axis_over_lengths_begins_without_an_average():
    charts = sweeps.charts(trials.parse(AVERAGE))
    assert [chart.title for chart in charts] == ["SI-SDR"]
    assert [tick.text for tick in charts[0].x_ticks] == ["0", "0.1"]


def test_many_values_keep_their_texts_apart():
    rows = [trial(f"{value} steps", value, 1.0, 0.5) for value in range(40, 61)]
    (chart, _) = sweeps.charts(trials.parse(SWEEP | {"trials": [INPUT, *rows]}))
    places = [tick.at for tick in chart.x_ticks]
    assert all(after - before >= 24 for before, after in itertools.pairwise(places))
    assert len(chart.series[0].points) == 21


LITTLE = [[INPUT], [INPUT, trial("1 step", 1, None, None)], [trial("1 step", 1, 2.0, 0.5)]]


@pytest.mark.parametrize("rows", LITTLE)
def test_a_figure_of_little_is_still_a_figure(rows):
    drawing = xml.etree.ElementTree.fromstring(sweeps.svg(SWEEP | {"trials": rows}))
    assert drawing.get("viewBox").startswith("0 0 ")


def test_curves_of_several_samplers_are_named():
    rows = [trial(f"{name}, {n} steps", n, 1.0, 0.5) | {"family": name} for name in "ab" for n in (1, 2)]
    drawing = xml.etree.ElementTree.fromstring(sweeps.svg(SWEEP | {"trials": [INPUT, *rows]}))
    said = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert said[-2:] == ["a", "b"]
    alone = xml.etree.ElementTree.fromstring(sweeps.svg(SWEEP))
    assert "Dashed" in [element.text for element in alone.iter("{http://www.w3.org/2000/svg}text")][-1]


# ---------------------------------------------------------------------------------------------- mistakes


DAMAGED = ["{", "[]", '{"kind": "sweep"}', '{"kind": "sweep", "name": "x", "trials": [{}]}']


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_results_are_named(made, tmp_path, text):
    root = shutil.copytree(made[1], tmp_path / "copy")
    (paths.sweep(root, "fine") / "summary.json").write_text(text)
    with pytest.raises(DiffseError) as caught:
        build.run(made[0], root)
    assert str(paths.sweep(root, "fine") / "summary.json") in str(caught.value)
    assert "\n" not in str(caught.value)
