"""Reading, writing, resampling and measuring audio, and every kind of bad file."""

import csv
import errno
import math
import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile

from diffse import audio
from diffse.audio import AudioError

RATE = 16000


def noise(n: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((channels, n))).astype(np.float32)


def tone(n: int, rate: int, frequency: float = 1000.0) -> np.ndarray:
    return (0.5 * np.sin(2.0 * np.pi * frequency * np.arange(n) / rate)).astype(np.float32)


@pytest.fixture(params=["wav", "flac", "ogg"])
def good(request, tmp_path):
    """Three seconds of noise in each format."""
    path = tmp_path / f"good.{request.param}"
    audio.write(path, noise(3 * RATE), RATE)
    return path


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "FLOAT", 0.0),
        ("wav", None, 2.0**-15),
        ("wav", "PCM_24", 2.0**-23),
        ("flac", "PCM_24", 2.0**-23),
        ("flac", None, 2.0**-15),
    ],
)
def test_round_trip(tmp_path, suffix, subtype, tolerance):
    wave = noise(5000, channels=2)
    path = tmp_path / f"a.{suffix}"
    audio.write(path, wave, 44100, subtype)
    back, rate = audio.read(path)
    assert (rate, back.dtype, back.shape) == (44100, np.float32, (2, 5000))
    assert np.max(np.abs(back - wave)) <= tolerance
    assert audio.info(path) == audio.Info(44100, 2, 5000)


def test_ogg_keeps_length_and_sound(tmp_path):
    """Vorbis is lossy: a tone comes back as the tone, not sample by sample."""
    wave = tone(12345, RATE)
    audio.write(tmp_path / "a.ogg", wave, RATE)
    back, rate = audio.read(tmp_path / "a.ogg")
    assert (rate, back.shape) == (RATE, (1, 12345))
    assert audio.rms_dbfs(back[0] - wave) < audio.rms_dbfs(wave) - 20.0


def test_one_dimensional_wave_is_one_channel(tmp_path):
    audio.write(tmp_path / "a.wav", noise(100)[0], RATE, "FLOAT")
    assert np.array_equal(audio.read(tmp_path / "a.wav")[0], noise(100))


def test_part_is_the_same_as_a_slice(good):
    whole, _ = audio.read(good)
    for start, count in ((0, 1), (1234, 5000), (3 * RATE - 1000, 10), (3 * RATE - 10, 10)):
        part, _ = audio.read(good, start, count)
        assert np.array_equal(part, whole[:, start : start + count])
    with pytest.raises(AudioError, match="48000 samples; 47999 to 48001 were asked for"):
        audio.read(good, 3 * RATE - 1, 2)


def test_parts_of_an_open_recording_are_slices_in_any_order(good):
    whole, _ = audio.read(good)
    with audio.Recording(good) as recording:
        for start, samples in ((2000, 100), (0, 500), (1000, None), (7, 1)):
            stop = None if samples is None else start + samples
            assert np.array_equal(recording.read(start, samples), whole[:, start:stop])
        with pytest.raises(AudioError, match="samples; 5 to"):
            recording.read(5, recording.info.samples)


