"""Word error rate, with a program that listens, and POLQA, by the user's own program."""

import dataclasses
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest

from diffse import settings
from diffse.errors import DiffseError
from diffse.metrics import polqa, recognition, tools, transcripts
from diffse.metrics.checks import Missing
from diffse.metrics.score import score_pair
from diffse.metrics.scoring import Plan, Utterance

RATE = 16000
# Hears one word "hello" per 0.1 s, so that the words depend on the audio; the last file it does not answer.
PROGRAM = """
import pathlib, sys, soundfile
source, target = map(pathlib.Path, sys.argv[1:])
files = sorted(source.iterdir())
(pathlib.Path(__file__).parent / "calls").open("a").write(f"{len(files)} ")
for path in files:
    wave, rate = soundfile.read(path)
    assert (rate, path.suffix) == (8000, ".wav")
    if len(wave) > 900:
        (target / f"{path.stem}.txt").write_text("Hello, " * (len(wave) // 800))
"""


def said(text: str, heard: str | None) -> float:
    wave = np.ones(RATE, np.float32)
    return recognition.wer(wave, wave, wave, RATE, text=text, heard=heard, tools=tools.NONE)


@pytest.mark.parametrize(
    ("text", "heard", "expected"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 0.0),
        ("The cat, sat on the mat!", "the CAT sat on  the mat", 0.0),
        ("the cat sat on the mat", "the bat sat on mat", 2 / 6),  # a substitution and a deletion
        ("yes", "oh yes of course", 3.0),
        ("don't go", "don\u2019t 'go'", 0.0),
        ("well-known facts", "well known facts", 0.0),
        ("anything", "", 1.0),
    ],
)
def test_errors_are_counted_in_words(text, heard, expected):
    assert said(text, heard) == pytest.approx(expected)


def test_counts_are_those_of_jiwer():
    rng, words = np.random.default_rng(0), list("abcde")
    for _ in range(20):
        text, heard = (" ".join(rng.choice(words, size)) for size in rng.integers(1, 12, 2))
        assert said(text, heard) == jiwer.wer(text, heard)


def test_without_words_or_a_recogniser_it_is_missing():
    wave = np.ones(RATE, np.float32)
    for text, reason in (
        ("", "no transcript of this utterance"),
        ("...", "no transcript"),
        ("a", "no weights"),
    ):
        row = score_pair(wave, wave, wave, RATE, ("wer",), text=text)
        assert np.isnan(row["wer"]) and reason in row["wer_reason"]


def test_transcripts_are_read_from_lines(tmp_path):
    (tmp_path / "texts").write_text("a the cat\nb\tthe  dog \n\nsub/c\n", encoding="utf-8")
    found = recognition.read_texts(tmp_path / "texts")
    assert found == {"a": "the cat", "b": "the  dog", "sub/c": ""}
    (tmp_path / "texts").write_text("a one\na two\n")
    with pytest.raises(DiffseError, match="line 2: 'a' has a transcript already"):
        recognition.read_texts(tmp_path / "texts")
    (tmp_path / "texts").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DiffseError, match="not UTF-8"):
        recognition.read_texts(tmp_path / "texts")


# ------------------------------------------------------------------------------------------------- program


@pytest.fixture
def plan(tmp_path) -> Plan:
    """Word error rate by the program, with a cache of its own."""
    (tmp_path / "listen.py").write_text(PROGRAM)
    command = (sys.executable, "listen.py", "{input}", "{output}")
    options = settings.Evaluate(metrics=("wer",), recogniser=settings.Recogniser(command, rate=8000))
    found = tools.find(options, options.metrics, tmp_path)
    return dataclasses.replace(Plan.of(("wer",), found, True), cache=tmp_path / "scores.sqlite")


def utterance(name: str, seconds: float, text: str = "hello hello") -> Utterance:
    wave = np.random.default_rng(len(name)).standard_normal(int(seconds * RATE)).astype(np.float32) / 10
    return Utterance({"id": name}, lambda: (wave, wave, wave, RATE), text)


def calls(plan: Plan) -> str:
    path = plan.tools.home / "calls"
    return path.read_text().strip() if path.exists() else ""


