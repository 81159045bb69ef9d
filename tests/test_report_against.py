"""The papers' numbers beside ours: complete, with their source, and compared only where they can be."""

import dataclasses
import shutil
from pathlib import Path

import pandas
import pytest
import yaml
from report_project import GOOD, PARAMS, Outline, make_project, page_of, text_of

from diffse import cli, paths, presets, reproduction, settings, storage
from diffse.errors import DiffseError
from diffse.metrics import table
from diffse.report import against, artifacts, build, papers
from diffse.report.papers import Number

NOT_OURS = {"bradley_terry", "snr"}  # values of tables that no metric of diffse is


# ------------------------------------------------------------------------------------------ the data


def test_the_tables_hold_what_the_papers_print():
    """Two rows of each table that the texts hold, as printed."""
    rows = papers.rows()
    assert rows["storm-convtasnet-wsj0_chime3"].values == {
        "pesq": Number(2.36, 0.60), "estoi": Number(0.86, 0.09), "si_sdr": Number(9.9, 1.7)
    }  # fmt: skip
    assert rows["storm_noisy-wsj0_chime3"].values["si_sdr"] == Number(11.5, 5.2)
    assert rows["storm_unsupervised-wsj0_chime3"].values["si_sdr"] == Number(-0.3)
    assert rows["udiffse-wsj0_qut"].values["dnsmos_ovrl"] == Number(3.74, 0.02)
    assert rows["m1-tcd_timit_540-from-wsj0_chime3"].values["si_sdr"] == Number(-3.97, 0.41)
    assert rows["weighted-wsj0_qut"].values["si_sdr"] == Number(10.56)
    assert rows["m7-vbd"].values["pesq"] == Number(3.56)
    assert str(Number(-2.6, 0.17)) == "−2.6 ± 0.17"


def test_every_row_says_what_it_is():
    known = {column.name for metric in table.METRICS.values() for column in metric.columns} | NOT_OURS
    for name, row in papers.rows().items():
        assert row.label, name
        assert row.values.keys() <= known, name
        assert row.recipe in ("", papers.UNPROCESSED) or row.recipe in presets.table(), name
        assert row.predictor == "" or row.predictor in presets.table(), name
        assert "table" in row.source, name
        assert row.spread or all(value.spread is None for value in row.values.values()), name
        assert row.other.keys() <= row.values.keys() | {"pesq", "dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl"}, name
    for name, corpus in papers.corpora().items():
        assert name in presets.corpora() or corpus.home, name


# ------------------------------------------------------------------------------- what is comparable

VBD = "vbd"


def published(root: Path, files: int = 824, pesq: float = 2.92, noisy: float = 1.97) -> settings.Params:
    """A project with results of m5 and of the input on VB-DMD: summaries alone."""
    values = yaml.safe_load(PARAMS) | {"corpora": [VBD], "train_corpora": [VBD], "recipes": ["m5"]}
    values |= {"prepare": {VBD: {"preset": "vbd"}}, "train": {"m5": {"preset": "m5"}}}
    values |= {"enhance": {"m5": {"preset": "m5"}}}
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    params = settings.load(root / "params.yaml")
    for system, mean in ((paths.UNPROCESSED, noisy), ("m5.vbd", pesq)):
        found = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n": files, "missing": 0, "reasons": {}}
        summary = {"system": system, "corpus": VBD, "files": files, "metrics": {"pesq": found}}
        storage.write_json(paths.results(root, system, VBD) / "summary.json", summary)
    train = dataclasses.asdict(params.train["m5"])
    folder = paths.model(root, "m5.vbd") / "best"
    storage.write_json(folder / "checkpoint.json", {"train": train, "trained_on": VBD})
    return params


def line_of(root: Path, params: settings.Params, row: str, metric: str = "pesq") -> against.Line:
    project = artifacts.load(params, root)
    found = {(line.row.name, line.metric): line for line in against.lines(project, params)}
    return found[row, metric]


