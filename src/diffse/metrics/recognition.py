"""Word error rate: what a recogniser hears in the enhanced signal, against the words that were said."""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from diffse import audio, external_program
from diffse.errors import DiffseError
from diffse.metrics.checks import Missing, require_sound
from diffse.metrics.tools import Tools

_LONGEST = 1 << 20  # bytes of a transcript


def wer(
    clean: np.ndarray,
    enhanced: np.ndarray,
    noisy: np.ndarray,
    rate: int,
    *,
    text: str,
    heard: str | None,
    tools: Tools,
) -> float:
    """Word error rate: (substitutions + deletions + insertions) / words of `text`; may exceed 1.

    `heard`: what a program has recognised; None: wav2vec 2.0 listens. Case and punctuation do not count.
    """
    from jiwer import wer as word_errors

    wanted = words(text)
    if not wanted:
        raise Missing("no transcript of this utterance")
    require_sound(enhanced=enhanced)
    if heard is None and tools.recogniser.command:
        raise Missing("the recogniser's program gave no transcript", lasting=False)
    if heard is None:
        from diffse.metrics import wav2vec2

        heard = wav2vec2.transcript(enhanced, rate, tools.file("wav2vec2"))
    return float(word_errors(wanted, words(heard)))


def words(text: str) -> str:
    """Lower case, without punctuation except the apostrophes in words, one space between words."""
    plain = re.sub(r"[^\w']+", " ", text.lower().replace("\u2019", "'"))
    return " ".join(word for word in (part.strip("'_") for part in plain.split()) if word)


def listen(signals: Iterable[tuple[str, np.ndarray, int]], tools: Tools) -> dict[str, str]:
    """Let the user's program recognise all `signals` (id, [samples], Hz) at once; id -> what it heard.

    It reads {input}/<number>.wav at `recogniser.rate` and writes {output}/<number>.txt. Utterances without such
    a file are left out. DiffseError: the program cannot be started, fails or takes too long.
    """
    options = tools.recogniser
    with tempfile.TemporaryDirectory(prefix="diffse-recogniser-") as name:
        work = Path(name)
        folders = {"input": work / "input", "output": work / "output"}
        for folder in folders.values():
            folder.mkdir()
        ids = {}
        for number, (utterance, wave, rate) in enumerate(signals):
            stem = f"{number:06d}"
            ids[stem] = utterance
            wave = audio.resample(wave, rate, options.rate)
            audio.write(folders["input"] / f"{stem}.wav", wave, options.rate, "FLOAT")
        home, where = tools.home.absolute(), "evaluate.recogniser"
        external_program.run(options.command, folders, options.timeout_seconds, work, home, where)
        found = {utterance: _read(folders["output"] / f"{stem}.txt") for stem, utterance in ids.items()}
    return {utterance: heard for utterance, heard in found.items() if heard is not None}


def _read(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _LONGEST:
        return None
    return path.read_text(encoding="utf-8", errors="replace")


def read_texts(path: Path) -> dict[str, str]:
    """Id -> transcript from lines of '<id> <words>'; DiffseError for a file that is not so."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise DiffseError(f"{path}: transcripts cannot be read ({reason})") from None
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, _, text = line.strip().partition("\t") if "\t" in line else line.strip().partition(" ")
        if name and name in texts:
            raise DiffseError(f"{path}, line {number}: '{name}' has a transcript already; keep one of them")
        if name:
            texts[name] = text.strip()
    return texts
