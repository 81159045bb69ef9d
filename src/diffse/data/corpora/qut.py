"""Noise of QUT-NOISE, 48 kHz: café, home, street and car.

The papers draw the noise of all splits from one session of one place each. Here the splits have sessions of
their own: training and test share the places, not the sessions; validation has other places.
`noises: shared` is the published form.
"""

from pathlib import Path

from diffse.data.corpora.facts import Part
from diffse.data.corpora.trees import files, relative
from diffse.data.manifest import SPLITS
from diffse.data.recordings import Noise

SESSIONS = {
    "train": {
        "cafe": "CAFE-CAFE-1",
        "car": "CAR-WINDOWNB-1",
        "home": "HOME-KITCHEN-1",
        "street": "STREET-CITY-1",
    },
    "valid": {
        "cafe": "CAFE-FOODCOURTB-1",
        "car": "CAR-WINUPB-1",
        "home": "HOME-LIVINGB-1",
        "street": "STREET-KG-1",
    },
    "test": {
        "cafe": "CAFE-CAFE-2",
        "car": "CAR-WINDOWNB-2",
        "home": "HOME-KITCHEN-2",
        "street": "STREET-CITY-2",
    },
}
CAR_ENDS = 120.0  # s at both ends of a car recording in which the car does not drive

PART = Part(
    folder="qut",
    title="QUT-NOISE",
    home="https://research.qut.edu.au/saivt/databases/qut-noise-databases-and-protocols/",
    licence="CC BY-SA",
    citation="D. Dean et al., The QUT-NOISE-SRE protocol for the evaluation of noisy speaker recognition, "
    "Interspeech 2015",
    layout=("qut/**/CAFE-CAFE-1.wav, CAFE-CAFE-2.wav, ... (48 kHz, two channels; the first is used)",),
)


def sessions(noises: str) -> dict[str, dict[str, str]]:
    """Split -> kind -> recording."""
    return dict.fromkeys(SPLITS, SESSIONS["train"]) if noises == "shared" else SESSIONS


def missing(source: Path, noises: str) -> list[str]:
    """Which recordings are not there."""
    if not (source / PART.folder).is_dir():
        return [f"there is no folder {PART.folder}"]
    there = set(_by_name(source))
    wanted = {name for kinds in sessions(noises).values() for name in kinds.values()}
    return [f"{PART.folder} holds no {name}.wav" for name in sorted(wanted - there)]


def find(source: Path, noises: str, car_ends: float = CAR_ENDS) -> list[Noise]:
    """The recordings of each split; the ends of those in a car are left out."""
    paths = _by_name(source)
    return [
        Noise(
            split,
            kind,
            paths[name],
            relative(paths[name], source),
            start=car_ends if kind == "car" else 0.0,
            stop=car_ends if kind == "car" else 0.0,
        )
        for split, kinds in sessions(noises).items()
        for kind, name in kinds.items()
        if name in paths
    ]


def _by_name(source: Path) -> dict[str, Path]:
    return {path.stem.upper(): path for path in files(source / PART.folder, (".wav", ".flac"))}