@pytest.mark.parametrize(("pesq", "verdict"), [(2.92, "on"), (2.96, "on"), (2.97, "off"), (2.80, "off")])
def test_ours_is_on_or_off_within_the_tolerance(tmp_path, pesq, verdict):
    params = published(tmp_path, pesq=pesq)
    line = line_of(tmp_path, params, "m5-vbd")
    assert line.tolerance == pytest.approx(0.05)
    assert line.difference == pytest.approx(pesq - 2.91)
    assert line.verdict == verdict
    assert line_of(tmp_path, params, "m5-vbd", "si_sdr").reason == "SI-SDR was not measured here"


def test_wide_intervals_widen_the_tolerance(tmp_path):
    params = published(tmp_path)
    path = paths.results(tmp_path, "m5.vbd", VBD) / "summary.json"
    summary = storage.read_json(path)
    summary["metrics"]["pesq"] |= {"low": 2.92 - 0.196, "high": 2.92 + 0.196}  # a standard error of 0.1
    storage.write_json(path, summary)
    assert line_of(tmp_path, params, "m5-vbd").tolerance == pytest.approx(0.2)


def test_another_number_of_files_is_refused(tmp_path):
    line = line_of(tmp_path, published(tmp_path, files=800), "m5-vbd")
    assert (line.verdict, line.reason) == ("not comparable", "800 test files, in the paper 824")


def test_another_input_is_refused(tmp_path):
    """VoiceBank-DEMAND at another level, rate or resampler does not score 1.97 before it is enhanced."""
    line = line_of(tmp_path, published(tmp_path, noisy=1.52), "m5-vbd")
    assert line.reason == "other test files: the unprocessed input has PESQ 1.520, in the papers 1.970"


def test_a_small_form_is_refused(tmp_path):
    params = published(tmp_path)
    path = paths.model(tmp_path, "m5.vbd") / "best" / "checkpoint.json"
    facts = storage.read_json(path)
    facts["train"]["paper"] += ", small form"
    storage.write_json(path, facts)
    assert line_of(tmp_path, params, "m5-vbd").reason == "a small form of the system, trained for minutes"


def test_an_imported_checkpoint_is_known_by_its_recipe(tmp_path):
    params = published(tmp_path)
    storage.write_json(paths.model(tmp_path, "m5.vbd") / "best" / "checkpoint.json", {"kind": "sgmse"})
    assert line_of(tmp_path, params, "m5-vbd").verdict == "on"


def test_changed_settings_are_said(tmp_path):
    params = published(tmp_path)
    assert line_of(tmp_path, params, "m5-vbd").notes == ()
    path = paths.model(tmp_path, "m5.vbd") / "best" / "checkpoint.json"
    facts = storage.read_json(path)
    facts["train"] |= {"batch": 4, "threads": 3}
    storage.write_json(path, facts)
    assert line_of(tmp_path, params, "m5-vbd").notes == ("settings other than the preset's: batch",)


def test_a_corpus_is_known_by_its_settings(tmp_path):
    params = published(tmp_path)
    assert against.stands_for(VBD, params) == {"vbd"}
    other = dataclasses.replace(params.prepare[VBD], valid_speakers=("p226",))
    assert against.stands_for(VBD, dataclasses.replace(params, prepare={VBD: other})) == frozenset()
    seeded = dataclasses.replace(params.prepare[VBD], seed=7, processes=2)
    assert against.stands_for(VBD, dataclasses.replace(params, prepare={VBD: seeded})) == {"vbd"}


def test_a_folder_can_stand_for_a_corpus(tmp_path):
    params = published(tmp_path)
    own = dataclasses.replace(params, prepare={VBD: settings.FolderCorpus()})
    assert line_of(tmp_path, own, "m5-vbd").reason == "vbd is not VB-DMD"
    declared = dataclasses.replace(own, report=settings.Report(stands_for={VBD: "vbd"}))
    assert line_of(tmp_path, declared, "m5-vbd").verdict == "on"
    wrong = dataclasses.replace(own, report=settings.Report(stands_for={VBD: "vb-dmd"}))
    with pytest.raises(DiffseError, match=r"report\.stands_for\.vbd is 'vb-dmd'.*allowed: vbd"):
        against.stands_for(VBD, wrong)


