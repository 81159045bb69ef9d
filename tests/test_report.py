"""The report: its numbers and words, on a small complete project, on half of one and on a damaged one."""

import csv
import math
import shutil
from pathlib import Path

import pandas
import pytest
from report_project import BAD, FILES, GOOD, RATE, Outline, make_project, page_of, text_of

from diffse import paths, settings, storage
from diffse.errors import DiffseError
from diffse.report import artifacts, build, compare, markdown


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[settings.Params, Path, dict]:
    """(params, root, what run returned) of the complete project; tests must not change it."""
    root = tmp_path_factory.mktemp("project")
    params = make_project(root)
    return params, root, build.run(params, root)


@pytest.fixture
def copied(made, tmp_path) -> tuple[settings.Params, Path]:
    """The same project without its report, free to be damaged."""
    root = tmp_path / "copy"
    shutil.copytree(made[1], root)
    shutil.rmtree(root / "report")
    return made[0], root


# --------------------------------------------------------------------------------------------- numbers


def test_summary_holds_means_and_paired_differences(made):
    _, root, _ = made
    with open(root / "report" / "summary.csv", encoding="utf-8", newline="") as stream:
        lines = {(row["corpus"], row["system"], row["metric"]): row for row in csv.DictReader(stream)}
    before = pandas.read_csv(paths.results(root, "unprocessed", "demo") / "per_file.csv").set_index("id")
    after = pandas.read_csv(paths.results(root, GOOD, "demo") / "per_file.csv").set_index("id")
    row = lines["demo", GOOD, "pesq"]
    assert float(row["mean"]) == pytest.approx(after["pesq"].mean(), rel=1e-5)
    # one file has no PESQ: it must not count on either side of the difference
    assert (row["n"], row["missing"], row["difference_n"]) == (str(FILES - 1), "1", str(FILES - 1))
    assert float(row["difference"]) == pytest.approx(0.3, rel=1e-5)
    change = float(lines["demo", GOOD, "si_sdr"]["difference"])
    assert change == pytest.approx((after["si_sdr"] - before["si_sdr"]).mean(), rel=1e-5)
    assert lines["demo", "unprocessed", "si_sdr"]["difference"] == ""
    assert lines["demo", "unprocessed", "si_sar"]["mean"] == ""
    assert lines["pairs", BAD, "parameters"]["mean"] == "1523456"


def test_terminal_table_begins_with_the_unprocessed_input(made):
    _, root, result = made
    assert result["table"] == build.terminal_table(root)
    blocks = result["table"].split("\n\n")
    assert len(blocks) == 2
    heading, columns, first, *others = blocks[0].splitlines()
    assert "demo" in heading
    for name in ("SI-SDR", "PESQ", "ESTOI", "DNSMOS", "real-time factor", "network evaluations"):
        assert name in columns
    mean = pandas.read_csv(paths.results(root, "unprocessed", "demo") / "per_file.csv")["si_sdr"].mean()
    assert first.startswith("unprocessed input")
    assert first.split()[2] == f"{mean:.2f}"
    assert [line.split()[0] for line in others] == [BAD, GOOD]
    assert others[0].split()[-2:] == ["0.123", "30"]
    assert len({len(line) for line in (columns, first, *others)}) == 1


def test_terminal_table_without_a_report_says_what_to_run(tmp_path):
    with pytest.raises(DiffseError, match=r"summary\.csv: no such file; run 'diffse report'"):
        build.terminal_table(tmp_path)


def scores_of(system: str, values: dict[str, float]) -> artifacts.Scores:
    table = pandas.DataFrame({"si_sdr": values})
    value = artifacts.Value(0.0, None, None, len(values), 0, {}, "dB", RATE, "")
    return artifacts.Scores(system, "demo", len(values), {"si_sdr": value}, None, None, None, None, table)


