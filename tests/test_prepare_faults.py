"""`prepare` on bad files, bad lists, bad settings, and broken off in the middle."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from own_recordings import (
    LISTS,
    MIX,
    NOISE_LISTS,
    RATE,
    build,
    contents,
    fails,
    lists,
    params,
    rejected,
    run,
    sound,
    table,
)

from diffse import audio, paths, storage
from diffse.data import prepare
from diffse.data.parallel import Workers
from diffse.errors import DiffseError
from diffse.settings import SplitCounts


@pytest.fixture
def own(tmp_path):
    return build(tmp_path)


# ------------------------------------------------------------------------------------------- bad files


def spoil(source: Path) -> dict[str, str]:
    """Plant one file of every kind of fault; returns file -> beginning of its reason."""
    bad = source / "clean/s0"
    (bad / "empty.wav").touch()
    (bad / "text.flac").write_text("not audio\n" * 100)
    audio.write(bad / "cut.wav", sound(1), RATE)
    (bad / "cut.wav").write_bytes((bad / "cut.wav").read_bytes()[:9000])
    audio.write(bad / "cut2.flac", sound(1), RATE)
    (bad / "cut2.flac").write_bytes((bad / "cut2.flac").read_bytes()[:9000])
    wave = sound(2)
    wave[100] = np.nan
    soundfile.write(bad / "nan.wav", wave, RATE, "FLOAT")
    audio.write(bad / "short.wav", sound(3, 0.2), RATE)
    audio.write(bad / "silent.wav", np.zeros(RATE, np.float32), RATE)
    (bad / "gone.wav").symlink_to("nowhere.wav")
    audio.write(source / "noise/fan/silent.wav", np.zeros(RATE, np.float32), RATE)
    (source / "noise/fan/empty.wav").touch()
    return {
        "clean/s0/empty.wav": "is empty",
        "clean/s0/text.flac": "not readable as audio",
        "clean/s0/cut.wav": "truncated",
        "clean/s0/cut2.flac": "damaged or truncated",
        "clean/s0/nan.wav": "1 samples are NaN or infinite",
        "clean/s0/short.wav": "too short (0.20 s",
        "clean/s0/silent.wav": "no speech: silent",
        "clean/s0/gone.wav": "no such file",
        "noise/fan/silent.wav": "silent",
        "noise/fan/empty.wav": "is empty",
    }


@pytest.mark.parametrize("processes", [1, 2])
def test_each_bad_file_is_listed_and_the_rest_prepared(own, tmp_path, processes):
    expected = spoil(own)
    settings = replace(MIX, max_rejected=0.5, processes=processes, mixtures_per_utterance=SplitCounts(2, 2, 2))
    counts = run(tmp_path, settings)
    found = rejected(paths.mixtures(tmp_path, "own") / "rejected.csv")
    assert list(found) == sorted(expected)
    for file, reason in expected.items():
        assert found[file].startswith(reason), (file, found[file])
    assert counts["rejected"] == len(expected)
    assert sum(counts["utterances"].values()) == 2 * 10
    assert not set(expected) & set(table(tmp_path)["clean_source"])
    assert not set(expected) & set(table(tmp_path)["noise_source"])


def test_too_many_bad_files_fail_and_keep_what_was_there(own, tmp_path):
    run(tmp_path)
    before = contents(tmp_path)
    expected = spoil(own)
    text = fails(
        tmp_path, MIX, "10 of 28 files cannot be used", "max_rejected: 0", "first: clean/s0/cut.wav: truncated"
    )
    assert contents(tmp_path) == before
    beside = tmp_path / "data/own/rejected.csv"
    assert str(beside) in text
    assert list(rejected(beside)) == sorted(expected)
    for file in expected:
        (own / file).unlink()
    run(tmp_path)
    assert contents(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "data/own").iterdir()) == [".lock", "mixtures"]


def test_a_missing_listed_file_is_named(own, tmp_path):
    lists(own)
    settings = replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS)
    (own / "clean/s4/take0.wav").unlink()
    fails(tmp_path, settings, "1 of 18 files", "first: clean/s4/take0.wav: no such file")
    assert run(tmp_path, replace(settings, max_rejected=0.1))["rejected"] == 1


def test_folder_with_no_speech(own, tmp_path):
    for path in list((own / "clean").glob("*/*")):
        audio.write(path, np.zeros(RATE, np.float32), RATE)
    fails(tmp_path, replace(MIX, max_rejected=0.02), "10 of 18 files", "no speech: silent")
    fails(tmp_path, replace(MIX, max_rejected=1.0), "there is nothing to prepare", "no speech: silent")
    for path in list((own / "clean").glob("*/*")):
        path.rename(path.with_suffix(".mid"))
    fails(tmp_path, MIX, f"{own / 'clean'}: holds no audio (.wav, .flac, .ogg)")


def test_no_usable_noise(own, tmp_path):
    for path in list((own / "noise").glob("*/*")):
        path.write_bytes(b"")
    fails(tmp_path, replace(MIX, max_rejected=1.0), "no usable noise for the split 'test'", "is empty")


# ---------------------------------------------------------------------------------- bad lists, settings


def test_a_speaker_in_two_splits(own, tmp_path):
    lists(own)
    with open(own / LISTS.test, "a") as stream:
        stream.write("clean/s0/take0.wav\n")
    train = (own / LISTS.train).read_text().replace("clean/s0/take0.wav\n", "")
    (own / LISTS.train).write_text(train)
    settings = replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS)
    fails(tmp_path, settings, "speaker 's0' is in two splits", "test (clean/s0/take0.wav)", "train (")


def test_a_file_in_two_lists_or_twice_in_one(own, tmp_path):
    lists(own)
    settings = replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS)
    with open(own / NOISE_LISTS.test, "a") as stream:
        stream.write("noise/fan/fan0.ogg\n")
    fails(tmp_path, settings, "noise file 'noise/fan/fan0.ogg' is also in", "train_noise.txt")
    lists(own)
    with open(own / NOISE_LISTS.test, "a") as stream:
        stream.write("noise/fan/fan3.ogg\n")
    fails(tmp_path, settings, "test_noise.txt: names 'noise/fan/fan3.ogg' twice")


def test_the_same_noise_under_two_names_in_two_splits(own, tmp_path):
    lists(own)
    shutil.copy(own / "noise/fan/fan0.ogg", own / "noise/street/copy3.ogg")
    with open(own / NOISE_LISTS.test, "a") as stream:
        stream.write("noise/street/copy3.ogg\n")
    settings = replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS)
    fails(tmp_path, settings, "noise/fan/fan0.ogg", "noise/street/copy3.ogg", "two splits")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("test_speech.txt: names no file",)),
        ("# only a comment\n", ("test_speech.txt: names no file",)),
        ("../../secret.wav\n", ("test_speech.txt, line 1", "'../../secret.wav' leaves the source folder")),
        ("clean/s4/take0.wav\n/etc/passwd\n", ("test_speech.txt, line 2", "'/etc/passwd' leaves")),
        (None, ("test_speech.txt: no such list",)),
        (b"\xff\xfe\x00", ("test_speech.txt: not a UTF-8 text file",)),
    ],
)
def test_bad_lists(own, tmp_path, text, words):
    lists(own)
    path = own / LISTS.test
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    fails(tmp_path, replace(MIX, clean_lists=LISTS, noise_lists=NOISE_LISTS), *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clean": "speech"}, ("sources/own/speech: no such folder",)),
        ({"clean": ".."}, ("leaves the source folder",)),
        ({"noise": "clean/s0"}, ("'clean' and 'clean/s0' overlap",)),
        ({"speaker_shares": (0.0, 0.0, 0.0)}, ("speaker_shares",)),
        ({"rate": 16}, ("prepare.own.rate is 16",)),
        ({"max_rejected": 2.0}, ("prepare.own.max_rejected is 2",)),
        ({"mixtures_per_utterance": SplitCounts(valid=0)}, ("mixtures_per_utterance.valid is 0",)),
        ({"snr_db": replace(MIX.snr_db, test=(9.0, 1.0))}, ("snr_db.test is [9, 1]", "lower value first")),
    ],
)
def test_bad_settings(own, tmp_path, change, words):
    fails(tmp_path, replace(MIX, **change), *words)


def test_unknown_corpus_and_missing_sources(tmp_path):
    fails(tmp_path, MIX, "sources/own: no such folder")
    with pytest.raises(DiffseError, match="'other' has no entry under 'prepare' \\(there: own\\)"):
        prepare.run(params(MIX), "other", tmp_path)


# ------------------------------------------------------------------------------------ broken off midway


def test_exception_in_the_middle_keeps_the_old_mixtures(own, tmp_path, monkeypatch):
    run(tmp_path)
    before = contents(tmp_path)

    def interrupt(*_):
        raise KeyboardInterrupt

    for place in ("_write_manifest", "_write_rejected"):
        with monkeypatch.context() as patch:
            patch.setattr(prepare, place, interrupt)
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path, replace(MIX, seed=5))
        assert contents(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "data/own").iterdir()) == [".lock", "mixtures"]


def test_second_preparation_at_the_same_time_is_refused(own, tmp_path):
    with storage.exclusive_lock(tmp_path / "data/own", "a test"):
        fails(tmp_path, MIX, "the preparation of 'own' is already running")


PROGRAM = """
    import sys
    from dataclasses import replace
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from diffse.data import mixing, prepare
    import own_recordings
    def slow(batch, make=mixing.make_shard):
        import time
        rows = make(batch)
        (Path({root!r}) / f"made-{{batch.number}}").touch()
        time.sleep(60)
        return rows
    if __name__ == "__main__":
        mixing.make_shard = slow
        own_recordings.run(Path({root!r}), replace(own_recordings.MIX, seed=7, processes=2))