def test_another_mode_of_a_metric_is_refused():
    """PESQ of pypesq is no PESQ of P.862.2, also on the same files."""
    row = papers.find("unprocessed-wsj0_qut")
    value = artifacts.Value(1.3, 1.2, 1.4, 651, 0, {}, "", 16000, "")
    metrics = {"pesq": value, "si_sdr": dataclasses.replace(value, mean=-2.7)}
    scores = artifacts.Scores(paths.UNPROCESSED, "q", 651, metrics, None, None, None, None, pandas.DataFrame())
    params = settings.Params(
        ("q",), (), (), {}, {}, {}, report=settings.Report(stands_for={"q": "wsj0_qut_levels"})
    )
    project = artifacts.Project(("q",), (), (), {(paths.UNPROCESSED, "q"): scores}, {}, {}, {}, [], [])
    lines = {line.metric: line for line in against.of_row(row, scores, project, params)}
    assert "pypesq" in lines["pesq"].reason
    assert lines["pesq"].difference is None
    assert lines["si_sdr"].verdict == "on"


# ------------------------------------------------------------------------------------ in the report


def test_the_report_shows_both_kinds(tmp_path):
    make_project(tmp_path)
    build.run(settings.load(tmp_path / "params.yaml"), tmp_path)
    text = text_of(page_of(tmp_path))
    assert "No score of this report can stand beside a number of the papers." in text
    assert f"{GOOD} on demo: demo is not VB-DMD. Not beside: m5-vbd PESQ 2.91" in text
    shutil.rmtree(tmp_path / "results")
    params = published(tmp_path)
    build.run(params, tmp_path)
    page = page_of(tmp_path)
    assert Outline(page).open == []
    assert "m5-vbdM5, VB-DMD" in text_of(page).replace("\u200b", "")
    assert "within 0.050" in text_of(page)
    lines = pandas.read_csv(tmp_path / "report" / "papers.csv").set_index(["row", "metric"])
    assert lines.loc[("m5-vbd", "pesq"), "verdict"] == "on"
    assert "| m5-vbd | m5.vbd | PESQ | 2.91 | 2.920 | +0.010 | on |  |" in (
        tmp_path / "report" / "summary.md"
    ).read_text("utf-8").replace("\\", "")


SWAPPED = "storm-gagnet-wsj0_chime3"


def swapped(root: Path, **changes) -> against.Line:
    """The line of PESQ of StoRM with the predictor GaGNet, whose swap scored 2.50 on WSJ0+CHiME3."""
    names = ("storm", "gagnet")
    values = yaml.safe_load(PARAMS) | {"corpora": ["w"], "train_corpora": ["w"], "recipes": [*names]}
    values |= {"prepare": {"w": {"preset": "wsj0_chime3_storm"}}}
    values |= {block: {name: {"preset": name} for name in names} for block in ("train", "enhance")}
    values |= {"swaps": {"other": {"system": "storm.w", "predictor": "gagnet.w", "corpus": "w"}}}
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    params = settings.load(root / "params.yaml")
    for name in names:
        train = dataclasses.asdict(params.train[name])
        storage.write_json(paths.model(root, f"{name}.w") / "best/checkpoint.json", {"train": train})
    score = {"mean": 2.50, "low": 2.49, "high": 2.51, "n": 651, "missing": 0}
    noisy = score | {"mean": 1.38, "reasons": {}}
    summary = {"system": paths.UNPROCESSED, "corpus": "w", "files": 651, "metrics": {"pesq": noisy}}
    storage.write_json(paths.results(root, paths.UNPROCESSED, "w") / "summary.json", summary)
    trial = {"value": None, "evaluations": 51, "parameters": 1, "real_time_factor": 1.0}
    trials = [
        trial | {"name": name, "metrics": {"pesq": score}} for name in ("storm.w", "storm.w with gagnet.w")
    ]
    swap = {"kind": "swap", "name": "other", "system": "storm.w", "predictor": "gagnet.w", "corpus": "w"}
    swap |= {
        "split": "test",
        "files": 651,
        "confidence": 0.95,
        "units": {"pesq": ""},
        "trials": trials,
    }
    storage.write_json(paths.swap(root, "other") / "summary.json", swap | changes)
    return line_of(root, params, SWAPPED)


