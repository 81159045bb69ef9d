"""Corpus `demo`: built in, synthesised, needs no download.

Speech is espeak-ng in fifteen voices, split by voice, reading `sources/demo/sentences.txt`; no sentence is in
two splits. Noises are of six kinds, with a recording of its own for each split; babble comes from further
voices. The same seed and the same versions give the same bytes. What is trained on it shows that the
pipeline works, not how good a method is: real speech is richer than these voices.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffse import audio
from diffse.data.corpora import demo_noises, espeak
from diffse.data.manifest import SPLITS
from diffse.data.parallel import Workers
from diffse.data.recordings import Noise, Recordings, Speech
from diffse.errors import DiffseError
from diffse.progress import tqdm
from diffse.settings import DemoCorpus

SENTENCES = "sentences.txt"
SENTENCE_SHARES = {"train": 0.6, "valid": 0.17, "test": 0.23}
SPEECH_DBFS = (-30.0, -18.0)  # RMS of an utterance, drawn uniformly
NOISE_DBFS = -26.0
_PEAK = 0.95
_EDGE = 0.1  # s of silence before and behind an utterance
_TALKERS = 4  # voices in a babble
_SENTENCE_SECONDS = 2.0  # shortest that a babble counts on


@dataclass(frozen=True)
class Voice:
    """A speaker: an espeak-ng voice with variant, its pitch, intonation range and words per minute."""

    name: str
    gender: str
    split: str
    espeak: str
    pitch: int
    range: int
    speed: int


VOICES = (
    Voice("ada", "f", "train", "en-us+f2", 50, 50, 165),
    Voice("ben", "m", "train", "en-us+m3", 40, 55, 160),
    Voice("cara", "f", "train", "en-gb-x-rp+f4", 38, 60, 170),
    Voice("dan", "m", "train", "en-gb-x-rp+m7", 30, 40, 155),
    Voice("ella", "f", "train", "en-gb-scotland+f5", 60, 65, 175),
    Voice("finn", "m", "train", "en-gb-scotland+m1", 62, 60, 170),
    Voice("gail", "f", "train", "en-029+Annie", 45, 50, 160),
    Voice("hugh", "m", "train", "en-029+adam", 25, 45, 150),
    Voice("iris", "f", "train", "en-us-nyc+linda", 42, 70, 180),
    Voice("jack", "m", "train", "en-gb-x-gbclan+m6", 75, 50, 165),
    Voice("kate", "f", "valid", "en-us+belinda", 48, 55, 168),
    Voice("liam", "m", "valid", "en-gb-x-rp+Alex", 52, 50, 160),
    Voice("mona", "f", "test", "en-gb-scotland+shelby", 50, 60, 170),
    Voice("nick", "m", "test", "en-us+edward", 45, 50, 158),
    Voice("opal", "f", "test", "en-us-nyc+f1", 68, 55, 165),
)

# Voices that speak in the babble of a split and nowhere else.
BABBLE = {
    "train": ("en-us+m2", "en-gb-x-rp+f3", "en-029+m4", "en-gb-scotland+grandma"),
    "valid": ("en-us+Denis", "en-gb-x-rp+Alicia", "en-gb-scotland+michel", "en-029+aunty"),
    "test": ("en-us+Lee", "en-gb-x-rp+Andrea", "en-gb-scotland+norbert", "en-029+Reed"),
}


@dataclass(frozen=True)
class _Reading:
    """One voice and what it reads, each line into a file of its own."""

    espeak: str
    lines: list[espeak.Line]
    levels: list[float]  # RMS of each line, dBFS
    paths: list[Path]
    rate: int


@dataclass(frozen=True)
class _NoiseJob:
    """One noise recording to be made."""

    kind: str
    path: Path
    seed: tuple[int, ...]
    seconds: float
    rate: int
    talkers: list[list[Path]]  # for babble: the utterances of each voice


def find(settings: DemoCorpus, source: Path, workspace: Path, workers: Workers) -> Recordings:
    """Synthesise the corpus into `workspace` and list it.

    DiffseError: espeak-ng is not installed, the text list is missing or too short.
    """
    espeak.require()
    texts = _texts(settings, source / SENTENCES)
    speech = [item for voice in VOICES for item in _utterances(settings, voice, workspace)]
    readings = [_reading(settings, voice, texts[voice.split], workspace) for voice in VOICES]
    noises, jobs, babblers = [], [], []
    for split in SPLITS:
        talkers = [_talker(settings, split, number, texts[split], workspace) for number in range(_TALKERS)]
        babblers += talkers
        for kind in ("babble", *demo_noises.MAKERS):
            job = _noise_job(settings, kind, split, workspace, [talker.paths for talker in talkers])
            jobs.append(job)
            noises.append(Noise(split, kind, job.path, job.path.relative_to(workspace).as_posix()))
    for function, items in ((_read_out, readings + babblers), (_make_noise, jobs)):
        done = workers.map(function, items)
        for _ in tqdm(done, "synthesise", len(items), unit="recording", disable=None):
            pass
    return Recordings(speech, noises)


# ---------------------------------------------------------------------------------------------- speech


def _texts(settings: DemoCorpus, path: Path) -> dict[str, list[str]]:
    """Sentences of each split, in an order that the seed decides."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DiffseError(f"{path}: no such file; it holds the demo corpus's sentences, one a line") from None
    except UnicodeDecodeError:
        raise DiffseError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    sentences = sorted({line.strip() for line in lines if line.strip() and not line.startswith("#")})
    order = [sentences[k] for k in _rng(settings.seed, "sentences").permutation(len(sentences))]
    texts, start = {}, 0
    for split in SPLITS:
        count = int(SENTENCE_SHARES[split] * len(order))
        texts[split] = order[start : start + count]
        start += count
        if count < settings.utterances_per_voice:
            raise DiffseError(
                f"{path}: gives {count} sentences to '{split}', fewer than utterances_per_voice "
                f"({settings.utterances_per_voice}); add sentences or lower the setting"
            )
    return texts


