"""Corpus `ntcd_timit`: TCD-TIMIT's speech with the noisy versions that NTCD-TIMIT publishes (ready pairs).

56 volunteers read 98 sentences each; every sentence is there in six noises at six SNRs. The papers test on five
sentences of each of nine speakers in every noise at -5, 0 and 5 dB (810 pairs), without saying which; here they
are drawn, and no sentence of a speaker is taken twice before all are used.
"""

import hashlib
from pathlib import Path

from diffse.data.corpora.facts import Expected, Facts, Part
from diffse.data.corpora.trees import child, files, folders_named, relative
from diffse.data.manifest import SPLITS
from diffse.data.parallel import Workers
from diffse.data.recordings import Recordings, Rejected, Speech
from diffse.settings_corpora import NtcdTimit

TEST_SPEAKERS = ("09F", "24M", "26M", "27M", "33F", "40F", "47M", "49F", "56M")
# The publication keeps eight of the others for validation without naming them; diffse spreads them evenly.
SPEAKERS = {"train": 39, "valid": 8, "test": 9}
NOISES = ("Babble", "Cafe", "Car", "LR", "Street", "White")  # LR: living room

PART = Part(
    folder="",
    title="NTCD-TIMIT",
    home="https://zenodo.org/records/260228",
    licence="CC BY-NC 4.0; TCD-TIMIT, of which it is made, asks to be registered for",
    citation="A. H. Abdelaziz, NTCD-TIMIT: a new database and baseline for noise-robust audio-visual speech "
    "recognition, Interspeech 2017",
    layout=("clean/volunteers/01M/straightcam/si1234.wav", "Babble/-5/volunteers/01M/straightcam/si1234.wav"),
)


def facts(settings: NtcdTimit) -> Facts:
    """Counts follow from the settings: the same sentences for each speaker and condition."""
    conditions = len(settings.noise_kinds) * len(settings.levels_db)
    expected = {
        split: Expected(SPEAKERS[split] * conditions * getattr(settings.per_condition, split))
        for split in SPLITS
    }
    return Facts("NTCD-TIMIT", (PART,), expected, "UDiffSE, weighted loss")


def missing(settings: NtcdTimit, source: Path) -> list[str]:
    """What the source folder lacks."""
    unknown = sorted(set(settings.noise_kinds) - set(NOISES))
    if unknown:
        return [f"noise_kinds names {', '.join(unknown)} (there are {', '.join(NOISES)})"]
    wanted = [
        ("clean",),
        *((kind, str(level)) for kind in settings.noise_kinds for level in settings.levels_db),
    ]
    return [
        f"there is no folder {'/'.join(names)}/volunteers"
        for names in wanted
        if not child(source, *names, "volunteers").is_dir()
    ]


def find(settings: NtcdTimit, source: Path, workspace: Path, workers: Workers) -> Recordings:
    """List `per_condition` pairs of each speaker in each noise at each level."""
    found = Recordings()
    folders = sorted(path for path in child(source, "clean", "volunteers").iterdir() if path.is_dir())
    splits = split_of([folder.name.upper() for folder in folders])
    for folder in folders:
        _add_speaker(settings, source, folder, splits[folder.name.upper()], found)
    return found


def split_of(speakers: list[str]) -> dict[str, str]:
    """Speaker -> split: the published test speakers, and eight of the others, evenly spread, for validation."""
    others = sorted(set(speakers) - set(TEST_SPEAKERS))
    count = min(
        len(others), max(1, round(len(others) * SPEAKERS["valid"] / (SPEAKERS["train"] + SPEAKERS["valid"])))
    )
    valid = {others[k * len(others) // count] for k in range(count)} if others else set()
    return {
        name: "test" if name in TEST_SPEAKERS else "valid" if name in valid else "train" for name in speakers
    }


def _add_speaker(settings: NtcdTimit, source: Path, folder: Path, split: str, found: Recordings) -> None:
    speaker = folder.name.upper()
    clean = {path.stem.lower(): path for path in _recordings(folder)}
    order = sorted(
        clean, key=lambda name: hashlib.sha256(f"{settings.seed}:{speaker}:{name}".encode()).hexdigest()
    )
    place, count = 0, getattr(settings.per_condition, split)
    for kind in settings.noise_kinds:
        for level in settings.levels_db:
            there = child(source, kind, str(level), "volunteers", folder.name)
            noisy = {path.stem.lower(): path for path in _recordings(there)}
            for name in (order[(place + k) % len(order)] for k in range(min(count, len(order)))):
                _add_pair(source, (speaker, split, kind, level), clean[name], noisy.get(name), found)
            place += count


def _add_pair(source: Path, condition: tuple, clean: Path, noisy: Path | None, found: Recordings) -> None:
    speaker, split, kind, level = condition
    named = relative(clean, source)
    if noisy is None:
        found.rejected.append(Rejected(named, f"has no noisy version in {kind} at {level} dB"))
        return
    found.speech.append(
        Speech(
            f"{speaker}_{clean.stem.lower()}_{kind.lower()}_{level}",
            split,
            speaker,
            clean,
            named,
            gender=speaker[-1].lower(),
            noisy_path=noisy,
            noisy_source=relative(noisy, source),
            noise_kind=kind.lower(),
            snr_db=float(level),
        )
    )


def _recordings(folder: Path) -> list[Path]:
    """Recordings of the front camera, where the folder tells cameras apart."""
    front = folders_named(folder, "straightcam", depth=2)
    return list(files(front[0] if front else folder, (".wav", ".flac")))
