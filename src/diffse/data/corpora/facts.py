"""What is known of a corpus beforehand: where it comes from, what it may be used for, how much there is."""

from dataclasses import dataclass, field
from pathlib import Path

from diffse.errors import DiffseError


@dataclass(frozen=True)
class Download:
    """A file that anyone may fetch.

    `checksum` is "sha256:..." or "md5:..."; "" where nobody publishes one: then what the first download brought
    is recorded beside the recordings and holds from then on (`data/downloads.py`). `unpack`: the folder below
    the source folder that the archive is unpacked into; None keeps the file as it is, under `name`.
    """

    name: str
    url: str
    checksum: str = ""
    unpack: str | None = None
    gives: str = ""  # a path below the source folder that is there once it is unpacked


@dataclass(frozen=True)
class Part:
    """One source of a corpus: a data set that somebody publishes, in a folder below `sources/<corpus>/`."""

    folder: str  # "" for the source folder itself
    title: str
    home: str
    licence: str
    citation: str
    layout: tuple[str, ...]  # what lies in the folder, a path a line
    downloads: tuple[Download, ...] = ()  # empty where a licence must be signed or bought


@dataclass(frozen=True)
class Expected:
    """How much a split holds. Counts vary by a few files between releases where `exact` is False."""

    utterances: int  # clean utterances, before each is mixed
    hours: float | None = None  # about
    exact: bool = True


@dataclass(frozen=True)
class Facts:
    """A corpus. `expected` is empty where its settings choose what nobody has published counts of."""

    title: str
    parts: tuple[Part, ...]
    expected: dict[str, Expected]
    papers: str  # whose data this is
    anchors: dict[str, float] = field(default_factory=dict)  # mean scores of the unprocessed test split


def require(facts: Facts, missing: list[str], source: Path) -> None:
    """Refuse an incomplete source folder in one line: what is missing, and where each part comes from."""
    if not missing:
        return
    places = "; ".join(f"{part.title}: {part.home} ({part.licence})" for part in facts.parts)
    free = " ('diffse data fetch' brings what is free)" if any(part.downloads for part in facts.parts) else ""
    raise DiffseError(
        f"{source}: not the layout of {facts.title}: {'; '.join(missing)}. It comes from: {places}{free}. "
        "The layout: docs/corpora.md"
    )


def check_counts(facts: Facts, found: dict[str, int], source: Path) -> None:
    """Refuse another number of utterances than published. `found`: split -> utterances. DiffseError."""
    wrong = []
    for split, expected in facts.expected.items():
        allowed = 0 if expected.exact else max(1, round(0.005 * expected.utterances))
        if abs(found.get(split, 0) - expected.utterances) > allowed:
            wrong.append(f"{split} has {found.get(split, 0)} utterances, not {expected.utterances}")
    if wrong:
        raise DiffseError(
            f"{source}: not all of {facts.title}: {', '.join(wrong)}; add what is missing, or set "
            "'complete: false' to work with what is there"
        )