def _speech_path(voice: Voice, number: int) -> str:
    return f"speech/{voice.name}/{voice.name}_{number:03d}.wav"


def _utterances(settings: DemoCorpus, voice: Voice, workspace: Path) -> list[Speech]:
    names = [_speech_path(voice, number) for number in range(1, settings.utterances_per_voice + 1)]
    return [
        Speech(Path(name).stem, voice.split, voice.name, workspace / name, name, voice.gender) for name in names
    ]


def _reading(settings: DemoCorpus, voice: Voice, texts: list[str], workspace: Path) -> _Reading:
    """A voice reads different sentences of its split, a little higher or faster each time."""
    rng = _rng(settings.seed, f"voice {voice.name}")
    order = rng.permutation(len(texts))[: settings.utterances_per_voice]
    lines, levels = [], []
    for k in order:  # all that a line draws is drawn before the next, so that more lines change none of them
        pitch = voice.pitch + int(rng.integers(-4, 5))
        speed = round(voice.speed * rng.uniform(0.92, 1.08))
        lines.append(espeak.Line(texts[k], int(rng.integers(1, 1 << 31)), pitch, voice.range, speed))
        levels.append(float(rng.uniform(*SPEECH_DBFS)))
    paths = [workspace / _speech_path(voice, number) for number in range(1, len(lines) + 1)]
    return _Reading(voice.espeak, lines, levels, paths, settings.rate)


def _talker(settings: DemoCorpus, split: str, number: int, texts: list[str], workspace: Path) -> _Reading:
    """A voice of a babble reads enough for the whole noise."""
    rng = _rng(settings.seed, f"babble {split} {number}")
    count = min(len(texts), int(np.ceil(settings.noise_seconds / _SENTENCE_SECONDS)))
    lines = [
        espeak.Line(texts[k], int(rng.integers(1, 1 << 31)), int(rng.integers(35, 66)))
        for k in rng.permutation(len(texts))[:count]
    ]
    folder = workspace / "babble" / f"{split}_{number}"
    paths = [folder / f"{k:03d}.wav" for k in range(count)]
    return _Reading(BABBLE[split][number], lines, [NOISE_DBFS] * count, paths, settings.rate)


def _read_out(reading: _Reading) -> None:
    waves, rate = espeak.speak(reading.espeak, reading.lines)
    for wave, level, path in zip(waves, reading.levels, reading.paths, strict=True):
        _save(path, audio.resample(_trimmed(wave, rate), rate, reading.rate), level, reading.rate)


def _trimmed(wave: np.ndarray, rate: int) -> np.ndarray:
    """With a tenth of a second of silence on both sides, whatever espeak-ng leaves there."""
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.max(np.abs(wave), initial=0.0))
    if loud.size == 0:
        raise DiffseError(
            "espeak-ng gave no sound; install the version of espeakng-loader in requirements.lock"
        )
    return np.pad(wave[loud[0] : loud[-1] + 1], int(_EDGE * rate))


# ---------------------------------------------------------------------------------------------- noises


def _noise_job(
    settings: DemoCorpus, kind: str, split: str, workspace: Path, talkers: list[list[Path]]
) -> _NoiseJob:
    path = workspace / "noise" / kind / f"{kind}_{split}.wav"
    seed = _seed(settings.seed, f"noise {kind} {split} 0")
    return _NoiseJob(
        kind, path, seed, settings.noise_seconds, settings.rate, talkers if kind == "babble" else []
    )


def _make_noise(job: _NoiseJob) -> None:
    rng = np.random.default_rng(job.seed)
    n = int(job.seconds * job.rate)
    if job.kind == "babble":
        talkers = [[audio.read(path)[0][0] for path in paths] for paths in job.talkers]
        wave = demo_noises.babble(rng, n, talkers)
    else:
        wave = demo_noises.MAKERS[job.kind](rng, n, job.rate)
    _save(job.path, wave, NOISE_DBFS, job.rate)


def _save(path: Path, wave: np.ndarray, level_dbfs: float, rate: int) -> None:
    """Write 16 bits at a level, or below it where the peak would clip.

    Rounding to 16 bits also hides the last-bit differences between processors in sines and resampling.
    """
    gain = 10.0 ** (level_dbfs / 20.0) / np.sqrt(np.mean(np.square(wave, dtype=np.float64)))
    gain = min(gain, _PEAK / np.max(np.abs(wave)))
    audio.write(path, (np.rint(wave * gain * (1 << 15)) / (1 << 15)).astype(np.float32), rate, "PCM_16")


def _rng(seed: int, what: str) -> np.random.Generator:
    return np.random.default_rng(_seed(seed, what))


def _seed(seed: int, what: str) -> tuple[int, ...]:
    digest = hashlib.sha256(f"{seed}:{what}".encode()).digest()
    return tuple(int.from_bytes(digest[k : k + 4], "little") for k in range(0, 32, 4))