def test_difference_joins_by_id_and_not_by_order():
    before = scores_of("unprocessed", {"a": 1.0, "b": 10.0, "c": 5.0})
    after = scores_of("x", {"c": 6.0, "b": 12.0, "z": 99.0})
    found = compare.difference(after, before, "si_sdr", settings.Evaluate(bootstrap=500))
    assert (found.mean, found.n) == (1.5, 2)
    assert 1.0 <= found.low <= found.mean <= found.high <= 2.0
    assert found.verdict == "better"


def test_difference_of_one_file_has_no_interval():
    before, after = scores_of("unprocessed", {"a": 1.0}), scores_of("x", {"a": 3.0})
    found = compare.difference(after, before, "si_sdr", settings.Evaluate())
    assert (found.low, found.high, found.verdict) == (None, None, "unclear")
    assert "1 file, so no interval" in compare.sentence("x", {"si_sdr": found}, 0.95)


def test_difference_without_common_files_is_none():
    before, after = scores_of("unprocessed", {"a": 1.0}), scores_of("x", {"b": 3.0})
    assert compare.difference(after, before, "si_sdr", settings.Evaluate()) is None
    assert compare.difference(after, None, "si_sdr", settings.Evaluate()) is None
    assert "cannot be compared" in compare.sentence("x", {"si_sdr": None}, 0.95)


def test_sentence_says_good_and_bad_plainly():
    differences = {
        "si_sdr": compare.Difference(3.2, 2.9, 3.5, 24),
        "pesq": compare.Difference(-0.1, -0.2, -0.05, 24),
        "estoi": compare.Difference(0.001, -0.01, 0.012, 24),
    }
    assert compare.sentence("x.demo", differences, 0.95) == (
        "x.demo improves its input in SI-SDR by +3.20 dB (95 % interval +2.90 to +3.50, 24 files); "
        "it stays below its input in PESQ (−0.100; 95 % interval −0.200 to −0.050, 24 files); "
        "it shows no clear difference to its input in ESTOI (+0.001; 95 % interval −0.010 to +0.012, 24 files)."
    )


@pytest.mark.parametrize(
    ("value", "digits", "plain", "with_sign"),
    [
        (1.234, 2, "1.23", "+1.23"),
        (-1.0, 1, "−1.0", "−1.0"),
        (-0.001, 2, "0.00", "0.00"),
        (math.nan, 2, "–", "–"),
        (math.inf, 2, "–", "–"),
    ],
)
def test_numbers_as_text(value, digits, plain, with_sign):
    assert compare.number(value, digits) == plain
    assert compare.signed(value, digits) == with_sign


