"""Listening tests: what is exported is what webMUSHRA reads, and what it writes is read back or refused."""

import csv
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
import yaml
from report_project import BAD, GOOD, RATE, make_project, page_of, text_of

from diffse import cli, paths, settings
from diffse.errors import DiffseError
from diffse.listening_test import anchor, export, results, selection
from diffse.report import build, loudness
from diffse.settings import Params

HEAD = ["session_test_id", "listener", "session_uuid", "trial_id", "rating_stimulus", "rating_score"]
HEAD += ["rating_time", "rating_comment"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Params, Path, Path, dict]:
    """(params, project, exported test, its key)."""
    root = tmp_path_factory.mktemp("project")
    params = make_project(root)
    folder = root / "test"
    key = export.run(params, root, folder, export.Wanted("demo", "pilot", files=4, seed=3))
    return params, root, folder, key


@pytest.fixture
def project(made, tmp_path) -> Path:
    """A copy of the project that may be changed."""
    return shutil.copytree(made[1], tmp_path / "project")


def config(folder: Path) -> dict:
    return yaml.safe_load((folder / "webmushra" / "configs" / "pilot.yaml").read_text("utf-8"))


# ------------------------------------------------------------------------------------------- selection


def many_files() -> pandas.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for place in range(400):
        speaker = int(rng.choice(20, p=[0.62] + [0.02] * 19))  # one speaker has most files
        rows.append(
            {"id": f"f{place:03d}", "speaker": f"s{speaker}", "gender": "fm"[speaker % 2], "snr_db": -5.0}
            | {"snr_measured_db": -5.0 + 20 * rng.random()}
        )
    frame = pandas.DataFrame(rows)
    frame["snr_db"] = np.where(np.arange(400) % 4 == 0, 2.5, 5.0 * (np.arange(400) % 4))
    return frame


def test_the_selection_is_balanced():
    files = many_files()
    drawn = files.set_index("id").loc[selection.draw(files, 16, 1)]
    assert set(Counter(drawn["snr_db"]).values()) == {4}
    assert set(Counter(drawn["gender"]).values()) == {8}
    assert max(Counter(drawn["speaker"]).values()) <= 2


def test_the_selection_is_random_but_repeatable():
    files = many_files()
    first = selection.draw(files, 10, 1)
    assert first == selection.draw(files.sample(frac=1, random_state=5), 10, 1)
    assert first != selection.draw(files, 10, 2)
    assert len(selection.draw(files.head(3), 10, 1)) == 3


def test_continuous_snr_is_balanced_by_ranges():
    files = many_files().assign(snr_db=np.nan)
    drawn = files.set_index("id").loc[selection.draw(files, 12, 1)]
    thirds = np.quantile(files["snr_measured_db"], [1 / 3, 2 / 3])
    assert set(Counter(np.searchsorted(thirds, drawn["snr_measured_db"])).values()) == {4}


# ---------------------------------------------------------------------------------------------- anchor


