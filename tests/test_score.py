"""`diffse score` and what is behind it: any two folders, and one clear line for whatever does not fit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
from tiny import voice

from diffse import audio, cli, settings
from diffse.errors import DiffseError
from diffse.metrics import folders, results, scoring, tools
from diffse.metrics.folders import Folders

RATE = 16000
SIMPLE = settings.Evaluate(metrics=("si_sdr", "seg_snr"), processes=1, bootstrap=50)


def noise(seed: int, samples: int) -> np.ndarray:
    return 0.02 * np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


@pytest.fixture
def pair(tmp_path) -> Path:
    """clean/, noisy/ and enhanced/ with three files, one in a folder; half of the noise in the last."""
    for number, name in enumerate(("a", "b", "sub/c")):
        clean = voice(number, 1.0)
        added = noise(number, len(clean))
        for side, wave in (("clean", clean), ("noisy", clean + added), ("enhanced", clean + added / 2)):
            suffix = "flac" if side == "clean" else "wav"
            audio.write(tmp_path / side / f"{name}.{suffix}", wave, RATE, "PCM_24")
    return tmp_path


def run(home: Path, options: settings.Evaluate = SIMPLE, noisy: str | None = "noisy", **more) -> dict:
    chosen = Folders(home / "clean", home / "enhanced", noisy and home / noisy, more.pop("trim", False))
    return folders.run(chosen, options, **more)


def reasons(found: dict, name: str = "si_sdr") -> dict[str, int]:
    return found["metrics"][name]["reasons"]


def test_pairs_are_found_by_name_whatever_the_suffix(pair):
    found = run(pair, out=pair / "out")
    rows = pandas.read_csv(pair / "out/per_file.csv")
    assert rows["id"].tolist() == ["a", "b", "sub/c"]
    assert (found["files"], found["unmatched"], found["warnings"]) == (3, {}, [])
    for number, row in enumerate(rows.itertuples()):
        clean = voice(number, 1.0)
        expected = 10 * np.log10(np.sum(clean**2) / np.sum((noise(number, len(clean)) / 2) ** 2))
        assert row.si_sdr == pytest.approx(expected, abs=0.1)
    entry = json.loads((pair / "out/summary.json").read_text())["metrics"]["si_sdr"]
    assert entry["mean"] == pytest.approx(rows["si_sdr"].mean(), abs=1e-5)
    assert (entry["rate"], entry["version"].split()[0]) == (RATE, "diffse")


def test_noisy_files_are_scored_as_an_estimate_too(pair):
    as_noisy = folders.run(Folders(pair / "clean", pair / "noisy"), SIMPLE)["metrics"]["si_sdr"]["mean"]
    assert run(pair)["metrics"]["si_sdr"]["mean"] - as_noisy == pytest.approx(6.02, abs=0.05)


def test_files_on_one_side_are_named_and_the_rest_is_scored(pair, caplog):
    (pair / "enhanced/a.wav").rename(pair / "enhanced/z.wav")
    (pair / "noisy/b.wav").unlink()
    found = run(pair)
    assert found["files"] == 2
    assert found["unmatched"] == {
        "only_clean": "1 files have no enhanced file (a)",
        "only_enhanced": "1 files have no clean file (z)",
        "no_noisy": "1 files have no noisy file (b)",
    }
    assert "1 files have no clean file (z)" in caplog.text


def test_names_with_two_suffixes_are_not_guessed(pair):
    shutil.copy(pair / "enhanced/a.wav", pair / "enhanced/a.ogg.wav")  # another name
    shutil.copy(pair / "clean/a.flac", pair / "enhanced/a.flac")
    found = run(pair)
    assert found["unmatched"]["ambiguous"].startswith("1 files are there twice")
    assert found["unmatched"]["only_enhanced"] == "1 files have no clean file (a.ogg)"
    assert found["files"] == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda wave: (wave[:-100], RATE), "lengths differ: clean 16000, enhanced 15900, noisy 16000 samples"),
        (lambda wave: (wave, 8000), "rates differ: clean 16000, enhanced 8000, noisy 16000 Hz"),
        (lambda wave: (np.stack([wave, wave]), RATE), "enhanced file has 2 channels"),
        (lambda wave: (0 * wave, RATE), "enhanced signal is silent"),
    ],
)
def test_a_file_that_does_not_fit_is_a_gap_with_a_reason(pair, caplog, fault, reason):
    wave, _ = audio.read(pair / "enhanced/b.wav")
    audio.write(pair / "enhanced/b.wav", *fault(wave[0]))
    found = run(pair)
    (only,) = reasons(found)
    assert reason in only
    assert (found["files"], found["metrics"]["si_sdr"]["n"], found["metrics"]["seg_snr"]["n"]) == (3, 2, 2)
    assert f"si_sdr missing in 1 files: {only}" in caplog.text


def test_silent_and_damaged_references_are_gaps(pair):
    audio.write(pair / "clean/a.flac", np.zeros(16000), RATE)
    (pair / "clean/b.flac").write_bytes(b"no audio")
    found = run(pair)
    assert found["metrics"]["si_sdr"]["n"] == 1
    assert any("clean signal is silent" in reason for reason in reasons(found))
    assert any(reason.startswith("clean file: not readable as audio") for reason in reasons(found))


def test_trim_cuts_to_the_shortest(pair):
    wave, _ = audio.read(pair / "enhanced/b.wav")
    audio.write(pair / "enhanced/b.wav", wave[0][:-100], RATE)
    assert run(pair, trim=True)["metrics"]["si_sdr"]["n"] == 3


def test_without_noisy_files_what_needs_them_is_missing(pair):
    options = settings.Evaluate(metrics=("si_sir", "si_sdr"), processes=1, bootstrap=50)
    found = run(pair, options, noisy=None)
    assert reasons(found, "si_sir") == {"no noisy signal was given": 3}
    assert found["metrics"]["si_sdr"]["n"] == 3


def test_the_same_folder_twice_is_noticed(pair):
    found = folders.run(Folders(pair / "clean", pair / "clean"), SIMPLE)
    assert found["warnings"] == [
        "the estimates equal the references in all 3 files; was the same folder given twice?"
    ]


def test_swapped_folders_are_noticed_on_real_recordings(corpus, tmp_path):
    """Noisy recordings given as references: their background sounds worse than that of the 'estimates'."""
    names = [path.name for path in sorted((corpus / "pairs/clean").iterdir())[:3]]
    for side in ("clean", "noisy"):
        (tmp_path / side).mkdir()
        for name in names:
            (tmp_path / side / name).symlink_to(corpus / "pairs" / side / name)
    options = settings.Evaluate(metrics=("dnsmos",), processes=1, bootstrap=50)
    right = folders.run(Folders(tmp_path / "clean", tmp_path / "noisy"), options)
    swapped = folders.run(Folders(tmp_path / "noisy", tmp_path / "clean"), options)
    assert right["warnings"] == []
    (line,) = swapped["warnings"]
    assert "are the two swapped?" in line and "DNSMOS BAK" in line


def test_folders_without_a_pair_are_refused(pair):
    (pair / "empty").mkdir()
    with pytest.raises(DiffseError, match=r"no file is called like one in .*there: a, b, sub/c; here: none"):
        folders.run(Folders(pair / "clean", pair / "empty"), SIMPLE)
    with pytest.raises(DiffseError, match="elsewhere: no such folder"):
        folders.run(Folders(pair / "elsewhere", pair / "clean"), SIMPLE)


# ------------------------------------------------------------------------------------------------- command


def test_the_command_prints_a_table_and_writes_files(pair, capsys, monkeypatch):
    monkeypatch.chdir(pair)
    argv = ["score", "clean", "enhanced", "--metrics", "si_sdr,lsd", "--processes", "1", "--out", "scores"]
    assert cli.main(argv) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split()[:3] == ["metric", "mean", "95%"]
    assert [line.split()[0] for line in printed.splitlines()[1:3]] == ["si_sdr", "lsd"]
    assert set(path.name for path in (pair / "scores").iterdir()) == {"per_file.csv", "summary.json"}
    assert not (pair / "runs").exists()  # no project, so no run record


def test_the_command_leaves_out_what_needs_noisy_files(pair, capsys, monkeypatch):
    monkeypatch.chdir(pair)
    options = ["--metrics", "si_sdr", "si_sir"]
    assert cli.main(["score", "clean", "enhanced", "--noisy", "noisy", *options, "--processes", "1"]) == 0
    assert "si_sir" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--metrics", "pesk"], "'pesk' is not a metric"),
        (["--metrics", "nisqa"], "evaluate.weights.nisqa: these weights are not part of diffse"),
        (["--metrics", "nisqa", "--weights", "nisqa"], "write NAME=FILE"),
        (["--metrics", "nisqa", "--weights", "nisqa=gone.tar"], "gone.tar: no such file"),
        (["--metrics", "polqa"], "evaluate.polqa.command: give a program"),
        (["--processes", "-1"], "--processes is -1"),
        (["--texts", "gone.txt"], "gone.txt: transcripts cannot be read"),
    ],
)
def test_mistakes_are_one_line(pair, capsys, monkeypatch, options, line):
    monkeypatch.chdir(pair)
    assert cli.main(["score", "clean", "enhanced", *options]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1


def test_the_table_is_what_pandas_would_write(tmp_path):
    """Commas, quotes, line breaks, gaps and numbers of NumPy."""
    facts = {"id": 'a, "b"\nc', "snr_db": np.float32(2.5), "speaker": None, "n": np.int64(3)}
    scores = {"si_sdr": float("nan"), "si_sdr_reason": "silent, all of it", "lsd": 1 / 3, "lsd_reason": ""}
    plan = scoring.Plan.of(("si_sdr", "lsd"), tools.NONE, False)
    results.write(tmp_path / "out", [facts | scores], list(facts), plan, {})
    expected = pandas.DataFrame([facts | scores]).to_csv(
        index=False, float_format="%.6f", lineterminator="\n", encoding="utf-8"
    )
    assert (tmp_path / "out/per_file.csv").read_text() == expected
