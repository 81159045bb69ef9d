"""Clean speech of WSJ0 (CSR-I), for the corpora that are made of it: read newspaper text at 16 kHz.

The discs hold NIST sphere files, most of them shorten-compressed, one per microphone: `.wv1` is the
close-talking Sennheiser, `.wv2` a second one. Copies that were converted to wav or flac are as good. The discs
may lie side by side or merged, and names may be in any case.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from diffse.data.corpora.facts import Expected, Part
from diffse.data.corpora.trees import files, folders_named, relative
from diffse.data.recordings import Rejected, Speech

SETS = {"train": "si_tr_s", "valid": "si_dt_05", "test": "si_et_05"}
SPEAKERS = {"train": 101, "valid": 10, "test": 8}
EXPECTED = {
    "train": Expected(12776, 25.0, exact=False),
    "valid": Expected(1206, exact=False),
    "test": Expected(651, 1.5),
}
_NAME_LENGTH = 8  # speaker, kind of text, session and utterance: 011c0201
_SUFFIXES = (".wv1", ".wv2", ".wav", ".flac", ".sph")

PART = Part(
    folder="wsj0",
    title="WSJ0 (CSR-I)",
    home="https://catalog.ldc.upenn.edu/LDC93S6A",
    licence="LDC user agreement, to be bought",
    citation="J. S. Garofolo et al., CSR-I (WSJ0) Complete LDC93S6A, Linguistic Data Consortium, 1993",
    layout=(
        "wsj0/**/si_tr_s/011/011c0201.wv1 (or .wav, .flac; any disc folders above si_tr_s)",
        "wsj0/**/si_dt_05/050/050c0101.wv1",
        "wsj0/**/si_et_05/440/440c0201.wv1",
    ),
)


def missing(source: Path, sets: tuple[str, ...] = tuple(SETS)) -> list[str]:
    """Which of the sets are not there."""
    top = source / PART.folder
    if not top.is_dir():
        return [f"there is no folder {PART.folder}"]
    return [
        f"{PART.folder} holds no folder {SETS[split]}" for split in sets if not folders_named(top, SETS[split])
    ]


def find(
    source: Path, microphone: Literal["wv1", "wv2"], sets: tuple[str, ...] = tuple(SETS)
) -> tuple[list[Speech], list[Rejected]]:
    """Utterances of the sets by one microphone, each once; a second file of the same utterance is refused."""
    speech: dict[tuple[str, str], Speech] = {}
    rejected = []
    for split in sets:
        for path in _utterances(source / PART.folder, SETS[split], microphone):
            name = path.name.partition(".")[0].lower()
            item = Speech(name, split, name[:3], path, relative(path, source))
            first = speech.setdefault((split, name), item)
            if first is not item:
                rejected.append(Rejected(item.source, f"is the utterance of {first.source} once more"))
    return list(speech.values()), rejected


def _utterances(top: Path, name: str, microphone: str) -> Iterator[Path]:
    other = {"wv1": "wv2", "wv2": "wv1"}[microphone]
    for folder in folders_named(top, name):
        for path in files(folder, _SUFFIXES):
            words = path.name.lower().split(".")
            if len(words[0]) == _NAME_LENGTH and other not in words[1:]:
                yield path