def test_markdown_keeps_names_inside_their_cells(made):
    _, root, _ = made
    lines = (root / "report" / "summary.md").read_text("utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 * 5
    assert len({line.count("|") for line in rows}) == 1
    assert markdown._escape("a|b\n<i>*c*") == r"a\|b \<i\>\*c\*"


# ---------------------------------------------------------------------------------------- missing pieces


def test_half_a_project_gives_half_a_report(copied):
    params, root = copied
    shutil.rmtree(root / "models" / BAD)
    (root / "models" / GOOD / "validation.csv").unlink()
    shutil.rmtree(paths.results(root, BAD, "demo"))
    shutil.rmtree(root / "data" / "pairs")
    shutil.rmtree(root / "enhanced" / GOOD / "demo")
    (paths.results(root, GOOD, "pairs") / "per_file.csv").unlink()
    build.run(params, root)
    page = page_of(root)
    Outline(page)
    text = text_of(page)
    for line in (
        f"{BAD} has not been evaluated on demo.",
        f"{BAD} has no checkpoint here.",
        f"{BAD} has no training curve (history.csv).",
        f"{GOOD} has no validation curve (validation.csv).",
        "The mixtures of pairs are not here: nothing of it can be heard or seen.",
        f"The per-file scores of {GOOD} on pairs are not here.",
        "No audio to show",
    ):
        assert line in text


def test_only_the_unprocessed_input(copied):
    params, root = copied
    for folder in ("models", "enhanced", "gates"):
        shutil.rmtree(root / folder)
    for system in (GOOD, BAD):
        shutil.rmtree(root / "results" / system)
    shutil.rmtree(paths.results(root, "unprocessed", "pairs"))
    result = build.run(params, root)
    text = text_of(page_of(root))
    assert "No system has been evaluated on demo beside the unprocessed input." in text
    assert "Nothing has been evaluated on this corpus." in text
    assert "No training curve is here." in text
    assert "ranked by the SI-SDR of the input" in text
    assert len(result["table"].splitlines()) == 3


def test_systems_without_the_unprocessed_input(copied):
    params, root = copied
    shutil.rmtree(root / "results" / "unprocessed")
    build.run(params, root)
    text = text_of(page_of(root))
    assert "unprocessed has not been evaluated on demo." in text
    assert f"{GOOD} cannot be compared with its input" in text


def test_no_result_at_all_is_one_line(copied):
    params, root = copied
    shutil.rmtree(root / "results")
    with pytest.raises(DiffseError) as caught:
        build.run(params, root)
    assert "no results of the selected systems" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (root / "report").exists()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("summary.json", "{", "summary.json: not valid JSON"),
        ("summary.json", "[]", "summary.json: lacks 'metrics'"),
        ("per_file.csv", "file,pesq\na,1\n", "per_file.csv: needs a column 'id'"),
        ("per_file.csv", "id,pesq\na,1\na,2\n", "per_file.csv: needs a column 'id' without repetitions"),
        ("per_file.csv", "", "per_file.csv: not a table"),
        ("per_file.csv", "id,pesq\na,1,2,3\nb,1\nc,1,2,3,4,5\n", "per_file.csv: not a table"),
    ],
)
def test_damaged_results_are_named_and_the_old_report_stays(copied, name, content, expected):
    params, root = copied
    storage.write_json(root / "report" / "index.html", "the old page")
    (paths.results(root, GOOD, "demo") / name).write_text(content)
    with pytest.raises(DiffseError, match=expected) as caught:
        build.run(params, root)
    assert "\n" not in str(caught.value)
    assert [item.name for item in (root / "report").iterdir()] == ["index.html"]
    assert page_of(root) == '"the old page"\n'


def test_names_that_look_like_numbers_or_nothing_stay_names(tmp_path):
    path = tmp_path / "per_file.csv"
    path.write_text("id,speaker,noise_kind,snr_db,pesq,pesq_reason\nNA,001,nan,,,silent\n007,002,x,3,inf,\n")
    table = artifacts._read_per_file(path)
    assert list(table.index) == ["NA", "007"]
    assert list(table["speaker"]) == ["001", "002"]
    assert list(table["noise_kind"]) == ["nan", "x"]
    assert table["pesq"].isna().all()
    assert list(table["pesq_reason"]) == ["silent", ""]


def test_other_versions_of_the_data_are_said(copied):
    params, root = copied
    path = paths.model(root, GOOD) / "best" / "checkpoint.json"
    storage.write_json(path, storage.read_json(path) | {"data_version": "0" * 64})
    path = paths.enhanced(root, BAD, "pairs") / "enhanced.json"
    storage.write_json(path, storage.read_json(path) | {"mixtures_sha256": "0" * 64})
    build.run(params, root)
    text = text_of(page_of(root))
    assert f"{GOOD} was trained on another version of demo than the one here." in text
    assert f"The audio of {BAD} on pairs was made from another version of the mixtures." in text


def test_other_versions_of_a_metric_are_said_in_one_line(copied):
    params, root = copied
    path = paths.results(root, BAD, "demo") / "summary.json"
    summary = storage.read_json(path)
    summary["metrics"]["pesq"]["version"] = "pesq 0.0.3"
    storage.write_json(path, summary)
    build.run(params, root)
    text = text_of(page_of(root)).replace("\u200b", "")
    assert "different versions of a metric are compared on demo (pesq: " in text
    assert f"; pesq 0.0.3 of {BAD})" in text
    assert "compared on pairs" not in text
    assert list((root / "report").glob("index.html"))  # the rest is there