def test_the_program_hears_all_files_at_once_and_only_new_ones_again(plan):
    first = [utterance("a", 0.25), utterance("bb", 0.35), utterance("no words", 0.25, text="")]
    heard = transcripts.by_program(first, plan)
    assert {name: recognition.words(text) for name, text in heard.items()} == {
        "a": "hello hello", "bb": "hello hello hello",
    }  # fmt: skip
    assert calls(plan) == "2"
    assert transcripts.by_program(first, plan) == heard
    assert calls(plan) == "2"
    transcripts.by_program([*first, utterance("cccc", 0.45)], plan)
    assert calls(plan) == "2 1"
    (plan.tools.home / "listen.py").write_text(PROGRAM + "# another version\n")
    transcripts.by_program(first, plan)
    assert calls(plan) == "2 1 2"


def test_a_file_that_the_program_does_not_answer_is_missing(plan):
    short = utterance("a", 0.1)
    heard = transcripts.by_program([short, utterance("bb", 0.3)], plan)
    assert set(heard) == {"bb"}
    wave = short.read()[0]
    row = score_pair(wave, wave, wave, RATE, ("wer",), text="hello", heard=heard.get("a"), tools=plan.tools)
    assert row["wer_reason"] == "the recogniser's program gave no transcript"


def test_a_program_that_fails_is_one_line(plan):
    (plan.tools.home / "listen.py").write_text("raise SystemExit('no model here')")
    with pytest.raises(DiffseError, match=r"evaluate\.recogniser: its program failed .*no model here"):
        transcripts.by_program([utterance("a", 0.3)], plan)


def test_commands_without_their_places_are_refused():
    recogniser = settings.Evaluate(recogniser=settings.Recogniser(("listen", "{input}")))
    with pytest.raises(DiffseError, match=r"evaluate\.recogniser\.command: .*\{input\} and \{output\}"):
        tools.find(recogniser, ("wer",), Path())
    with pytest.raises(DiffseError, match=r"evaluate\.weights\.wav2vec2"):
        tools.find(settings.Evaluate(), ("wer",), Path())


# --------------------------------------------------------------------------------------------------- POLQA


def polqa_tools(tmp_path: Path, program: str, **more) -> tools.Tools:
    (tmp_path / "polqa.py").write_text(program)
    command = (sys.executable, "polqa.py", "-r", "{clean}", "-d", "{enhanced}")
    options = settings.Evaluate(polqa=settings.Polqa(command, **more))
    return tools.find(options, ("polqa",), tmp_path)


PRINTS = """
import sys, soundfile
(clean, rate), (enhanced, same) = (soundfile.read(sys.argv[place]) for place in (2, 4))
assert rate == same == 48000 and len(clean) == len(enhanced) == 48000
print("P.863 (superwideband)")
print(f"MOS-LQO = {1 + abs(enhanced).max():.4f}")
"""


def test_the_score_is_what_the_program_prints(tmp_path):
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    found = polqa_tools(tmp_path, PRINTS)
    row = score_pair(wave, wave, wave, RATE, ("polqa",), tools=found)
    assert row["polqa"] == pytest.approx(1.5, abs=2e-3)
    assert found.version("polqa").startswith("program ")
    (tmp_path / "polqa.py").write_text(PRINTS + "# 2.0")
    assert found.version("polqa") != polqa_tools(tmp_path, PRINTS).version("polqa")


@pytest.mark.parametrize(
    ("program", "more", "reason"),
    [
        ("print('no licence')", {}, "no score in the program's output"),
        ("raise SystemExit('no licence')", {}, "its program failed (exit code 1): no licence"),
        ("print('4.5')", {"pattern": "["}, "no score in the program's output"),
        ("import time; time.sleep(60)", {"timeout_seconds": 0.2}, "took longer than"),
    ],
)
def test_a_program_that_gives_no_score_is_a_gap(tmp_path, program, more, reason):
    wave = np.ones(RATE, np.float32) / 2
    with pytest.raises(Missing) as caught:
        polqa.polqa(wave, wave, wave, RATE, tools=polqa_tools(tmp_path, program, **more))
    assert reason in caught.value.reason and not caught.value.lasting
