"""What a corpus hands to the preparation: recordings with their split, and those it had to refuse."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffse.errors import DiffseError

ANY_CHANNEL = -1

Stamp = tuple[int, int] | None  # size in bytes and time of change in ns of a file; None: not there


def stamp(path: Path) -> Stamp:
    """What shows, without reading it, whether a file is still the one that was listed."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Speech:
    """A clean recording or a part of one, with its noisy partner where the corpus gives ready pairs."""

    id: str
    split: str
    speaker: str
    path: Path
    source: str  # how the manifest names it
    gender: str = ""  # "f", "m", or "" if unknown
    noisy_path: Path | None = None
    noisy_source: str = ""
    channel: int = 0
    start: int = 0  # first sample of the part, at the file's own rate
    samples: int = 0  # its length; 0: to the end of the file
    text: str = ""  # what is said
    noise_kind: str = ""  # of a ready pair; to be mixed: the only kind to draw from, where there is one
    snr_db: float | None = None  # where the corpus says it; else it is drawn
    highpass_hz: float = 0.0  # what lies below is filtered out before mixing
    ramp: float = 0.0  # s of a linear rise and fall at the ends
    stamp: Stamp = None  # of the file when the preparation began; None: not looked at
    noisy_stamp: Stamp = None


@dataclass(frozen=True)
class Noise:
    """A noise recording, of which all but `start` and `stop` seconds may be used.

    Length, rate and checksum are known once it has been scanned.
    """

    split: str
    kind: str
    path: Path
    source: str
    samples: int = 0
    rate: int = 0  # Hz
    sha256: str = ""
    channel: int = 0  # ANY_CHANNEL: drawn for each mixture
    start: float = 0.0  # s of the recording that are not used
    stop: float = 0.0  # s at its end that are not used
    stamp: Stamp = None


@dataclass(frozen=True)
class Rir:
    """A measured room impulse response. Whatever room it was measured in belongs to one split."""

    split: str
    room: str
    path: Path
    source: str
    channel: int = 0  # ANY_CHANNEL: drawn for each mixture
    channels: int = 1  # known once it has been scanned
    stamp: Stamp = None


@dataclass(frozen=True)
class Rejected:
    """A file that is not used, and why."""

    file: str
    reason: str


@dataclass
class Recordings:
    """Everything that a corpus found."""

    speech: list[Speech] = field(default_factory=list)
    noise: list[Noise] = field(default_factory=list)
    rirs: list[Rir] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def stamped(found: Recordings) -> Recordings:
    """The same recordings with the stamps of their files as they are now."""
    return Recordings(
        [
            replace(item, stamp=stamp(item.path), noisy_stamp=item.noisy_path and stamp(item.noisy_path))
            for item in found.speech
        ],
        [replace(item, stamp=stamp(item.path)) for item in found.noise],
        [replace(item, stamp=stamp(item.path)) for item in found.rirs],
        found.rejected,
    )


def base_id(speaker: str, stem: str) -> str:
    """`<speaker>_<stem>`, or the stem where it starts with the speaker; safe as a file name without suffix."""
    name = stem if stem == speaker or stem.startswith(f"{speaker}_") else f"{speaker}_{stem}"
    return re.sub(r"[^\w-]", "-", name)


def mixture_id(speech_id: str, number: int) -> str:
    """Id of mixture `number` (from 1) of an utterance: the first has the utterance's own id."""
    return speech_id if number == 1 else f"{speech_id}-{number}"


def with_unique_ids(speech: list[Speech], mixtures: dict[str, int]) -> list[Speech]:
    """Append six digits of the path's checksum to every id that another one would repeat.

    `mixtures` is the number of mixtures per split, because `a` with two mixtures collides with `a-2`.
    """
    ids = Counter(name for item in speech for name in _ids(item, mixtures))

    def settle(item: Speech) -> Speech:
        if all(ids[name] == 1 for name in _ids(item, mixtures)):
            return item
        return replace(item, id=f"{item.id}-{hashlib.sha256(item.source.encode()).hexdigest()[:6]}")

    return [settle(item) for item in speech]


def _ids(item: Speech, mixtures: dict[str, int]) -> list[str]:
    return [mixture_id(item.id, number) for number in range(1, mixtures[item.split] + 1)]


def check_disjoint(owners: Iterable[tuple[str, str, str]], what: str, advice: str) -> None:
    """Refuse a name in two splits. `owners`: (name, split, file). DiffseError names the first offender."""
    seen: dict[str, tuple[str, str]] = {}
    for name, split, file in owners:
        first_split, first_file = seen.setdefault(name, (split, file))
        if first_split != split:
            raise DiffseError(
                f"{what} '{name}' is in two splits: {first_split} ({first_file}) and {split} ({file}); {advice}"
            )
