"""Ranks, pairs, breakdowns and LaTeX tables of the report, on scores whose answers are known."""

import csv
import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas
import pytest
from report_project import BAD, FILES, GOOD, Outline, make_project, page_of, text_of

from diffse import settings
from diffse.data import manifest
from diffse.errors import DiffseError
from diffse.report import artifacts, breakdown, build, compare, findings, latex, sections, significance
from diffse.settings import Params

PARAMS = Params(("c",), (), (), {}, {}, {}, evaluate=settings.Evaluate(bootstrap=200), report=settings.Report())


def project_of(
    tables: dict[str, pandas.DataFrame], mixtures: pandas.DataFrame | None = None
) -> artifacts.Project:
    """A project of one corpus with these per-file scores."""
    scores = {}
    for system, table in tables.items():
        names = [name for name in table.columns if name in ("pesq", "lsd")]
        values = {name: artifacts.Value(None, None, None, 0, 0, {}, "", None, "") for name in names}
        found = artifacts.Scores(system, "c", len(table), values, None, None, None, None, table)
        scores[system, "c"] = found
    data = {"c": artifacts.Mixtures("c", Path(), mixtures, "", 0)}
    systems = tuple(name for name in tables if name != "unprocessed")
    return artifacts.Project(("c",), systems, systems, scores, {}, data, {}, [], [])


def table_of(values: np.ndarray, **more) -> pandas.DataFrame:
    ids = [f"f{place:03d}" for place in range(len(values))]
    return pandas.DataFrame({"pesq": values, **more}, index=pandas.Index(ids, name="id"))


@pytest.fixture
def three() -> dict[str, pandas.DataFrame]:
    """60 files: b is better than the input by 0.2, a equals b but for noise."""
    rng = np.random.default_rng(0)
    ease = rng.normal(2.0, 0.5, 60)
    noise = 0.05 * rng.standard_normal((3, 60))
    speakers = [f"s{place % 6}" for place in range(60)]
    return {
        "unprocessed": table_of(ease + noise[0], speaker=speakers),
        "a": table_of(ease + 0.2 + noise[1], speaker=speakers),
        "b": table_of(ease + 0.2 + noise[2], speaker=speakers),
    }


# ---------------------------------------------------------------------------------------------- ranks


def test_systems_that_do_not_differ_share_a_rank(three):
    ranking = significance.rankings(project_of(three), "c", PARAMS)["pesq"]
    assert ranking.ranks == {"a": 1, "b": 1, "unprocessed": 3}
    assert ranking.best == {"a", "b"}
    assert (ranking.files, ranking.left_out, ranking.speakers) == (60, 0, 6)
    assert set(ranking.by_speaker) == {"unprocessed", "a", "b"}
    first = ranking.systems[0]
    assert sections.sentence(ranking) == (
        f"PESQ: {first} and {'b' if first == 'a' else 'a'}; then unprocessed input."
    )


def test_nothing_is_best_where_nothing_differs(three):
    twins = {name: three[name] for name in ("a", "b")}
    ranking = significance.rankings(project_of(twins), "c", PARAMS)["pesq"]
    assert not ranking.decided
    assert ranking.best == frozenset()
    assert sections.sentence(ranking) == "PESQ: no system differs significantly from any other."


def test_every_comparison_rests_on_the_same_files(three):
    """One system lacks its ten worst files: its mean over all of its own would flatter it."""
    easy = three["a"]["pesq"].sort_values().index[:10]
    three["a"].loc[easy, "pesq"] = np.nan
    ranking = significance.rankings(project_of(three), "c", PARAMS)["pesq"]
    assert (ranking.files, ranking.left_out) == (50, 10)
    assert {pair.n for pair in ranking.pairs} == {50}
    others = three["b"]["pesq"].drop(easy)
    assert ranking.means["b"] == pytest.approx(others.mean())
    assert "50 files that every system has a value for; 10 left out" in significance.basis(ranking)


