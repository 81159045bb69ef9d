"""Clean speech of EARS, for the corpora that are made of it: 107 speakers in an anechoic chamber at 48 kHz.

Long recordings of the training and validation speakers are cut into pieces; those of the test speakers at the
times of `test_files.json`, which the benchmark publishes. Sounds that are not speech are left out.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from diffse import audio
from diffse.data import conditioning, levels
from diffse.data.corpora.facts import Download, Part
from diffse.data.corpora.trees import child, relative
from diffse.data.parallel import Workers
from diffse.data.recordings import Rejected, Speech
from diffse.errors import DiffseError
from diffse.progress import tqdm
from diffse.settings_corpora import EarsCut

log = logging.getLogger(__name__)

SPEAKERS = tuple(f"p{number:03d}" for number in range(1, 108))
SPLIT_SPEAKERS = {"valid": SPEAKERS[99:101], "test": SPEAKERS[101:]}
HELD_OUT = ("interjection", "melodic", "nonverbal", "vegetative")
HOURS = 100.0
TEST_PIECES = 886  # of the second version of the benchmark
CUTS = "test_files.json"
_FOLDER = "EARS"
_MAX_TEST_SECONDS = 29.0
_RAMP = 0.01  # s, at the cuts of the test pieces
_RELEASE = "https://github.com/facebookresearch/ears_dataset/releases/download/dataset"
_BENCHMARK = "https://raw.githubusercontent.com/sp-uhh/ears_benchmark"
_REVISION = "36dc8a88cb2ebf7cc746b51cf2b876bb570bc3e0"

PART = Part(
    folder=_FOLDER,
    title="EARS",
    home="https://github.com/facebookresearch/ears_dataset",
    licence="CC BY-NC 4.0",
    citation="J. Richter et al., EARS: an anechoic fullband speech dataset benchmarked for speech enhancement "
    "and dereverberation, Interspeech 2024",
    layout=("EARS/p001/rainbow_01_regular.wav, ... EARS/p107/...", "test_files.json (beside EARS)"),
    downloads=(
        *(
            Download(f"{name}.zip", f"{_RELEASE}/{name}.zip", unpack=_FOLDER, gives=f"{_FOLDER}/{name}")
            for name in SPEAKERS
        ),
        Download(CUTS, f"{_BENCHMARK}/{_REVISION}/{CUTS}", gives=CUTS),
    ),
)


def missing(source: Path, complete: bool) -> list[str]:
    """Which speakers are not there: all are needed, or (not `complete`) one of each split."""
    if not child(source, _FOLDER).is_dir():
        return [f"there is no folder {_FOLDER}"]
    lacks = [] if child(source, CUTS).is_file() else [f"there is no {CUTS}, which says where the test is cut"]
    absent = [name for name in SPEAKERS if not child(source, _FOLDER, name).is_dir()]
    if complete and absent:
        named = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        lacks.append(f"{_FOLDER} lacks {len(absent)} of {len(SPEAKERS)} speakers ({named})")
    there = {split_of(name) for name in SPEAKERS if name not in absent}
    return lacks + [
        f"{_FOLDER} has no speaker of {split}" for split in ("train", "valid", "test") if split not in there
    ]


def split_of(speaker: str) -> str:
    """Split of a speaker."""
    return next((split for split, names in SPLIT_SPEAKERS.items() if speaker in names), "train")


def find(cut: EarsCut, source: Path, workers: Workers) -> tuple[list[Speech], list[Rejected]]:
    """Pieces of all speakers, and the files that cannot be read.

    Pieces quieter than `cut.min_loudness` are left out, and counted in the log; whispering ones are kept.
    """
    folders = [child(source, _FOLDER, name) for name in SPEAKERS]
    cuts, genders = _cuts(child(source, CUTS)), _genders(child(source, _FOLDER, "speaker_statistics.json"))
    jobs = [
        _File(path, relative(path, source), name, genders.get(name, ""), cuts.get(name, {}).get(path.stem), cut)
        for name, folder in zip(SPEAKERS, folders, strict=True)
        for path in (sorted(folder.glob("*.wav")) if folder.is_dir() else ())
        if not path.name.startswith(HELD_OUT)
    ]
    speech, rejected, quiet = [], [], 0
    results = workers.map(pieces, jobs, chunk=8)
    for found in tqdm(results, "cut EARS", len(jobs), unit="file", disable=None):
        if isinstance(found, Rejected):
            rejected.append(found)
        else:
            speech += found.loud
            quiet += found.quiet
    log.info("EARS: %d pieces, %d quieter than %g LUFS left out", len(speech), quiet, cut.min_loudness)
    return _with_test_snr(speech, cut), rejected


@dataclass(frozen=True)
class _File:
    """One recording, with the published cuts of a test speaker's."""

    path: Path
    source: str
    speaker: str
    gender: str
    cuts: list | None
    cut: EarsCut


