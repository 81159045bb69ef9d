"""`prepare` on sources that vanish, change or break while it runs: listed with a reason, the rest prepared."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from own_recordings import MIX, PAIRS, RATE, build, contents, fails, rejected, run, sound, table

from diffse import audio, paths
from diffse.audio import AudioError
from diffse.data import mixing, prepare
from diffse.settings import Rooms, SplitCounts

CHANGED = "was changed or taken away while the corpus was prepared"
LATE = "clean/s4/take1.flac"  # a test speaker's last file: mixed after all others


@pytest.fixture
def own(tmp_path) -> Path:
    return build(tmp_path)


def vanish(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def louder(path: Path) -> None:
    """Another sound recording of the same length and size."""
    wave, rate = audio.read(path)
    audio.write(path, wave[0, ::-1] * 1.5, rate)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def during(monkeypatch, module, step: str, action) -> None:
    """Call `action` once, after `step` of a module has run for the first time."""
    done, before = [], getattr(module, step)

    def acting(*arguments, **options):
        result = before(*arguments, **options)
        if not done:
            done.append(step)
            action()
        return result

    monkeypatch.setattr(module, step, acting)


def last_test_file(root: Path) -> str:
    rows = table(root)
    return rows["clean_source"].iloc[-1]


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        (vanish, ("no such file",)),
        (cut, ("truncated", "damaged or truncated", CHANGED)),
        (corrupt, ("damaged or truncated", CHANGED)),
        (louder, (CHANGED,)),
        (empty, ("is empty",)),
    ],
)
def test_speech_that_changes_while_it_runs(own, tmp_path, monkeypatch, fault, reasons):
    run(tmp_path)
    victim = last_test_file(tmp_path)
    undisturbed = table(tmp_path)
    settings = replace(MIX, max_rejected=0.1)
    during(monkeypatch, mixing, "make", lambda: fault(own / victim))
    assert run(tmp_path, settings)["rejected"] == 1
    found = rejected(paths.mixtures(tmp_path, "own") / "rejected.csv")
    assert list(found) == [victim]
    assert found[victim].startswith(reasons)
    rows = table(tmp_path)
    others = undisturbed[undisturbed["clean_source"] != victim]
    assert rows["sha256"].tolist() == others["sha256"].tolist()


@pytest.mark.parametrize("fault", [vanish, louder, corrupt])
def test_noise_that_changes_after_it_was_scanned(own, tmp_path, monkeypatch, fault):
    """Its checksum in the manifest would be that of other bytes."""
    run(tmp_path)
    victim = table(tmp_path)["noise_source"].iloc[-1]
    during(monkeypatch, prepare, "_scan_rirs", lambda: fault(own / victim))
    before = contents(tmp_path)
    fails(tmp_path, MIX, "1 of 18 files cannot be used (max_rejected: 0)", f"first: {victim}")
    assert contents(tmp_path) == before
    found = rejected(tmp_path / "data/own/rejected.csv")[victim]
    assert found.startswith(("no such file", "damaged or truncated", CHANGED))


def test_noise_that_changes_while_it_is_scanned(own, tmp_path, monkeypatch):
    victim = "noise/fan/fan0.ogg"
    during(monkeypatch, audio, "scan", lambda: os.utime(own / victim, ns=(1, 1)))
    assert run(tmp_path, replace(MIX, max_rejected=0.1))["rejected"] == 1
    assert rejected(paths.mixtures(tmp_path, "own") / "rejected.csv") == {victim: CHANGED}
    assert victim not in set(table(tmp_path)["noise_source"])


def test_the_noisy_half_of_a_pair_that_changes(tmp_path, monkeypatch):
    source = tmp_path / "sources/own"
    for number in range(4):
        clean = sound(number)
        audio.write(source / f"clean/s/{number}.wav", clean, RATE)
        audio.write(source / f"noisy/s/{number}.wav", clean + 0.1 * sound(50 + number), RATE)
    during(monkeypatch, mixing, "make", lambda: louder(source / "noisy/s/3.wav"))
    assert run(tmp_path, replace(PAIRS, max_rejected=0.5))["rejected"] == 1
    assert rejected(paths.mixtures(tmp_path, "own") / "rejected.csv") == {"noisy/s/3.wav": CHANGED}


def test_a_room_response_that_changes(own, tmp_path, monkeypatch):
    for number in range(3):
        response = sound(number, 0.3) * 0.0
        response[100] = 0.9
        response[101:] += sound(10 + number, 0.3)[101:] * 10.0 ** (-3.0 * (sound(0, 0.3)[101:] * 0 + 1))
        audio.write(own / f"rir/room{number}.wav", response, RATE, "FLOAT")
    settings = replace(MIX, rooms=Rooms(kind="measured", max_t60=100.0), max_rejected=0.1)
    run(tmp_path, settings)
    room = table(tmp_path)["room"].iloc[-1]
    during(monkeypatch, mixing, "make", lambda: os.utime(own / f"rir/{room}.wav", ns=(1, 1)))
    assert run(tmp_path, settings)["rejected"] == 1
    assert rejected(paths.mixtures(tmp_path, "own") / "rejected.csv") == {f"rir/{room}.wav": CHANGED}


def test_an_utterance_that_is_mixed_twice_and_changes_in_between(own, tmp_path, monkeypatch):
    """The second mixture must not come from what is remembered of the first, nor have another checksum."""
    settings = replace(MIX, mixtures_per_utterance=SplitCounts(2, 2, 2), max_rejected=0.1)
    run(tmp_path, settings)
    victim = table(tmp_path)["clean_source"].iloc[0]
    during(monkeypatch, mixing, "make", lambda: louder(own / victim))
    run(tmp_path, settings)
    rows = table(tmp_path)
    assert (rows["clean_source"] == victim).sum() == 1
    assert rejected(paths.mixtures(tmp_path, "own") / "rejected.csv") == {victim: CHANGED}


def test_a_file_that_cannot_be_read_is_listed(own, monkeypatch):
    def refuse(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(audio.storage, "sha256_file", refuse)
    with pytest.raises(AudioError, match=r"cannot be read \(Input/output error\)"):
        audio.checksum(own / LATE)