def test_a_system_without_values_takes_no_part(three):
    three["c"] = table_of(np.full(60, np.nan))
    ranking = significance.rankings(project_of(three), "c", PARAMS)["pesq"]
    assert (ranking.files, ranking.absent) == (60, ("c",))
    assert "without any value: c" in significance.basis(ranking)


def test_lower_is_better_for_errors(three):
    renamed = {name: table.rename(columns={"pesq": "lsd"}) for name, table in three.items()}
    ranking = significance.rankings(project_of(renamed), "c", PARAMS)["lsd"]
    assert ranking.systems[0] == "unprocessed"
    assert ranking.ranks == {"unprocessed": 1, "a": 2, "b": 2}
    assert compare.Difference(-1.0, -2.0, -0.5, 9, higher_is_better=False).verdict == "better"
    assert not compare.metric("lsd").higher_is_better


def test_few_speakers_give_no_interval_over_speakers(three):
    for table in three.values():
        table["speaker"] = "p232"
    assert significance.rankings(project_of(three), "c", PARAMS)["pesq"].by_speaker == {}


def test_a_stricter_alpha_and_no_correction_are_used(three):
    strict = dataclasses.replace(PARAMS, report=settings.Report(alpha=1e-15))
    assert not significance.rankings(project_of(three), "c", strict)["pesq"].decided
    plain = dataclasses.replace(PARAMS, report=settings.Report(correction="none"))
    pairs = significance.rankings(project_of(three), "c", plain)["pesq"].pairs
    assert all(pair.p == pair.corrected for pair in pairs)
    assert "without correction" in sections.method(plain.report)


@pytest.mark.parametrize("line", ["alpha: 0.9", "test: ttest", "correction: bonferroni", "alphas: 0.1"])
def test_settings_out_of_range_are_refused(tmp_path, line):
    make_params = Path(tmp_path / "params.yaml")
    make_params.write_text(
        "corpora: [d]\ntrain_corpora: []\nrecipes: []\nprepare: {d: {kind: demo}}\ntrain: {}\nenhance: {}\n"
        f"report: {{{line}}}\n"
    )
    with pytest.raises(DiffseError, match="report"):
        settings.load(make_params)


# ------------------------------------------------------------------------------------------ breakdown


def test_groups_are_those_of_the_files(three):
    snr = np.repeat([2.5, 7.5, 12.5], 20)
    for table in three.values():
        table["snr_db"] = snr
        table["noise_kind"] = ["cafe", "car"] * 30
    found = {one.factor.column: one for one in breakdown.breakdowns(project_of(three), "c", PARAMS)}
    assert set(found) == {"snr_db", "noise_kind", "speaker"}
    by_snr = found["snr_db"]
    assert [(group.label, group.files) for group in by_snr.groups] == [
        ("2.5 dB", 20),
        ("7.5 dB", 20),
        ("12.5 dB", 20),
    ]
    expected = three["a"]["pesq"].to_numpy()[20:40].mean()
    mean, low, high = by_snr.groups[1].values["a"]
    assert mean == pytest.approx(expected)
    assert low < mean < high
    assert [group.files for group in found["speaker"].groups] == [10] * 6


def test_continuous_properties_are_put_into_ranges(three):
    for table in three.values():
        table["snr_db"] = np.linspace(-5.0, 14.99, 60)
        table["t60"] = np.where(np.arange(60) < 30, np.nan, np.linspace(0.2, 0.79, 60))
    found = {one.factor.column: one for one in breakdown.breakdowns(project_of(three), "c", PARAMS)}
    labels = [group.label for group in found["snr_db"].groups]
    assert labels == ["−5 to 0 dB", "0 to 5 dB", "5 to 10 dB", "10 to 15 dB"]
    assert [group.label for group in found["t60"].groups] == ["0.4 to 0.6 s", "0.6 to 0.8 s"]
    assert found["t60"].unknown == 30


