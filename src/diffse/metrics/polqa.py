"""POLQA (ITU-T P.863), which diffse must not ship: the user's own licensed program computes it."""

import re
import tempfile
from pathlib import Path

import numpy as np

from diffse import audio, external_program
from diffse.errors import DiffseError
from diffse.metrics.checks import Missing, require_sound
from diffse.metrics.tools import Tools

_TAIL = 1 << 16  # bytes of its output that are searched for the score


def polqa(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int, *, tools: Tools) -> float:
    """POLQA of one pair, as MOS-LQO. The program gets two WAV files at `polqa.rate` and prints the score.

    A program that fails, or prints none, is Missing with what it said, and is asked again the next time.
    """
    options = tools.polqa
    if not options.command:
        raise Missing("no program: give evaluate.polqa.command")
    require_sound(clean=clean, enhanced=enhanced)
    with tempfile.TemporaryDirectory(prefix="diffse-polqa-") as name:
        work = Path(name)
        files = {"clean": work / "clean.wav", "enhanced": work / "enhanced.wav"}
        for path, wave in zip(files.values(), (clean, enhanced), strict=True):
            audio.write(path, audio.resample(wave, rate, options.rate), options.rate, "PCM_16")
        try:
            external_program.run(
                options.command, files, options.timeout_seconds, work, tools.home.absolute(), "evaluate.polqa"
            )
        except DiffseError as error:
            raise Missing(str(error), lasting=False) from None
        said = (work / "stdout").read_bytes()[-_TAIL:].decode("utf-8", "replace")
    return _score(said, options.pattern)


def _score(said: str, pattern: str) -> float:
    try:
        found = re.search(pattern, said)
        return float(found[1])
    except (re.error, TypeError, IndexError, ValueError):
        raise Missing("evaluate.polqa: no score in the program's output; see pattern", lasting=False) from None