@pytest.mark.parametrize("share", [0.0005, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(good, share):
    """libsndfile reads a cut WAV or Ogg file without a word."""
    data = good.read_bytes()
    good.write_bytes(data[: int(share * len(data))])
    for function in (audio.read, audio.scan):
        with pytest.raises(AudioError) as caught:
            function(good)
        assert str(good) in str(caught.value)


def test_truncated_wav_is_seen_in_the_header_alone(tmp_path):
    path = tmp_path / "a.wav"
    audio.write(path, noise(1000), RATE)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(AudioError, match="truncated \\(2 of 2000 bytes of audio are missing\\)"):
        audio.info(path)


def test_wav_from_a_pipe_is_read(tmp_path):
    """Programs that write to a pipe cannot know the length and leave a mark in its place."""
    path = tmp_path / "a.wav"
    audio.write(path, noise(1000), RATE)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(data))
    assert audio.read(path)[0].shape == (1, 1000)


def bad_files(folder):
    """(path, words of the message) of every other kind of unusable file."""
    (folder / "folder.wav").mkdir()
    (folder / "empty.flac").touch()
    (folder / "text.wav").write_text("This is not audio, whatever its name says.\n" * 50)
    soundfile.write(folder / "none.wav", np.zeros(0), RATE)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        wave = noise(1000)[0]
        wave[10:13] = value
        soundfile.write(folder / f"{name}.wav", wave, RATE, "FLOAT")
    return [
        (folder / "missing.wav", "no such file"),
        (folder / "folder.wav", "is a folder"),
        (folder / "empty.flac", "is empty (0 bytes)"),
        (folder / "text.wav", "not readable as audio"),
        (folder / "none.wav", "holds no samples"),
        (folder / "nan.wav", "3 samples are NaN or infinite"),
        (folder / "inf.wav", "3 samples are NaN or infinite"),
    ]


def test_each_bad_file_has_one_line_that_names_it(tmp_path):
    for path, words in bad_files(tmp_path):
        for function in (audio.read, audio.scan):
            with pytest.raises(AudioError) as caught:
                function(path)
            text = str(caught.value)
            assert text.startswith(f"{path}: "), text
            assert words in text
            assert "\n" not in text
            assert text.count(str(path)) == 1, "the path is said once"


def test_error_passes_between_processes():
    error = pickle.loads(pickle.dumps(AudioError("a/b.wav", "is empty")))
    assert (error.path, error.reason, str(error)) == ("a/b.wav", "is empty", "a/b.wav: is empty")


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(48000, 16000), (44100, 16000), (8000, 16000), (22050, 48000)]
)
def test_resampled_tone_is_the_tone(from_rate, to_rate):
    out = audio.resample(tone(2 * from_rate, from_rate)[None], from_rate, to_rate)
    assert out.dtype == np.float32
    assert out.shape == (1, 2 * to_rate)
    middle = slice(to_rate // 4, -to_rate // 4)
    error = out[0, middle] - tone(2 * to_rate, to_rate)[middle]
    assert audio.rms_dbfs(error) < -100.0


def test_resampling_removes_what_the_new_rate_cannot_hold():
    out = audio.resample(tone(48000, 48000, frequency=12000.0), 48000, 16000)
    assert audio.rms_dbfs(out[1000:-1000]) < -100.0


def test_resample_keeps_leading_axes_and_treats_them_alike():
    waves = noise(3000, channels=6).reshape(2, 3, 3000)
    out = audio.resample(waves, 24000, 16000)
    assert out.shape == (2, 3, 2000)
    assert np.array_equal(out[1, 2], audio.resample(waves[1, 2], 24000, 16000))
    assert audio.resample(waves, 16000, 16000) is waves


def test_rms_level():
    assert audio.rms_dbfs(np.ones(10, np.float32)) == 0.0
    assert audio.rms_dbfs(2.0 * tone(RATE, RATE)) == pytest.approx(-3.0103, abs=1e-3)
    assert audio.rms_dbfs(np.zeros(10, np.float32)) == -math.inf
    assert audio.rms_dbfs(np.zeros(0, np.float32)) == -math.inf


def test_scan_block_by_block(good, monkeypatch):
    monkeypatch.setattr(audio, "_BLOCK", 1000)
    wave, _ = audio.read(good)
    scan = audio.scan(good)
    assert (scan.rate, scan.channels, scan.samples) == (RATE, 1, 3 * RATE)
    assert scan.level_dbfs == pytest.approx(audio.rms_dbfs(wave[0]), abs=1e-9)


def test_full_disk_leaves_what_was_there(tmp_path):
    """A file-size limit stands for the full disk; it must be set in a process of its own."""
    path = tmp_path / "a.wav"
    audio.write(path, noise(100), RATE)
    before = path.read_bytes()
    program = f"""
        import resource, numpy
        from diffse import audio
        from diffse.errors import DiffseError
        resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
        try:
            audio.write({str(path)!r}, numpy.ones(100000, numpy.float32), 16000)
        except (DiffseError, OSError) as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.stdout.startswith("DiffseError"), done.stdout + done.stderr
    assert str(path) in done.stdout
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.wav"]


def test_real_recordings_have_their_documented_length_and_level(corpus):
    with open(corpus / "MANIFEST.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["rms_db"]][::60]
    assert len(rows) >= 5
    for row in rows:
        scan = audio.scan(corpus / row["file"])
        assert scan.samples / scan.rate == pytest.approx(float(row["seconds"]), abs=2e-3)
        assert scan.level_dbfs == pytest.approx(float(row["rms_db"]), abs=0.1)


def test_a_file_system_that_takes_no_advice_is_no_failure(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    wave = noise(RATE)
    audio.write(tmp_path / "out.wav", wave, RATE, "FLOAT")
    assert np.array_equal(audio.read(tmp_path / "out.wav")[0], wave)