def test_properties_come_from_the_manifest_where_results_lack_them(three):
    columns = {name: "" for name, kind in manifest.COLUMNS.items() if kind == "string"}
    rows = [columns | {"id": item, "gender": "fm"[place % 2]} for place, item in enumerate(three["a"].index)]
    found = breakdown.breakdowns(project_of(three, pandas.DataFrame(rows)), "c", PARAMS)
    genders = next(one for one in found if one.factor.column == "gender")
    assert [(group.label, group.files) for group in genders.groups] == [("female", 30), ("male", 30)]


def test_a_property_that_splits_nothing_is_left_out(three):
    for table in three.values():
        table["noise_kind"] = "cafe"
        table["gender"] = ""
        table["speaker"] = [f"s{place}" for place in range(60)]  # too many for a table
    assert breakdown.breakdowns(project_of(three), "c", PARAMS) == []


# ---------------------------------------------------------------------------------------- the report


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Params, Path]:
    root = tmp_path_factory.mktemp("project")
    params = make_project(root)
    build.run(params, root)
    return params, root


def rows_of(root: Path, name: str) -> list[dict[str, str]]:
    with open(root / "report" / name, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_page_says_who_is_ahead(made):
    page = page_of(made[1])
    text = text_of(page).replace("\u200b", "")
    assert f"SI-SDR: {GOOD}; then unprocessed input; then {BAD}." in text
    assert "Wilcoxon signed-rank test, two-sided, file by file, corrected after Holm" in text
    assert f"PESQ: {FILES - 1} files that every system has a value for; 1 left out." in text
    assert f"{GOOD} is better" in text
    assert "SI-SDR (dB) by SNR." in text
    further = text[text.index("Further scores by SNR") :]
    assert "DNSMOS BAK by SNR." in further
    assert "PESQ by SNR." not in further[: further.index("File by file")]
    outline = Outline(page)
    assert outline.open == []
    assert all("aria-label" in one for one in outline.all("div") if "scroll" in one.get("class", ""))


def test_pairs_and_groups_are_written_for_programs(made):
    pairs = rows_of(made[1], "pairs.csv")
    one = next(
        row for row in pairs if (row["corpus"], row["metric"], row["second"]) == ("demo", "si_sdr", GOOD)
    )
    assert one["better"] == GOOD
    assert float(one["p"]) == pytest.approx(2 / 2**FILES)  # all nine files agree
    assert float(one["p_corrected"]) == pytest.approx(3 * 2 / 2**FILES, rel=1e-5)
    assert len(pairs) == 2 * (8 * 3 + 1)  # SI-SAR has no value for the input
    groups = rows_of(made[1], "breakdown.csv")
    assert {row["factor"] for row in groups} == {"snr_db"}
    counts = {
        row["group"]: int(row["files"])
        for row in groups
        if row["corpus"] == "demo" and row["metric"] == "estoi"
    }
    assert sum(counts.values()) == FILES


def test_latex_is_balanced_and_marks_the_best(made):
    text = (made[1] / "report" / "tables.tex").read_text("utf-8")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 2
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {6}
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    bold = [row for row in rows if r"\textbf" in row]
    assert len(bold) == 2
    assert all(row.startswith(r"bridge\_small.demo") for row in bold)
    assert "$-$" in text
    assert "Compared on the files that every system has a value for" in text


def test_latex_marks_nothing_where_nothing_differs(made):
    params, root = made
    lenient = dataclasses.replace(params, report=dataclasses.replace(params.report, alpha=1e-9))
    found = findings.find(artifacts.load(lenient, root), lenient)
    assert r"\textbf" not in latex.tables(found, lenient)


def test_latex_keeps_any_name_in_its_cell():
    assert latex.escape("a_b & 50 % {x} \\y #1 ~^$") == (
        r"a\_b \& 50 \% \{x\} \textbackslash{}y \#1 \textasciitilde{}\textasciicircum{}\$"
    )


def test_environment_and_cost_are_stated(made):
    text = text_of(page_of(made[1]))
    assert re.search(r"Computed with torch [0-9.]+", text)
    assert "GMAC per second of audio" in text
    assert "1,523,456" in text