@pytest.mark.parametrize("rate", [16000, 48000])
def test_the_low_anchor_is_that_of_the_recommendation(rate):
    """BS.1534-3: within 0.1 dB up to 3.5 kHz, at least -25 dB at 4 kHz and -50 dB at 4.5 kHz."""
    impulse = np.zeros(rate, np.float32)
    impulse[rate // 2] = 1.0
    response = 20 * np.log10(np.abs(np.fft.rfft(anchor.low_anchor(impulse, rate))) + 1e-12)  # 1 Hz a bin
    assert np.abs(response[20:3501]).max() < 0.1
    assert response[4000] < -25
    assert response[4500:].max() < -50
    assert anchor.low_anchor(impulse, rate).argmax() == rate // 2


def test_a_rate_without_room_for_an_anchor_is_refused():
    with pytest.raises(DiffseError, match="needs a rate above 8000 Hz"):
        anchor.low_anchor(np.zeros(100), 8000)


# ---------------------------------------------------------------------------------------------- export


def test_the_configuration_is_one_of_webmushra(made):
    _, _, folder, key = made
    found = config(folder)
    assert found["testId"] == key["test_id"]
    assert found["bufferSize"] in (256, 512, 1024, 2048, 4096, 8192, 16384)
    kinds = [page["type"] for page in found["pages"] if isinstance(page, dict)]
    assert kinds == ["generic", "volume", "mushra", "finish"]
    shuffled = next(page for page in found["pages"] if isinstance(page, list))
    assert shuffled[0] == "random"
    assert [page["id"] for page in shuffled[1:]] == [f"trial{place:02d}" for place in range(1, 5)]
    assert found["pages"][-1]["writeResults"] is True
    for page in shuffled[1:]:
        assert len(page["stimuli"]) <= 12
        for path in (page["reference"], *page["stimuli"].values()):
            assert (folder / "webmushra" / path).is_file()


def test_the_configuration_is_in_the_part_of_yaml_that_webmushra_reads(made):
    """Its reader, yamljs, knows no texts over several lines, nor lists that begin on the line of their dash."""
    lines = (made[2] / "webmushra" / "configs" / "pilot.yaml").read_text("utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r" *(- )?(\w+:.*|random)|-", line)] == []
    assert lines[lines.index("-") + 1] == "  - random"


def test_stimuli_have_one_length_rate_and_loudness(made):
    """webMUSHRA stops at conditions whose length or rate differs from the reference's."""
    _, _, folder, key = made
    for trial in key["trials"]:
        place = folder / "webmushra" / "configs" / "resources" / "pilot" / trial["trial"]
        waves = {path.stem: soundfile.read(path) for path in sorted(place.glob("*.wav"))}
        assert set(waves) == {"reference", "anchor35", *key["conditions"]}
        assert {rate for _, rate in waves.values()} == {RATE}
        assert len({len(wave) for wave, _ in waves.values()}) == 1
        levels = [loudness.lufs(wave, RATE) for wave, _ in waves.values()]
        assert max(levels) - min(levels) < 0.2  # the ramps at both ends
        assert max(np.abs(wave).max() for wave, _ in waves.values()) < 0.99


def test_the_key_tells_which_condition_is_which(made):
    params, root, folder, key = made
    assert sorted(key["conditions"].values()) == sorted([GOOD, BAD, paths.UNPROCESSED])
    names = {path.stem for path in folder.rglob("*.wav")}
    assert not any(system in (folder / "webmushra").as_posix() + " ".join(names) for system in (GOOD, BAD))
    assert "demo" not in (folder / "webmushra" / "configs" / "pilot.yaml").read_text()
    # the noisy input correlates with the reference less than the system that removes noise
    place = folder / "webmushra" / "configs" / "resources" / "pilot" / "trial01"
    reference = soundfile.read(place / "reference.wav")[0]
    likeness = {
        system: np.corrcoef(reference, soundfile.read(place / f"{name}.wav")[0])[0, 1]
        for name, system in key["conditions"].items()
    }
    assert likeness[GOOD] > likeness[paths.UNPROCESSED] > likeness[BAD]
    again = export.run(params, root, folder.with_name("again"), export.Wanted("demo", "pilot", files=4, seed=3))
    assert again == key


WRONG = [
    (export.Wanted("nowhere", "x"), "'nowhere' is not one of the corpora"),
    (export.Wanted("demo", "../x"), "cannot name a test"),
    (
        export.Wanted("demo", "x", systems=("m5.other",)),
        "no enhanced audio; run 'diffse enhance m5.other demo'",
    ),
    (export.Wanted("demo", "x", files=0), "give at least 1 file"),
    (export.Wanted("demo", "x", seconds=13.0), "1 to 12 s of each"),
    (export.Wanted("demo", "x", systems=(GOOD,) * 11), "more than 12 conditions"),
]


@pytest.mark.parametrize(("wanted", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_cannot_be_exported_is_one_line(made, tmp_path, wanted, message):
    with pytest.raises(DiffseError) as caught:
        export.run(made[0], made[1], tmp_path / "test", wanted)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "test").exists()


def test_nothing_is_written_over(made):
    with pytest.raises(DiffseError, match="is there already"):
        export.run(made[0], made[1], made[2], export.Wanted("demo", "pilot"))


# ---------------------------------------------------------------------------------------------- import

LEVELS = {paths.UNPROCESSED: 40.0, GOOD: 70.0, BAD: 30.0, "reference": 98.0, "anchor35": 20.0}


def rows_of(key: dict, listeners: int = 8) -> list[list]:
    """Ratings in the columns of webMUSHRA: every listener has a scale of their own."""
    rows = []
    systems = {"reference": "reference", "anchor35": "anchor35", **key["conditions"]}
    for listener in range(listeners):
        for place, trial in enumerate(key["trials"]):
            for stimulus, system in systems.items():
                score = LEVELS[system] if system == "reference" else LEVELS[system] + listener + place % 2
                start = [key["test_id"], f"Person {listener}", f"uuid-{listener}", trial["trial"]]
                rows.append([*start, stimulus, score, 1000, ""])
    return rows


def write(path: Path, rows: list[list], head: list[str] = HEAD) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([head, *rows])
    return path


def test_ratings_become_means_with_intervals_and_ranks(made, project):
    params, _, folder, key = made
    summary = results.run(params, project, write(project / "mushra.csv", rows_of(key)), folder)
    assert (summary["listeners"], summary["trials"], summary["left_out"]) == (8, 4, [])
    found = {one["system"]: one for one in summary["conditions"]}
    assert [one["system"] for one in summary["conditions"]] == [
        "reference",
        GOOD,
        "unprocessed",
        BAD,
        "anchor35",
    ]
    # the listeners' means are 70.5, 71.5, ..., 77.5; t(7) at 97.5 % is 2.3646
    half = 2.3646 * np.std(np.arange(8), ddof=1) / np.sqrt(8)
    assert found[GOOD]["mean"] == pytest.approx(74.0)
    assert found[GOOD]["low"] == pytest.approx(74.0 - half, abs=0.01)
    assert found[GOOD]["high"] == pytest.approx(74.0 + half, abs=0.01)
    assert (found["reference"]["q1"], found["reference"]["median"], found[GOOD]["n"]) == (98, 98, 32)
    assert {name: one["rank"] for name, one in found.items() if one["rank"]} == {
        GOOD: 1,
        "unprocessed": 2,
        BAD: 3,
    }
    assert len(summary["pairs"]) == 3
    assert summary["pairs"][0]["p"] == pytest.approx(2 / 2**8)  # 8 listeners, all of one mind
    written = pandas.read_csv(paths.listening(project, "pilot") / "ratings.csv")
    assert "Person" not in (paths.listening(project, "pilot") / "ratings.csv").read_text()
    assert len(written) == 8 * 4 * 5
    assert json.loads((paths.listening(project, "pilot") / "summary.json").read_text())["corpus"] == "demo"


def test_the_report_shows_the_test(made, project):
    params, _, folder, key = made
    rows = rows_of(key, 9)
    for row in rows:
        if row[2] == "uuid-8" and row[4] == "reference":
            row[5] = 60
    results.run(params, project, write(project / "mushra.csv", rows), folder)
    build.run(params, project)
    text = text_of(page_of(project))
    assert "pilot: demo, 8 listeners, 4 trials" in text
    assert "Left out: L09 rated the hidden reference below 90 in 4 of 4 trials." in text
    assert "low anchor, 3.5 kHz" in text
    assert "## Listening test pilot" in (project / "report" / "summary.md").read_text("utf-8")


@pytest.mark.parametrize(("low", "stays"), [(1, True), (2, False)])
def test_screening_allows_fifteen_percent(low, stays):
    """Of ten trials one may have a hidden reference below 90, two may not."""
    rows = [
        ("L01", f"t{place}", "x", system, 80.0 if place < low and system == "reference" else 95.0)
        for place in range(10)
        for system in ("reference", "a")
    ]
    frame = pandas.DataFrame(rows, columns=list(results.COLUMNS))
    kept, left_out = results.screened(frame, {f"t{place}" for place in range(10)})
    assert (len(kept) > 0, len(left_out) == 0) == (stays, stays)


def test_listeners_who_stopped_are_left_out(made, project):
    params, _, folder, key = made
    rows = rows_of(key)[:-3]
    summary = results.run(params, project, write(project / "mushra.csv", rows), folder)
    assert summary["left_out"] == [{"listener": "L08", "reason": "L08 rated 17 of 20 stimuli"}]


def test_older_versions_without_session_numbers_are_read(made, project):
    params, _, folder, key = made
    rows = [[*row[:2], *row[3:]] for row in rows_of(key)]
    head = [name for name in HEAD if name != "session_uuid"]
    summary = results.run(params, project, write(project / "mushra.csv", rows, head), folder)
    assert summary["listeners"] == 8


def damage(rows: list[list], what: str) -> tuple[list[list], list[str]]:
    """Rows with one thing wrong, and their heading."""
    changed = [list(row) for row in rows]
    if what == "foreign":
        changed[2][0] = "mushra-00000000"
    elif what == "trial":
        changed[2][3] = "trial99"
    elif what == "stimulus":
        changed[2][4] = "c9"
    elif what == "score":
        changed[6][5] = "very good"
    elif what == "range":
        changed[6][5] = "101"
    elif what == "cut":
        changed[-1] = changed[-1][:4]
    elif what == "twice":
        changed.append(changed[-1])
    elif what == "empty":
        changed = []
    return changed, [name for name in HEAD if not (what == "column" and name == "rating_score")]


DAMAGES = {
    "foreign": "line 4: a rating of the test 'mushra-00000000'",
    "trial": "line 4: this test has no trial 'trial99'",
    "stimulus": "with a condition 'c9'",
    "score": "line 8: 'very good' is not a rating from 0 to 100",
    "range": "'101' is not a rating",
    "cut": "has not as many cells as its heading",
    "twice": "L08 rated trial04, anchor35 twice",
    "empty": "holds no ratings",
    "column": "lacks the column rating_score",
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_and_foreign_ratings_are_one_line(made, project, what):
    params, _, folder, key = made
    rows, head = damage(sorted(rows_of(key), key=lambda row: (row[2], row[3] == "training")), what)
    if what == "twice":
        rows[-1] = next(list(row) for row in rows if row[2:5] == ["uuid-7", "trial04", "anchor35"])
    path = write(project / "mushra.csv", rows, head)
    if what == "column":
        path.write_text(path.read_text().replace(",rating_score", ""))
    with pytest.raises(DiffseError) as caught:
        results.run(params, project, path, folder)
    assert DAMAGES[what] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not paths.listening(project, "pilot").exists()


def test_nobody_left_is_one_line(made, project):
    params, _, folder, key = made
    rows = [[*row[:5], 50, *row[6:]] for row in rows_of(key, 1)]
    with pytest.raises(DiffseError, match="no listener is left after screening"):
        results.run(params, project, write(project / "mushra.csv", rows), folder)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", None])
def test_a_file_that_is_none_is_one_line(made, project, content):
    path = project / "mushra.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DiffseError, match=r"mushra\.csv"):
        results.run(made[0], project, path, made[2])


def test_a_folder_that_is_no_test_is_one_line(made, tmp_path):
    with pytest.raises(DiffseError, match="no such file; give the folder that 'diffse listen export' wrote"):
        results.read_key(tmp_path)
    (tmp_path / "test.json").write_text('{"format": 1}')
    with pytest.raises(DiffseError, match="not a test of this version"):
        results.read_key(tmp_path)


def test_a_damaged_summary_is_named_by_the_report(made, project):
    folder = paths.listening(project, "pilot")
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text('{"name": "pilot"}')
    with pytest.raises(DiffseError, match=r"summary\.json: not complete"):
        build.run(settings.load(project / "params.yaml"), project)


def test_the_command_exports_and_imports(made, project, capsys):
    params_file, folder = str(project / "params.yaml"), project / "exported"
    common = ["--corpus", "demo", "--files", "2", "--systems", GOOD, "--params", params_file]
    assert cli.main(["listen", "export", str(folder), "--no-training", *common]) == 0
    key = results.read_key(folder)
    assert [trial["trial"] for trial in key["trials"]] == ["trial01", "trial02"]
    assert set(key["conditions"].values()) == {GOOD, "unprocessed"}
    ratings = write(project / "mushra.csv", rows_of(key))
    assert cli.main(["listen", "import", str(ratings), "--test", str(folder), "--params", params_file]) == 0
    assert "8 listeners, 2 trials of demo" in capsys.readouterr().out
    assert cli.main(["listen", "import", "nowhere.csv", "--test", str(folder), "--params", params_file]) == 2
    assert capsys.readouterr().err.startswith("diffse: nowhere.csv: no such file")
