"""Corpus `ears_wham`: EARS in the noise of WHAM!48kHz, versions 1 and 2, at 16 or 48 kHz.

SNRs are differences of loudness (BS.1770), raised where the mixture would clip. Version 2 filters the speech
and leaves out what is too quiet; version 1 drew the noise of all splits from one pool (`noises: shared`).
"""

import csv
from pathlib import Path

from diffse.data.corpora import ears
from diffse.data.corpora.facts import Download, Expected, Facts, Part
from diffse.data.corpora.trees import child, relative
from diffse.data.manifest import SPLITS
from diffse.data.parallel import Workers
from diffse.data.recordings import ANY_CHANNEL, Noise, Recordings, Rejected
from diffse.settings_corpora import EarsWham

_FOLDER = "WHAM48kHz"
_TABLE = ("high_res_wham", "high_res_metadata.csv")
_AUDIO = ("high_res_wham", "audio")
_COLUMNS = ("Filename", "WHAM! Split")

PART = Part(
    folder=_FOLDER,
    title="WHAM!48kHz",
    home="https://wham.whisper.ai",
    licence="CC BY-NC 4.0",
    citation="G. Wichern et al., WHAM!: extending speech separation to noisy environments, Interspeech 2019",
    layout=("WHAM48kHz/high_res_wham/high_res_metadata.csv", "WHAM48kHz/high_res_wham/audio/*.wav"),
    downloads=(
        Download(
            "high_res_wham.zip",
            "https://my-bucket-a8b4b49c25c811ee9a7e8bba05fa24c7.s3.amazonaws.com/high_res_wham.zip",
            unpack=_FOLDER,
            gives=f"{_FOLDER}/high_res_wham",
        ),
    ),
)


def facts(settings: EarsWham) -> Facts:
    """Nobody publishes the counts but of the test set, and that of version 2 alone."""
    second = settings.cut.highpass_hz > 0 and settings.cut.min_loudness > -70.0
    expected = {"test": Expected(ears.TEST_PIECES, exact=False)} if second else {}
    return Facts("EARS-WHAM", (ears.PART, PART), expected, "EDM2SE, SGMSE+ at 48 kHz")


def missing(settings: EarsWham, source: Path) -> list[str]:
    """What the source folder lacks."""
    lacks = ears.missing(source, settings.complete)
    top = child(source, _FOLDER)
    if not top.is_dir():
        return [*lacks, f"there is no folder {_FOLDER}"]
    for names in (_TABLE, _AUDIO):
        if not child(top, *names).exists():
            lacks.append(f"{_FOLDER} holds no {'/'.join(names)}")
    return lacks


def find(settings: EarsWham, source: Path, workspace: Path, workers: Workers) -> Recordings:
    """List the pieces of speech and the noise recordings with their splits."""
    speech, rejected = ears.find(settings.cut, source, workers)
    noise, absent = _noises(settings, source)
    return Recordings(speech, noise, rejected=rejected + absent)


def _noises(settings: EarsWham, source: Path) -> tuple[list[Noise], list[Rejected]]:
    """Recordings in the split that WHAM! gives them, or in all; those that are listed but not there."""
    noises, absent = [], []
    folder = child(source, _FOLDER, *_AUDIO)
    with open(child(source, _FOLDER, *_TABLE), newline="", encoding="utf-8", errors="replace") as stream:
        rows = [
            (row.get(_COLUMNS[0]) or "", (row.get(_COLUMNS[1]) or "").lower()) for row in csv.DictReader(stream)
        ]
    for name, split in rows:
        path = folder / Path(name).name  # a name in the table must not lead out of the folder
        if not name or split not in SPLITS:
            continue
        if not path.is_file():
            absent.append(Rejected(relative(path, source), f"is not there, but {_TABLE[-1]} lists it"))
            continue
        splits = SPLITS if settings.noises == "shared" else (split,)
        noises += [Noise(one, "wham", path, relative(path, source), channel=ANY_CHANNEL) for one in splits]
    return noises, absent
