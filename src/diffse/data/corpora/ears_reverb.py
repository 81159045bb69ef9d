"""Corpus `ears_reverb`: EARS in measured rooms, whose responses come from seven public data sets.

The data sets of training, validation and test are different ones, so no room is in two splits. Responses are
read as wav or flac. BRUDEX and dEchorate are published as mat and sofa files: converted to wav beside them they
are used, and without them the other data sets are enough.
"""

import hashlib
from pathlib import Path

from diffse.data.corpora import ears
from diffse.data.corpora.facts import Facts, Part
from diffse.data.corpora.trees import child, files, relative
from diffse.data.parallel import Workers
from diffse.data.recordings import ANY_CHANNEL, Recordings, Rir
from diffse.settings_corpora import EarsReverb

# Data set -> (split, folder of its responses)
DATA_SETS = {
    "ARNI": ("train", ""),
    "BRUDEX": ("train", "rir"),
    "dEchorate": ("train", ""),
    "DetmoldSRIR": ("train", "SetA_SingleSources/Data"),
    "Palimpsest": ("train", ""),
    "AIR": ("valid", ""),
    "ACE-Challenge": ("test", ""),
}
ARNI = "ARNI"
DAMAGED = "IR_numClosed_28_numComb_2743_mic_4_sweep_5"  # of ARNI
RESPONSES_OF_ARNI = 132037

PART = Part(
    folder="",
    title="measured room responses",
    home="https://github.com/sp-uhh/ears_benchmark",
    licence="each its own, most CC BY 4.0",
    citation="J. Richter et al., EARS, Interspeech 2024, section 4, names the seven data sets",
    layout=tuple(f"{name}/{folder or '**'}/*.wav ({split})" for name, (split, folder) in DATA_SETS.items()),
)


def facts(settings: EarsReverb) -> Facts:
    """Nobody publishes the counts."""
    return Facts("EARS-Reverb", (ears.PART, PART), {}, "SGMSE+ at 48 kHz")


def missing(settings: EarsReverb, source: Path) -> list[str]:
    """What the source folder lacks: speakers, and a data set of each split."""
    there = {split for name, (split, folder) in DATA_SETS.items() if _has_files(child(source, name), folder)}
    lacks = ears.missing(source, settings.complete)
    for wanted in ("train", "valid", "test"):
        if wanted not in there:
            names = " or ".join(name for name, (split, _) in DATA_SETS.items() if split == wanted)
            lacks.append(f"there are no wav files of room responses in {names}, which {wanted} is made of")
    return lacks


def find(settings: EarsReverb, source: Path, workspace: Path, workers: Workers) -> Recordings:
    """List the pieces of speech and the responses with their splits."""
    speech, rejected = ears.find(settings.cut, source, workers)
    rirs = [rir for name in DATA_SETS for rir in _responses(settings, source, name)]
    return Recordings(speech, rirs=rirs, rejected=rejected)


def _has_files(top: Path, folder: str) -> bool:
    return next(files(child(top, *folder.split("/")) if folder else top, (".wav", ".flac")), None) is not None


def _responses(settings: EarsReverb, source: Path, name: str) -> list[Rir]:
    """Responses of a data set; a room is the folder that holds them."""
    split, folder = DATA_SETS[name]
    top = child(source, name, *folder.split("/")) if folder else child(source, name)
    paths = [path for path in files(top, (".wav", ".flac")) if path.stem != DAMAGED]
    if name == ARNI:  # one room in thousands of states
        paths = sorted(paths, key=lambda path: _rank(settings.seed, relative(path, source)))[
            : settings.arni_responses
        ]
        return [Rir(split, ARNI, path, relative(path, source), ANY_CHANNEL) for path in sorted(paths)]
    return [
        Rir(split, relative(path.parent, source), path, relative(path, source), ANY_CHANNEL) for path in paths
    ]


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
