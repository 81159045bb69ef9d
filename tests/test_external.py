"""External systems: files that are taken, programs that are run, and what is refused of both."""

import json
import os
import shutil
import sys
import time
import urllib.parse
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
import tiny

from diffse import audio, cli, external, paths
from diffse.data import manifest, prepare, shards
from diffse.errors import DiffseError

NAME = "theirs"
HOME = Path("sources/external") / NAME
PROGRAM = """
import os, pathlib, signal, subprocess, sys, time
import soundfile
source, target = map(pathlib.Path, sys.argv[1:3])
names = sorted(source.iterdir())
for file in names:
    wave, rate = soundfile.read(file, dtype="float32")
    soundfile.write(target / file.name, wave / 2, rate, "FLOAT")
first = target / names[0].name
"""


def options(**changes) -> dict:
    return {"externals": [NAME], "external": {NAME: changes}}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A project with the mixtures of a tiny corpus."""
    root = tmp_path_factory.mktemp("external")
    tiny.make_sources(root)
    params = tiny.write_params(root, **options(folder=str(HOME), paper="Theirs (2020)"))
    prepare.run(params, "toy", root)
    return root


@pytest.fixture
def root(prepared, tmp_path, monkeypatch) -> Path:
    folder = shutil.copytree(prepared, tmp_path / "project")
    (folder / HOME).mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def rows_of(root: Path) -> list[dict]:
    frame = manifest.read(paths.mixtures(root, "toy"))
    return frame[frame["split"] == "test"].sort_values("id").to_dict("records")


def give_files(root: Path, suffix: str = ".wav", rate: int = 16000) -> Path:
    """Halved noisy signals as the files of the external system; returns their folder."""
    folder = root / HOME / "toy"
    folder.mkdir(parents=True)
    for row in rows_of(root):
        wave = shards.read_pair(paths.mixtures(root, "toy"), row)[1] / 2
        wave = audio.resample(wave, 16000, rate)
        audio.write(folder / f"{row['id']}{suffix}", wave, rate, "FLOAT" if suffix == ".wav" else "PCM_24")
    return folder


def run(root: Path, **changes) -> dict:
    params = tiny.write_params(root, **options(**(changes or {"folder": str(HOME)})))
    return external.run(params, NAME, "toy", root)


def enhanced(root: Path) -> tuple[pandas.DataFrame, list[np.ndarray]]:
    folder = paths.enhanced(root, NAME, "toy")
    frame = manifest.read(folder, manifest.ENHANCED_COLUMNS)
    rows = frame.to_dict("records")
    return frame, [shards.read_item(folder, r["shard"], r["position"], r["n_samples"])[0] for r in rows]


def refused(root: Path, **changes) -> str:
    """The one line of a refusal; nothing may be left of it."""
    with pytest.raises(DiffseError) as caught:
        run(root, **changes)
    assert not (root / "enhanced").exists() or not list((root / "enhanced" / NAME).iterdir())
    text = str(caught.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("utterance", "name"),
    [
        ("p232_001", "p232_001"),
        ("süß-1", "süß-1"),
        ("a.b", "a%2Eb"),
        ("../etc/passwd", "%2E%2E%2Fetc%2Fpasswd"),
        ("100%", "100%25"),
        ("a b\n", "a%20b%0A"),
    ],
)
def test_a_file_is_called_by_the_id_and_the_id_can_be_had_back(utterance, name):
    assert external.file_name(utterance) == name
    assert urllib.parse.unquote(name) == utterance


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(("suffix", "error"), [(".wav", 1e-7), (".flac", 1e-6), (".WAV", 1e-7)])
def test_files_are_taken_as_they_are(root, suffix, error):
    folder = give_files(root, suffix.lower())
    for file in folder.iterdir():
        file.rename(file.with_suffix(suffix))
    (folder / "notes.txt").write_text("not audio")
    (folder / "other.wav").write_bytes(b"")
    result = run(root)
    frame, waves = enhanced(root)
    rows = rows_of(root)
    assert list(frame["id"]) == [row["id"] for row in rows]
    for row, wave in zip(rows, waves, strict=True):
        assert np.abs(wave - shards.read_pair(paths.mixtures(root, "toy"), row)[1] / 2).max() < error
    facts = json.loads((paths.enhanced(root, NAME, "toy") / "enhanced.json").read_text())
    assert facts["external"] is True
    assert [facts[name] for name in ("evaluations", "parameters", "real_time_factor")] == [None] * 3
    assert result["extra"] == {"count": 2, "first": ["notes.txt", "other.wav"]}


def test_the_folder_may_be_a_link(root, tmp_path):
    give_files(root)
    (root / HOME).rename(tmp_path / "elsewhere")
    (root / HOME).symlink_to(tmp_path / "elsewhere")
    assert run(root)["utterances"] == 3


@pytest.mark.parametrize("rate", [8000, 44100])
def test_files_at_the_stated_rate_are_resampled(root, rate):
    give_files(root, rate=rate)
    assert f"3 of another rate (test_speaker_test0: {rate} Hz, not 16000" in refused(root, folder=str(HOME))
    assert run(root, folder=str(HOME), rate=rate)["utterances"] == 3
    for row, wave in zip(rows_of(root), enhanced(root)[1], strict=True):
        noisy = shards.read_pair(paths.mixtures(root, "toy"), row)[1]
        there_and_back = audio.resample(audio.resample(noisy, 16000, rate), rate, 16000)[: len(noisy)] / 2
        assert len(wave) == len(noisy)
        assert np.abs(wave - there_and_back).max() < 1e-6


def cut(path: Path) -> None:
    wave, rate = audio.read(path)
    audio.write(path, wave[:, :-1], rate, "FLOAT")


def stereo(path: Path) -> None:
    wave, rate = audio.read(path)
    audio.write(path, np.repeat(wave, 2, 0), rate, "FLOAT")


def not_a_number(path: Path) -> None:
    wave, rate = audio.read(path)
    wave[0, 5000] = np.nan
    soundfile.write(path, wave.T, rate, "FLOAT")


def link_out(path: Path) -> None:
    shutil.move(path, path.parents[1] / "outside.wav")
    path.symlink_to("../outside.wav")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)  # reading it would wait for ever


FAULTS = [
    (Path.unlink, "1 missing (test_speaker_test1)"),
    (cut, "1 of another length (test_speaker_test1: 15999 samples, not 16000)"),
    (stereo, "1 not mono (test_speaker_test1: 2 channels)"),
    (not_a_number, "1 unreadable (test_speaker_test1: 1 samples are NaN or infinite)"),
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), "1 unreadable (test_speaker_test1: truncated"),
    (lambda path: path.write_text("no audio"), "1 unreadable (test_speaker_test1: not readable as audio"),
    (lambda path: shutil.copy(path, path.with_suffix(".flac")), "(test_speaker_test1: is there twice)"),
    (link_out, "(test_speaker_test1: is a link that leads out of the folder)"),
    (pipe, "(test_speaker_test1: is no file)"),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("spoil", "message"), FAULTS)
def test_files_that_do_not_fit_are_one_line(root, spoil, message):
    folder = give_files(root)
    spoil(folder / "test_speaker_test1.wav")
    text = refused(root)
    assert text.startswith(f"{folder}: 1 of 3 utterances cannot be used: ")
    assert message in text


def test_many_problems_are_counted_by_kind(root):
    folder = give_files(root)
    (folder / "test_speaker_test0.wav").unlink()
    cut(folder / "test_speaker_test1.wav")
    cut(folder / "test_speaker_test2.wav")
    text = refused(root)
    assert "3 of 3 utterances" in text
    assert "1 missing (test_speaker_test0)" in text
    assert "2 of another length" in text


def test_a_link_within_the_folder_is_no_problem(root):
    folder = give_files(root)
    (folder / "test_speaker_test1.wav").rename(folder / "kept.wav")
    (folder / "test_speaker_test1.wav").symlink_to("kept.wav")
    assert run(root)["utterances"] == 3


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("sources/theirs", "'sources/theirs' is not sources/external/theirs or below it"),
        ("sources/external/theirs2", "is not sources/external/theirs or below it"),
        ("sources/external/theirs/none", "none/toy: no such folder; put the enhanced files of toy there"),
    ],
)
def test_the_folder_is_where_dvc_looks(root, folder, message):
    assert message in refused(root, folder=folder)


# ---------------------------------------------------------------------------------------------- programs


def command(root: Path, more: str = "") -> list[str]:
    script = root / HOME / "enhance.py"
    script.write_text(PROGRAM + more)
    return [sys.executable, str(HOME / "enhance.py"), "{input}", "{output}"]


def test_a_program_is_run(root):
    result = run(root, command=command(root), parameters=7)
    assert (result["utterances"], result["parameters"]) == (3, 7)
    assert 0 < result["program_seconds"] < 60
    for row, wave in zip(rows_of(root), enhanced(root)[1], strict=True):
        assert np.abs(wave - shards.read_pair(paths.mixtures(root, "toy"), row)[1] / 2).max() < 1e-7
    names = {file.name for file in paths.enhanced(root, NAME, "toy").iterdir()}
    assert names == {"manifest.parquet", "enhanced.json", "shard-00000.flac"}


def test_a_program_gets_its_own_rate(root):
    run(root, command=command(root, "assert rate == 8000, rate"), rate=8000)
    assert {len(wave) for wave in enhanced(root)[1]} == {row["n_samples"] for row in rows_of(root)}


LINK = "first.unlink(); first.symlink_to(source / first.name)"
PROGRAMS = [
    (
        'sys.exit("first line\\n\\x1b[31mno \\t weights\\n\\n")',
        "its program failed (exit code 1): [31mno weights",
    ),
    ("print('said'); os._exit(3)", "its program failed (exit code 3)"),
    ("os.kill(os.getpid(), signal.SIGSEGV)", "its program failed (killed by SIGSEGV)"),
    (
        "first.unlink()",
        "output of its program: 1 of 3 utterances cannot be used: 1 missing (test_speaker_test0)",
    ),
    ("soundfile.write(first, wave[:-1], rate)", "1 of another length (test_speaker_test0: 15999 samples"),
    (LINK, "(test_speaker_test0: is a link that leads out of the folder)"),
    ('first.unlink(); first.symlink_to("/dev/zero")', "leads out of the folder"),
    ("os.mkdir(first.with_suffix('.flac')); first.unlink()", "(test_speaker_test0: is no file)"),
    ("import shutil; shutil.rmtree(target); target.symlink_to(source)", "has replaced its output folder"),
    ("import shutil; shutil.rmtree(target)", "has replaced its output folder"),
]


@pytest.mark.parametrize(("more", "message"), PROGRAMS)
def test_a_program_that_fails_or_cheats_is_one_line(root, more, message):
    text = refused(root, command=command(root, more))
    assert text.startswith(f"external.{NAME}: ")
    assert message in text


def test_output_beside_what_was_asked_for_stays_where_it_is(root):
    more = "(target / '..' / 'escaped.txt').write_text('x'); (target / '%2E%2E%2Fx.wav').touch()"
    result = run(root, command=command(root, more))
    assert result["extra"] == {"count": 1, "first": ["%2E%2E%2Fx.wav"]}
    assert not list(root.rglob("escaped.txt"))


@pytest.mark.timeout(300)
def test_a_slow_program_is_stopped_with_its_children(root):
    script = "import pathlib, subprocess, sys, time; wait = 'import time; time.sleep(60)'\n"
    script += "child = subprocess.Popen([sys.executable, '-c', wait])\n"
    script += f"pathlib.Path('{HOME}/child').write_text(str(child.pid))\nexec(wait)"
    call = [sys.executable, "-c", script, "{input}", "{output}"]
    began = time.monotonic()
    text = refused(root, command=call, timeout_seconds=8.0)
    assert "took longer than timeout_seconds (8) and was stopped" in text
    assert time.monotonic() - began < 45
    child = Path("/proc", (root / HOME / "child").read_text(), "stat")
    deadline = time.monotonic() + 10
    while child.exists() and child.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_a_program_that_is_not_there_is_one_line(root):
    text = refused(root, command=["no-such-program", "{input}", "{output}"])
    assert (
        text
        == f"external.{NAME}: 'no-such-program' cannot be started (No such file or directory); check command"
    )


def test_no_shell_reads_the_command(root):
    command(root)
    run(
        root,
        command=[sys.executable, str(HOME / "enhance.py"), "{input}", "{output}", "; touch hacked", "$(id)"],
    )
    assert not (root / "hacked").exists()


# -------------------------------------------------------------------------------------------- the chain


def test_an_external_system_goes_the_way_of_all_systems(root, capsys):
    """enhance, gate, evaluate, gate, report: by the command line."""
    give_files(root)
    tiny.write_params(root, **options(folder=str(HOME), paper="Theirs (2020)"), recipes=[], train_corpora=[])
    for arguments in (
        ["enhance", NAME, "toy"],
        ["check", "enhanced", NAME, "toy"],
        ["evaluate", "unprocessed", "toy"],
        ["evaluate", NAME, "toy"],
        ["check", "metrics", NAME, "toy"],
        ["report"],
    ):
        assert cli.main(arguments) == 0, capsys.readouterr().err
    scores = pandas.read_csv(paths.results(root, NAME, "toy") / "per_file.csv")
    before = pandas.read_csv(paths.results(root, "unprocessed", "toy") / "per_file.csv")
    assert np.allclose(scores["si_sdr"], before["si_sdr"], atol=1e-3)  # half as loud is as good
    page = (root / "report" / "index.html").read_text()
    assert "external: Theirs (2020)" in page
    assert "has no checkpoint" not in page
    tiny.write_params(root, **options(folder=str(HOME), paper="Another"), recipes=[], train_corpora=[])
    assert cli.main(["check", "enhanced", NAME, "toy"]) == 1
    assert "made with the present settings" in capsys.readouterr().err


def test_nothing_to_enhance_is_one_line(root):
    folder = paths.mixtures(root, "toy")
    frame = manifest.read(folder)
    manifest.write(frame[frame["split"] != "test"], folder)
    assert "no utterances in the test split" in refused(root)


def test_ids_too_long_for_a_file_name_are_one_line(root):
    folder = paths.mixtures(root, "toy")
    frame = manifest.read(folder)
    frame.loc[frame["split"] == "test", "id"] = [f"{'ü' * 120}{number:03d}" for number in range(3)]
    manifest.write(frame, folder)
    assert "is too long for a file name" in refused(root)


def test_settings_of_an_external_system_are_checked(tmp_path):
    for changes, message in (
        ({}, "give either 'folder'"),
        ({"folder": "a", "command": ["a", "{input}", "{output}"]}, "give either 'folder'"),
        ({"command": ["a", "{input}"]}, "must contain {input} and {output}"),
        ({"folder": "../x"}, "leaves the project"),
    ):
        with pytest.raises(DiffseError) as caught:
            tiny.write_params(tmp_path, **options(**changes))
        assert message in str(caught.value)
