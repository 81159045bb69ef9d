"""Enhance one recording in a process of its own, in a folder that goes when it is no longer needed."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from diffse import audio
from diffse.errors import DiffseError

MAX_SECONDS = 60.0  # of a recording; the rest is cut off
TIMEOUT = 900.0  # seconds that it may take
_SUFFIXES = (".wav", ".flac", ".ogg")
_one = threading.BoundedSemaphore(1)  # enhancing takes all of a small machine


class Job:
    """One enhancement under way or done. The process ends, and its folder goes, with the object or at exit."""

    def __init__(self, name: str, content: bytes, checkpoint: Path, steps: int | None = None) -> None:
        """Begin. DiffseError: not audio, or another job is under way."""
        if not _one.acquire(blocking=False):
            raise DiffseError("another recording is being enhanced; wait until it is done")
        folder = tempfile.TemporaryDirectory(prefix="diffse-dashboard-")
        try:
            self._place = Path(folder.name)
            self.name, self.checkpoint, self.began = name, checkpoint, time.monotonic()
            self.cut = self._store(content)
            self._process = self._start(checkpoint, steps)
        except BaseException:
            folder.cleanup()
            _one.release()
            raise
        release = _once(_one.release)
        self._end = weakref.finalize(self, _clean, self._process, folder, release)
        threading.Thread(target=_watch, args=(self._process, release), daemon=True).start()

    def _store(self, content: bytes) -> bool:
        """Write the recording as in.wav, at most MAX_SECONDS of it; whether some was cut off."""
        suffix = Path(self.name).suffix.lower()
        if suffix not in _SUFFIXES:
            raise DiffseError(f"{self.name}: give a file of type {', '.join(_SUFFIXES)}")
        raw = self._place / f"raw{suffix}"
        raw.write_bytes(content)
        try:
            header = audio.info(raw)
            samples = min(header.samples, round(MAX_SECONDS * header.rate))
            wave, rate = audio.read(raw, 0, samples)
        except audio.AudioError as error:
            raise DiffseError(f"{self.name}: {error.reason}") from None
        audio.write(self._place / "in.wav", wave, rate, "FLOAT")
        raw.unlink()
        return samples < header.samples

    def _start(self, checkpoint: Path, steps: int | None) -> subprocess.Popen:
        command = [sys.executable, "-m", "diffse", "enhance", "in.wav", "out.wav"]
        command += ["--checkpoint", str(checkpoint.resolve()), "--params", "none.yaml"]  # no project, no record
        command += [] if steps is None else ["--steps", str(steps)]
        with open(self._place / "said", "wb") as said:
            return subprocess.Popen(
                command,
                cwd=self._place,
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def error(self) -> str:
        """Why it failed, in one line; "" while it runs and when it is done."""
        if self._process.poll() in (None, 0):
            return ""
        if self._process.returncode < 0:
            return f"it was stopped after {TIMEOUT:.0f} s, or by the system"
        lines = (self._place / "said").read_text("utf-8", errors="replace").strip().splitlines()
        return (lines or ["it failed without a word"])[-1].removeprefix("diffse: ").replace("in.wav", self.name)

    def waves(self):
        """(recording, enhanced, rate), waves [samples] of the first channel, of a job that is done."""
        before, rate = audio.read(self._place / "in.wav")
        after, _ = audio.read(self._place / "out.wav")
        return before[0], after[0], rate

    def result(self) -> bytes:
        """The enhanced file."""
        return (self._place / "out.wav").read_bytes()

    def close(self) -> None:
        """End the process and remove the folder."""
        self._end()


def _once(action: Callable[[], None]) -> Callable[[], None]:
    """The action; from the second call on it does nothing."""
    left = [action]

    def act() -> None:
        with contextlib.suppress(IndexError):
            left.pop()()

    return act


def _clean(process: subprocess.Popen, folder: tempfile.TemporaryDirectory, release: Callable) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    folder.cleanup()
    release()


def _watch(process: subprocess.Popen, release: Callable) -> None:
    """End a process that takes too long, and let the next one begin when it has ended."""
    try:
        process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    release()
