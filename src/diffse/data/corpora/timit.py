"""Clean speech of TIMIT with its transcripts.

Training speakers are those of the folder TRAIN; validation and test speakers are the development set and the
core test set that recognition experiments use, which both lie in TEST. The two `SA` sentences, which every
speaker reads, are left out, so that no sentence is in two splits.
"""

from collections.abc import Iterator
from pathlib import Path

from diffse.data.corpora.facts import Expected, Part
from diffse.data.corpora.trees import child, files, folders_named, relative
from diffse.data.recordings import Speech

CORE_TEST = tuple(
    [
        "fdhc0",
        "felc0",
        "fjlm0",
        "fmgd0",
        "fmld0",
        "fnlp0",
        "fpas0",
        "fpkt0",
        "mbpm0",
        "mcmj0",
        "mdab0",
        "mgrt0",
        "mjdh0",
        "mjln0",
        "mjmp0",
        "mklt0",
        "mlll0",
        "mlnt0",
        "mnjm0",
        "mpam0",
        "mtas1",
        "mtls0",
        "mwbt0",
        "mwew0",
    ]
)
DEVELOPMENT = tuple(
    [
        "fadg0",
        "faks0",
        "fcal1",
        "fcmh0",
        "fdac1",
        "fdms0",
        "fdrw0",
        "fedw0",
        "fgjd0",
        "fjem0",
        "fjmg0",
        "fjsj0",
        "fkms0",
        "fmah0",
        "fmml0",
        "fnmr0",
        "frew0",
        "fsem0",
        "majc0",
        "mbdg0",
        "mbns0",
        "mbwm0",
        "mcsh0",
        "mdlf0",
        "mdls0",
        "mdvc0",
        "mers0",
        "mgjf0",
        "mglb0",
        "mgwt0",
        "mjar0",
        "mjfc0",
        "mjsw0",
        "mmdb1",
        "mmdm2",
        "mmjr0",
        "mmwh0",
        "mpdf0",
        "mrcs0",
        "mreb0",
        "mrjm4",
        "mrjr0",
        "mroa0",
        "mrtk0",
        "mrws1",
        "mtaa0",
        "mtdt0",
        "mteb0",
        "mthc0",
        "mwjg0",
    ]
)
SPEAKERS = {"train": 462, "valid": len(DEVELOPMENT), "test": len(CORE_TEST)}
EXPECTED = {"train": Expected(3696, 3.1), "valid": Expected(400, 0.34), "test": Expected(192, 0.16)}
_FOLDERS = {"train": "TRAIN", "valid": "TEST", "test": "TEST"}

PART = Part(
    folder="timit",
    title="TIMIT",
    home="https://catalog.ldc.upenn.edu/LDC93S1",
    licence="LDC user agreement, to be bought",
    citation="J. S. Garofolo et al., TIMIT Acoustic-Phonetic Continuous Speech Corpus LDC93S1, Linguistic Data "
    "Consortium, 1993",
    layout=("timit/**/TRAIN/DR1/FCJF0/SX37.WAV and SX37.TXT", "timit/**/TEST/DR1/FAKS0/SX43.WAV and SX43.TXT"),
)


def missing(source: Path) -> list[str]:
    """Which of the two halves, and which speakers of the smaller splits, are not there."""
    top = source / PART.folder
    if not top.is_dir():
        return [f"there is no folder {PART.folder}"]
    lacks = [
        f"{PART.folder} holds no folder {name}" for name in ("TRAIN", "TEST") if not folders_named(top, name)
    ]
    there = {folder.name.lower() for folder in _speakers(top, "TEST")}
    for split, wanted in (("validation", DEVELOPMENT), ("test", CORE_TEST)):
        if not lacks and not there & set(wanted):
            lacks.append(f"{PART.folder} holds none of the {split} speakers ({wanted[0]}, ...)")
    return lacks


def find(source: Path) -> list[Speech]:
    """Utterances of the three splits with what is said in them."""
    found: dict[str, Speech] = {}
    wanted = {"valid": set(DEVELOPMENT), "test": set(CORE_TEST)}
    for split, half in _FOLDERS.items():
        for folder in _speakers(source / PART.folder, half):
            speaker = folder.name.lower()
            if split in wanted and speaker not in wanted[split]:
                continue
            for path in files(folder, (".wav", ".flac")):
                sentence = path.name.partition(".")[0].lower()
                if sentence.startswith("sa"):
                    continue
                text = _transcript(child(folder, f"{sentence}.txt"))
                name = (
                    f"{speaker}_{sentence}"  # converted copies lie beside the originals: SX37.WAV, SX37.WAV.wav
                )
                item = Speech(name, split, speaker, path, relative(path, source), speaker[0], text=text)
                found.setdefault(name, item)
    return list(found.values())


def _speakers(top: Path, half: str) -> Iterator[Path]:
    """Folders of the speakers of TRAIN or TEST: <half>/DR1/<speaker>."""
    for folder in folders_named(top, half):
        for region in sorted(folder.iterdir()):
            if region.is_dir() and region.name.lower().startswith("dr"):
                yield from sorted(path for path in region.iterdir() if path.is_dir())


def _transcript(path: Path) -> str:
    """The sentence of a .TXT file, which first tells its first and last sample; "" where there is none."""
    try:
        words = path.read_text(encoding="latin-1").split()
    except OSError:
        return ""
    return " ".join(words[2:]) if len(words) > 2 and words[0].isdigit() and words[1].isdigit() else ""
