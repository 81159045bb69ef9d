"""Which module knows which corpus, and what is asked of every one of them.

A module of a published corpus has `facts(settings)`, `missing(settings, source)`, which looks at folders only
and answers in seconds, and `find(settings, source, workspace, workers)`, which lists the recordings with their
splits; `data/prepare.py` makes the mixtures of them. `demo` and `folder` have `find` alone.
"""

from collections import Counter
from pathlib import Path
from types import ModuleType

from diffse.data.corpora import (
    demo,
    ears_reverb,
    ears_wham,
    folder,
    ntcd_timit,
    timit_chime3,
    voicebank,
    wsj0_chime3,
    wsj0_qut,
    wsj0_reverb,
)
from diffse.data.corpora.facts import Facts, check_counts, require
from diffse.data.manifest import SPLITS
from diffse.data.parallel import Workers
from diffse.data.recordings import Recordings
from diffse.settings_corpora import (
    DemoCorpus,
    EarsReverb,
    EarsWham,
    FolderCorpus,
    NtcdTimit,
    PublishedCorpus,
    TimitChime3,
    VoiceBankDemand,
    Wsj0Chime3,
    Wsj0Qut,
    Wsj0Reverb,
)

MODULES: dict[type, ModuleType] = {
    DemoCorpus: demo,
    FolderCorpus: folder,
    VoiceBankDemand: voicebank,
    EarsWham: ears_wham,
    EarsReverb: ears_reverb,
    Wsj0Chime3: wsj0_chime3,
    TimitChime3: timit_chime3,
    Wsj0Qut: wsj0_qut,
    Wsj0Reverb: wsj0_reverb,
    NtcdTimit: ntcd_timit,
}

ROOMS = {EarsReverb: "measured", Wsj0Reverb: "simulated"}  # what disturbs the speech of these


def facts(settings: object) -> Facts | None:
    """What is published of a corpus; None for the built-in one and for anyone's own."""
    return MODULES[type(settings)].facts(settings) if isinstance(settings, PublishedCorpus) else None


def check(settings: object, source: Path) -> None:
    """Refuse a source folder that lacks something, before any work (DiffseError: one line with all of it)."""
    known = facts(settings)
    if known is not None:
        require(known, MODULES[type(settings)].missing(settings, source), source)


def about(settings: object, source: Path) -> str:
    """What is known of a corpus, for people: where it comes from, its layout, its size, what is missing."""
    known = facts(settings)
    if known is None:
        return f"{source}: recordings of your own, or the built-in corpus; see README.md"
    lines = [f"{known.title} (data of {known.papers})"]
    for part in known.parts:
        lines += ["", part.title, f"  home      {part.home}", f"  licence   {part.licence}"]
        lines += [f"  cite      {part.citation}", *(f"  layout    {line}" for line in part.layout)]
        free = f"{len(part.downloads)} files, by 'diffse data fetch'" if part.downloads else "not by diffse"
        lines.append(f"  download  {free}")
    sizes = [
        f"{split} {size.utterances}" + ("" if size.hours is None else f" (about {size.hours:g} h)")
        for split, size in known.expected.items()
    ]
    lines += ["", f"utterances: {', '.join(sizes) or 'not published'}"]
    lacks = MODULES[type(settings)].missing(settings, source)
    lines += [f"missing in {source}: {text}" for text in lacks] or [f"{source}: the layout is complete"]
    return "\n".join(lines)


def find(settings: object, source: Path, workspace: Path, workers: Workers) -> Recordings:
    """List the recordings of a corpus with their splits. DiffseError: something is missing."""
    check(settings, source)
    found = MODULES[type(settings)].find(settings, source, workspace, workers)
    known = facts(settings)
    if known is not None and settings.complete:
        check_counts(known, Counter(item.split for item in found.speech), source)
    return found


def has_pairs(settings: object) -> bool:
    """Whether a corpus brings its noisy side along, so that nothing is mixed."""
    if isinstance(settings, FolderCorpus):
        return settings.layout == "pairs"
    return isinstance(settings, VoiceBankDemand | NtcdTimit)


def asks_snr(settings: object) -> bool:
    """Whether speech and noise are mixed at an SNR that the settings ask for."""
    return not has_pairs(settings) and hasattr(settings, "snr_db") and getattr(settings, "noise", True) != ""


def shares_noise(settings: object) -> bool:
    """Whether a corpus is to have the same noise recordings in all splits, as some were published."""
    return getattr(settings, "noises", "split") == "shared"


def expected_splits(settings: object) -> tuple[str, ...]:
    """Splits that the settings of a corpus promise."""
    if not isinstance(settings, FolderCorpus):
        return SPLITS
    if settings.layout == "pairs":
        return (settings.pairs_split,)
    listed = tuple(split for split in SPLITS if getattr(settings.clean_lists, split))
    shared = tuple(split for split, share in zip(SPLITS, settings.speaker_shares, strict=True) if share > 0)
    return listed or shared