def test_a_swap_of_predictors_stands_beside_its_row(tmp_path):
    line = swapped(tmp_path)
    assert (line.verdict, line.system, line.reason) == ("on", "storm.w with gagnet.w", "")
    assert line.difference == pytest.approx(2.50 - 2.52)


def test_a_swap_of_another_kind_is_refused(tmp_path):
    assert swapped(tmp_path, split="valid").reason == "scored on the split 'valid'"
    assert swapped(tmp_path, files=6).reason == "6 of 651 test files"
    path = paths.model(tmp_path, "gagnet.w") / "best/checkpoint.json"
    params, facts = settings.load(tmp_path / "params.yaml"), storage.read_json(path)
    facts["train"]["paper"] += ", small form"
    swapped(tmp_path)
    storage.write_json(path, facts)
    assert line_of(tmp_path, params, SWAPPED).reason == "the predictor is a small form, trained for minutes"


# ----------------------------------------------------------------------------------- diffse reproduce


def project(tmp_path: Path, **changes) -> Path:
    values = {"corpora": ["demo"], "train_corpora": ["demo"], "recipes": ["m5_small"]}
    values |= {"prepare": {"demo": {"kind": "demo"}, "vbd": {"preset": "vbd"}}}
    values |= {"train": {name: {"preset": name} for name in ("m5", "m5_small")}}
    values |= {"enhance": {name: {"preset": name} for name in ("m5", "m5_small")}} | changes
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_a_plan_names_steps_and_what_is_missing(tmp_path, capsys):
    file = project(tmp_path)
    assert cli.main(["reproduce", "m5-vbd", "--dry-run", "--params", str(file)]) == 0
    said = capsys.readouterr().out
    assert "system   m5.vbd" in said
    assert "paper    pesq 2.91" in said
    assert "missing" in said
    assert "VoiceBank-DEMAND: https://doi.org/10.7488/ds/2117" in said
    ran = [line.split()[2:] for line in said.splitlines() if line.startswith("run ")]
    assert [words[:-2] for words in ran][:6] == [
        ["prepare", "vbd"], ["check", "mixtures", "vbd"], ["cache", "vbd"], ["check", "cache", "vbd"],
        ["estimate", "vbd"], ["train", "m5.vbd"],
    ]  # fmt: skip
    assert not (tmp_path / "data").exists()
    assert cli.main(["reproduce", "m5-vbd", "--params", str(file)]) == 2
    assert "diffse: m5-vbd: 1 missing, see above; nothing was run" in capsys.readouterr().err


def test_mismatched_rows_need_both_corpora(tmp_path):
    corpora = {"q": {"preset": "wsj0_qut_levels"}, "t": {"preset": "ntcd_timit"}, "demo": {"kind": "demo"}}
    params = settings.load(project(tmp_path, prepare=corpora))
    found = reproduction.plan(papers.find("m1-wsj0_qut-from-tcd_timit"), params, tmp_path, quick=False)
    assert (found.system, found.corpus) == ("m1.t", "q")
    assert len(found.missing) == 3  # both recordings and the recipe


def test_a_quick_look_takes_the_small_form_and_the_built_in_corpus(tmp_path):
    params = settings.load(project(tmp_path))
    found = reproduction.plan(papers.find("m5-vbd"), params, tmp_path, quick=True)
    assert (found.system, found.missing) == ("m5_small.demo", ())
    assert found.dvc == ()  # there is no dvc.yaml


def test_dvc_runs_what_it_knows(tmp_path):
    params = settings.load(project(tmp_path))
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    found = reproduction.plan(papers.find("m5-vbd"), params, tmp_path, quick=True)
    assert found.dvc == ("check-metrics-unprocessed@demo", "check-metrics@m5_small-demo-demo")
    (command,) = reproduction.commands(found, tmp_path / "params.yaml")
    assert command[1:4] == ["-m", "dvc", "repro"]
    other = dataclasses.replace(params, recipes=("m5",))
    assert reproduction.plan(papers.find("m5-vbd"), other, tmp_path, quick=True).dvc == ()