"""


def running(group: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_killed_preparation_leaves_the_old_mixtures_and_no_worker(own, tmp_path):
    run(tmp_path)
    before = contents(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM).format(tests=str(Path(__file__).parent), root=str(tmp_path)))
    child = subprocess.Popen([sys.executable, str(program)], start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("made-*")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.05)
    assert len(running(child.pid)) > 1, "workers must be at work when the parent is killed"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    while running(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(child.pid)
    assert contents(tmp_path) == before
    run(tmp_path)
    assert contents(tmp_path) == before
    assert not (tmp_path / "data/own/.mixtures.partial").exists()


# --------------------------------------------------------------------------------------------- workers


def slow_start(item: int) -> int:
    time.sleep(0.05 if item == 0 else 0.0)
    return item * item


def die(item: int) -> int:
    os._exit(3)


def complain(item: int) -> int:
    raise audio.AudioError(f"file{item}.wav", "is empty")


def test_results_come_in_order_and_items_are_taken_as_they_are_needed():
    taken = []
    items = (taken.append(k) or k for k in range(1000))
    with Workers(2) as workers:
        results = workers.map(slow_start, items, chunk=2)
        assert [next(results) for _ in range(10)] == [k * k for k in range(10)]
        assert len(taken) < 30, "a slow consumer bounds the memory"
    results.close()  # after the workers have gone: waits for nothing that will never end


def test_dead_worker_and_error_in_a_worker_are_one_line():
    with Workers(2) as workers, pytest.raises(DiffseError, match=r"a worker process died.*'processes'"):
        list(workers.map(die, range(4)))
    with Workers(2) as workers, pytest.raises(DiffseError, match=r"^file0\.wav: is empty$"):
        list(workers.map(complain, range(4)))