@dataclass(frozen=True)
class Pieces:
    """What a recording gives."""

    loud: list[Speech]
    quiet: int  # pieces that are left out


def pieces(file: _File) -> Pieces | Rejected:
    """The pieces of a recording that are used."""
    try:
        header = audio.info(file.path)
        test = split_of(file.speaker) == "test"
        spans = list(_published(file, header) if test else _regular(file.cut, header))
        loud = _loud_enough(file, spans)
    except audio.AudioError as error:
        return Rejected(file.source, error.reason)
    kept = [
        Speech(
            f"{file.speaker}_{file.path.stem}_{number:02d}",
            split_of(file.speaker),
            file.speaker,
            file.path,
            file.source,
            gender=file.gender,
            start=start,
            samples=stop - start,
            highpass_hz=file.cut.highpass_hz,
            ramp=_RAMP if test else 0.0,
        )
        for number, (start, stop) in enumerate(spans)
        if loud[number]
    ]
    return Pieces(kept, len(spans) - len(kept))


def _regular(cut: EarsCut, header: audio.Info) -> Iterator[tuple[int, int]]:
    """Pieces of `cut.seconds` for as long as `cut.min_seconds` are left behind it, then what is left."""
    length, least, start = round(cut.seconds * header.rate), round(cut.min_seconds * header.rate), 0
    while header.samples - start >= length + least:
        yield start, start + length
        start += length
    if header.samples - start >= least:
        yield start, header.samples


def _published(file: _File, header: audio.Info) -> Iterator[tuple[int, int]]:
    """Published cuts are slices of samples: an end may be missing or count from behind."""
    for start, stop in file.cuts or ():
        first, last, _ = slice(start, stop).indices(header.samples)
        if 0 < last - first <= _MAX_TEST_SECONDS * header.rate:
            yield first, last


def _loud_enough(file: _File, spans: list[tuple[int, int]]) -> list[bool]:
    if file.cut.min_loudness <= -70.0 or "whisper" in file.path.stem or not spans:
        return [True] * len(spans)
    wave, rate = audio.read(file.path)
    clean = conditioning.highpass(wave[0], rate, file.cut.highpass_hz) if file.cut.highpass_hz else wave[0]
    return [_loudness(clean[start:stop], rate) >= file.cut.min_loudness for start, stop in spans]


def _loudness(wave: np.ndarray, rate: int) -> float:
    try:
        return levels.loudness(wave, rate)
    except ValueError:  # below the gate of BS.1770
        return -np.inf


def _with_test_snr(speech: list[Speech], cut: EarsCut) -> list[Speech]:
    """Test pieces with an SNR of their own, spread evenly over each style: the k-th of a style in bin k of 12.

    As the benchmark stratifies; which piece gets which bin follows from its name here.
    """
    if cut.test_bins == 0:
        return speech
    low, high = cut.test_snr_db
    seen: dict[str, int] = {}
    settled = []
    for item in sorted(speech, key=lambda piece: piece.id):
        if item.split == "test":
            style = item.source.rpartition("/")[2].removeprefix("emo_").split("_")[0]
            seen[style] = seen.get(style, -1) + 1
            rng = np.random.default_rng(list(item.id.encode()))
            place = (seen[style] % cut.test_bins + rng.uniform()) / cut.test_bins
            item = replace(item, snr_db=round(low + place * (high - low), 1))
        settled.append(item)
    return settled


def _cuts(path: Path) -> dict[str, dict[str, list]]:
    """Speaker -> recording -> [[first sample, last sample], ...]."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DiffseError(f"{path}: not the cutting times of EARS ({error}); fetch it again") from None


def _genders(path: Path) -> dict[str, str]:
    """Speaker -> "f" or "m", where the data set's statistics lie beside it."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    pairs = (
        (name, str(facts.get("gender", "")).lower()[:1])
        for name, facts in told.items()
        if isinstance(facts, dict)
    )
    return {name: gender for name, gender in pairs if gender in ("f", "m")}
