"""Recordings that visitors bring: enhanced in a process and a folder of their own."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffse import audio
from diffse.dashboard import jobs
from diffse.errors import DiffseError

PYTHON = sys.executable


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("audio") / "a.wav"
    audio.write(file, np.sin(np.arange(16000) * 0.05).astype(np.float32)[None] * 0.3, 16000)
    return file.read_bytes()


def finished(job: jobs.Job) -> jobs.Job:
    end = time.monotonic() + 240
    while job.running and time.monotonic() < end:
        time.sleep(0.05)
    assert not job.running
    return job


def acts(monkeypatch, code: str) -> None:
    """Let a program stand in the place of Python, which is told to run diffse."""
    import tempfile

    program = Path(tempfile.mkdtemp()) / "python"
    program.write_text(f"#!{PYTHON}\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(jobs.sys, "executable", str(program))


def test_a_job_enhances_in_its_own_folder_and_leaves_nothing(monkeypatch, recording, tmp_path):
    acts(monkeypatch, "import shutil, sys; shutil.copy('in.wav', 'out.wav'); print(sys.argv)")
    job = finished(jobs.Job("my.wav", recording, tmp_path))
    assert job.error == ""
    before, after, rate = job.waves()
    assert (rate, len(before), job.cut) == (16000, 16000, False)
    assert np.array_equal(before, after)
    place = job._place
    assert place.is_dir()
    job.close()
    assert not place.exists()


def test_a_job_that_goes_out_of_sight_is_ended(monkeypatch, recording, tmp_path):
    acts(monkeypatch, "import time; time.sleep(600)")
    job = jobs.Job("my.wav", recording, tmp_path)
    process, place = job._process, job._place
    with pytest.raises(DiffseError, match="another recording is being enhanced"):
        jobs.Job("other.wav", recording, tmp_path)
    del job
    assert process.wait(60) < 0
    assert not place.exists()
    acts(monkeypatch, "")
    finished(jobs.Job("other.wav", recording, tmp_path)).close()  # and the next one may begin


def test_a_job_that_takes_too_long_is_ended(monkeypatch, recording, tmp_path):
    monkeypatch.setattr(jobs, "TIMEOUT", 0.2)
    acts(monkeypatch, "import time; time.sleep(600)")
    job = finished(jobs.Job("my.wav", recording, tmp_path))
    assert job.error.startswith("it was stopped after")
    job.close()


def test_a_job_says_why_it_failed(recording, tmp_path):
    job = finished(jobs.Job("my.wav", recording, tmp_path / "no_checkpoint"))
    assert "no_checkpoint" in job.error
    assert "\n" not in job.error
    job.close()
    for name, content in (("a.mp3", recording), ("a.wav", b"no audio"), ("a.wav", b"")):
        with pytest.raises(DiffseError):
            jobs.Job(name, content, tmp_path)


def test_a_long_recording_is_cut(monkeypatch, recording, tmp_path):
    monkeypatch.setattr(jobs, "MAX_SECONDS", 0.5)
    acts(monkeypatch, "import shutil; shutil.copy('in.wav', 'out.wav')")
    job = finished(jobs.Job("my.wav", recording, tmp_path))
    assert job.cut
    assert len(job.waves()[0]) == 8000
    job.close()