def test_targets_are_stages_of_dvc_yaml():
    stages = yaml.safe_load((Path(__file__).parents[1] / "dvc.yaml").read_text("utf-8"))["stages"]
    for target in reproduction._targets("m5.vbd", "vbd"):
        assert target.partition("@")[0] in stages
    assert list(stages["check-metrics"]["matrix"]) == ["recipe", "trained_on", "corpus"]


def test_what_is_there_is_not_made_again(tmp_path):
    params = settings.load(project(tmp_path))
    (tmp_path / "data" / "demo" / "mixtures").mkdir(parents=True)
    found = reproduction.plan(papers.find("m5-vbd"), params, tmp_path, quick=True)
    verbs = [command[3:5] for command in reproduction.commands(found, tmp_path / "params.yaml")]
    assert ["prepare", "demo"] not in verbs
    assert verbs[:2] == [["check", "mixtures"], ["cache", "demo"]]


NOT_POSSIBLE = {
    "semamba-vbd": "diffse has no system 'SEMamba without metric loss'; run it as an external system",
    "storm-gagnet-wsj0_chime3": "a system with another predictor is a swap",
    "udiffse-rank-4": "its test files are a subset of files that is not named",
    "m5-vdb": "did you mean 'm5-vbd'? there are: unprocessed-wsj0_chime3, ",
}


@pytest.mark.parametrize("row", NOT_POSSIBLE)
def test_what_cannot_be_reproduced_is_one_line(tmp_path, capsys, row):
    assert cli.main(["reproduce", row, "--params", str(project(tmp_path))]) == 2
    said = capsys.readouterr().err
    assert NOT_POSSIBLE[row] in said
    assert said.count("\n") == 1


def test_rows_are_listed(capsys):
    assert cli.main(["reproduce"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(papers.rows())


FAKE = """import sys, pathlib
pathlib.Path("ran.txt").open("a").write(" ".join(sys.argv[1:]) + chr(10))
sys.exit(3 if "enhance" in sys.argv else 0)
"""


@pytest.mark.parametrize(("pesq", "code"), [(2.92, 0), (2.5, 1)])
def test_a_row_is_run_and_compared(tmp_path, capsys, monkeypatch, pesq, code):
    """The steps are tested elsewhere; a program that writes down its arguments stands for them here."""
    published(tmp_path, pesq=pesq)
    (tmp_path / "program.py").write_text(FAKE.replace("3 if", "0 if"))
    (paths.mixtures(tmp_path, VBD)).mkdir(parents=True)
    monkeypatch.setattr(reproduction.registry, "check", lambda corpus, source: None)
    monkeypatch.setattr(reproduction, "DIFFSE", (reproduction.sys.executable, "program.py"))
    assert cli.main(["reproduce", "m5-vbd", "--params", str(tmp_path / "params.yaml")]) == code
    said = capsys.readouterr().out
    assert "difference " in said
    assert f": {'on' if code == 0 else 'off'}" in said
    assert "CSIG" in said
    assert "not comparable: CSIG was not measured here" in said
    ran = (tmp_path / "ran.txt").read_text().splitlines()
    assert ran[0].startswith("check mixtures vbd")  # prepared already
    assert ran[-1].startswith("check metrics m5.vbd vbd")


def test_a_failing_step_stops_the_row(tmp_path, capsys, monkeypatch):
    published(tmp_path)
    (tmp_path / "program.py").write_text(FAKE)
    monkeypatch.setattr(reproduction.registry, "check", lambda corpus, source: None)
    monkeypatch.setattr(reproduction, "DIFFSE", (reproduction.sys.executable, "program.py"))
    assert cli.main(["reproduce", "m5-vbd", "--params", str(tmp_path / "params.yaml")]) == 2
    assert "enhance m5.vbd vbd --params params.yaml' failed" in capsys.readouterr().err
    assert (tmp_path / "ran.txt").read_text().splitlines()[-1].startswith("enhance")
