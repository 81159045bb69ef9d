"""Noise of CHiME-3: backgrounds in a bus, a café, a pedestrian area and a street, six channels at 16 kHz.

The published scripts draw the noise of all splits from one pool, so that a system is tested on noise it was
trained on. Here each recording belongs to one split, by its number; `noises: shared` is the published form.
"""

import re
from pathlib import Path

from diffse.data.corpora.facts import Part
from diffse.data.corpora.trees import files, folders_named, relative
from diffse.data.manifest import SPLITS
from diffse.data.recordings import Noise

ENVIRONMENTS = {"BUS": "bus", "CAF": "cafe", "PED": "pedestrian", "STR": "street"}
# The second number of a recording is its own within its environment: 17 recordings, 8 h in all.
SPLIT_OF_NUMBER = {"010": "train", "020": "train", "030": "valid", "040": "test", "050": "train"}
RECORDINGS = 17
_NAME = re.compile(r"bgd_\d{6}_(\d{3})_([a-z]{3})\.ch(\d)\.(?:wav|flac)", re.IGNORECASE)

PART = Part(
    folder="chime3",
    title="CHiME-3 backgrounds",
    home="https://catalog.ldc.upenn.edu/LDC2017S24",
    licence="LDC user agreement, to be asked for",
    citation="J. Barker, R. Marxer, E. Vincent, S. Watanabe, The third 'CHiME' speech separation and "
    "recognition challenge, ASRU 2015",
    layout=("chime3/**/backgrounds/BGD_150204_010_BUS.CH1.wav",),
)


def missing(source: Path, channel: int, noises: str) -> list[str]:
    """Which environments are not there."""
    top = source / PART.folder
    if not top.is_dir():
        return [f"there is no folder {PART.folder}"]
    if not folders_named(top, "backgrounds"):
        return [f"{PART.folder} holds no folder backgrounds"]
    found = {(noise.split, noise.kind) for noise in find(source, channel, noises)}
    wanted = [(split, kind) for split in SPLITS for kind in ENVIRONMENTS.values()]
    return [
        f"{PART.folder} has no {kind} noise for {split} in channel {channel}"
        for split, kind in wanted
        if (split, kind) not in found
    ]


def find(source: Path, channel: int, noises: str) -> list[Noise]:
    """The recordings of one channel (from 1), each in its split, or in all of them (`noises` "shared")."""
    found = []
    for folder in folders_named(source / PART.folder, "backgrounds"):
        for path in files(folder, (".wav", ".flac")):
            match = _NAME.fullmatch(path.name)
            if not match or int(match[3]) != channel or match[2].upper() not in ENVIRONMENTS:
                continue
            splits = SPLITS if noises == "shared" else (SPLIT_OF_NUMBER.get(match[1], "train"),)
            kind = ENVIRONMENTS[match[2].upper()]
            found += [Noise(split, kind, path, relative(path, source)) for split in splits]
    return found
