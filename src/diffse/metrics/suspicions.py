"""What scores give away: references and estimates swapped, or the same, or scores of different versions."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffse import paths, storage
from diffse.data.parallel import Workers
from diffse.errors import DiffseError
from diffse.metrics import scoring
from diffse.metrics.scoring import Plan, Signals, Utterance

SAMPLE = 8  # files whose references are scored too
_WORSE = 0.5  # MOS by which references must not sound worse than the estimates, on average
_LEAST = 3  # files that a suspicion needs
_INFINITE = "nothing left in the denominator: the ratio is infinite"


def of_scores(
    workers: Workers, utterances: list[Utterance], rows: list[dict[str, Any]], plan: Plan
) -> list[str]:
    """Warnings about the files of one system, each one line; empty when nothing is suspicious."""
    return [*_equal(rows, plan), *_swapped(workers, utterances, rows, plan)]


def _equal(rows: list[dict[str, Any]], plan: Plan) -> Iterator[str]:
    if "si_sdr" in plan.metrics and rows and all(row["si_sdr_reason"] == _INFINITE for row in rows):
        yield f"the estimates equal the references in all {len(rows)} files; was the same folder given twice?"


def _swapped(
    workers: Workers, utterances: list[Utterance], rows: list[dict[str, Any]], plan: Plan
) -> Iterator[str]:
    """Score the references of a few files by DNSMOS: clean speech must not have more noise than an estimate."""
    if "dnsmos" not in plan.metrics:
        return
    scored = {row["id"]: row["dnsmos_bak"] for row in rows if not np.isnan(row["dnsmos_bak"])}
    usable = sorted((item for item in utterances if item.id in scored), key=lambda item: item.id)
    if len(usable) < _LEAST:
        return
    places = np.unique(np.linspace(0, len(usable) - 1, SAMPLE).round().astype(int))
    chosen = [usable[place] for place in places]
    references = [replace(item, read=partial(_reference, item.read)) for item in chosen]
    alone, pairs = replace(plan, metrics=("dnsmos",)), []
    for reference in references:
        (row,) = scoring.rows(workers, [reference], alone)
        if row["dnsmos_bak"] >= scored[reference.id]:
            return  # one that is cleaner is enough to trust them, and the usual case
        if not np.isnan(row["dnsmos_bak"]):
            pairs.append((row["dnsmos_bak"], scored[reference.id]))
    if len(pairs) >= _LEAST and np.diff(np.mean(pairs, axis=0))[0] > _WORSE:
        clean, enhanced = np.mean(pairs, axis=0)
        yield (
            f"the references sound noisier than the estimates (DNSMOS BAK {clean:.2f} against {enhanced:.2f} "
            f"in {len(pairs)} files); are the two swapped?"
        )


def _reference(read: partial) -> Signals:
    clean, _, _, rate = read()
    return clean, clean, clean, rate


def other_versions(root: Path, corpus: str, summary: dict[str, Any]) -> list[str]:
    """One line per system whose scores on `corpus` come from other versions than those of `summary`."""
    lines = []
    for path in sorted((root / "results").glob(f"*/{corpus}/summary.json")):
        system = path.parent.parent.name
        try:
            theirs = storage.read_json(path)["metrics"]
            differing = [
                f"{name} {theirs[name]['version']}, here {entry['version']}"
                for name, entry in summary["metrics"].items()
                if name in theirs and theirs[name]["version"] != entry["version"]
            ]
        except (DiffseError, KeyError, TypeError, AttributeError):
            continue  # damaged results are the report's business
        if system != summary["system"] and differing:
            folder = paths.results(root, system, corpus)
            lines.append(
                f"{folder}: scores of other versions ({differing[0]}); run 'diffse evaluate {system} {corpus}' "
                "again before you compare"
            )
    return lines
