"""Score any folder of enhanced files against a folder of clean ones: other people's systems, without a project.

Files are paired by their name below the folder, without the suffix. What does not fit is said in one line per
kind, and everything else is scored.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffse import audio
from diffse.audio import AudioError
from diffse.data.parallel import Workers
from diffse.errors import DiffseError
from diffse.metrics import recognition, results, scoring, suspicions, table, tools, transcripts
from diffse.metrics.checks import Missing
from diffse.metrics.scoring import Plan, Signals, Utterance
from diffse.settings import Evaluate

log = logging.getLogger(__name__)

_NAMED = 3  # files in a line


@dataclass(frozen=True)
class Folders:
    """Where the files are. `noisy` None: metrics that need the noisy signal are missing."""

    clean: Path
    enhanced: Path
    noisy: Path | None = None
    trim: bool = False  # cut signals that are longer than the shortest of their pair


def run(folders: Folders, settings: Evaluate, out: Path | None = None, home: Path = Path()) -> dict[str, Any]:
    """Score all pairs; writes per_file.csv and summary.json as the folder `out`, if it is given.

    Returns {"files", "metrics", "unmatched", "warnings"}: see `results.metric_entries`. `home`: the folder that
    paths in the settings are relative to. DiffseError: no pairs, no such folder, a metric lacks what it needs.
    """
    table.columns(settings.metrics)
    plan = Plan.of(settings.metrics, tools.find(settings, settings.metrics, home), settings.cache)
    utterances, unmatched = _pairs(
        folders, recognition.read_texts(home / settings.texts) if settings.texts else {}
    )
    with Workers(settings.processes) as workers:
        heard = transcripts.by_program(utterances, plan)
        rows = scoring.rows(workers, utterances, plan, f"score {folders.enhanced}", heard)
        warnings = suspicions.of_scores(workers, utterances, rows, plan)
    entries = results.metric_entries(rows, plan, settings, _rate(folders, utterances))
    summary = {
        "system": folders.enhanced.name,
        "clean": str(folders.clean),
        "enhanced": str(folders.enhanced),
        "noisy": None if folders.noisy is None else str(folders.noisy),
        "files": len(rows),
        "unmatched": unmatched,
        "warnings": warnings,
        "metrics": entries,
    }
    if out is not None:
        results.write(out, rows, ["id"], plan, summary)
    results.say_gaps(str(folders.enhanced), entries)
    for line in [*unmatched.values(), *warnings]:
        log.warning("%s: %s", folders.enhanced, line)
    return summary


def _pairs(folders: Folders, texts: dict[str, str]) -> tuple[list[Utterance], dict[str, str]]:
    """The pairs, and per kind of trouble one line that counts and names them."""
    clean, enhanced = find(folders.clean), find(folders.enhanced)
    noisy = None if folders.noisy is None else find(folders.noisy)
    twice = {
        name for found in (clean, enhanced, noisy or {}) for name, files in found.items() if len(files) > 1
    }
    both = sorted((clean.keys() & enhanced.keys()) - twice)
    trouble = {
        "only_clean": (sorted(clean.keys() - enhanced.keys() - twice), "have no enhanced file"),
        "only_enhanced": (sorted(enhanced.keys() - clean.keys() - twice), "have no clean file"),
        "ambiguous": (sorted(twice), "are there twice, with different suffixes; none of them is scored"),
    }
    if noisy is not None:
        trouble["no_noisy"] = (sorted(set(both) - noisy.keys()), "have no noisy file")
    if not both:
        raise DiffseError(
            f"{folders.enhanced}: no file is called like one in {folders.clean} (there: "
            f"{_named(sorted(clean))}; here: {_named(sorted(enhanced))}); the names of a pair may differ in "
            "their suffix only"
        )
    utterances = []
    for name in both:
        third = noisy[name][0] if noisy and name in noisy else None
        read = partial(read_signals, clean[name][0], third, enhanced[name][0], folders.trim)
        utterances.append(
            Utterance({"id": name}, read, texts.get(name, ""), size=enhanced[name][0].stat().st_size)
        )
    lines = {
        kind: f"{len(names)} files {what} ({_named(names)})" for kind, (names, what) in trouble.items() if names
    }
    return utterances, lines


def _named(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "") or "none"


def find(folder: Path) -> dict[str, list[Path]]:
    """Audio files below `folder` by their name in it, without suffix. DiffseError: no such folder."""
    if not folder.is_dir():
        raise DiffseError(f"{folder}: no such folder")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in audio.SUFFIXES and path.is_file():
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return found


def read_signals(clean: Path, noisy: Path | None, enhanced: Path, trim: bool) -> Signals:
    """Signals of one pair; Missing where they do not belong together or cannot be read."""
    files = {"clean": clean, "enhanced": enhanced} | ({} if noisy is None else {"noisy": noisy})
    waves, rates = {}, {}
    for name, path in files.items():
        try:
            wave, rates[name] = audio.read(path)
        except AudioError as error:
            raise Missing(f"{name} file: {error.reason}") from None
        if len(wave) != 1:
            raise Missing(f"{name} file has {len(wave)} channels; give one")
        waves[name] = wave[0]
    if len(set(rates.values())) > 1:
        raise Missing(f"rates differ: {_listed(rates)} Hz")
    lengths = {name: len(wave) for name, wave in waves.items()}
    shortest = min(lengths.values())
    if len(set(lengths.values())) > 1 and not trim:
        raise Missing(f"lengths differ: {_listed(lengths)} samples; --trim cuts to the shortest")
    cut: dict[str, np.ndarray] = {name: wave[:shortest] for name, wave in waves.items()}
    return cut["clean"], cut.get("noisy"), cut["enhanced"], rates["clean"]


def _listed(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _rate(folders: Folders, utterances: list[Utterance]) -> int | None:
    """Rate of the first pair that can be read: that of metrics that take any."""
    for utterance in utterances:
        try:
            return utterance.read()[3]
        except Missing:
            continue
    return None
