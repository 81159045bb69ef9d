"""per_file.csv and summary.json: the scores of one system."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from diffse import storage
from diffse.metrics import statistics, table
from diffse.metrics.scoring import Plan
from diffse.settings import Evaluate

log = logging.getLogger(__name__)

_DIGITS = 6  # written after the point


def metric_entries(rows: list[dict], plan: Plan, settings: Evaluate, rate: int) -> dict[str, dict[str, Any]]:
    """Column -> mean, spread, interval, gaps with their reasons, and what the numbers are."""
    return {
        column.name: _entry(name, column, rows, plan, settings, rate)
        for name in plan.metrics
        for column in table.find(name).columns
    }


def _entry(
    name: str, column: table.Column, rows: list[dict], plan: Plan, settings: Evaluate, rate: int
) -> dict[str, Any]:
    values = np.array([row[column.name] for row in rows])
    found = statistics.summarise(values, settings.confidence, settings.bootstrap, settings.seed)
    reasons = Counter(reason for row in rows if (reason := row[f"{column.name}_reason"]))
    return {
        **{name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in found.items()},
        "missing": len(rows) - found["n"],
        "reasons": dict(sorted(reasons.items())),
        "unit": column.unit,
        "rate": column.rate or rate,
        "mode": column.mode,
        "version": table.version(name, column, plan.tools),
    }


def write(folder: Path, rows: list[dict], facts: list[str], plan: Plan, summary: dict[str, Any]) -> None:
    """Write both files as `folder`, which they replace. `facts`: columns before the scores."""
    import pandas

    names = [column.name for column in table.columns(plan.metrics)]
    scores = [part for name in names for part in (name, f"{name}_reason")]
    frame = pandas.DataFrame(rows, columns=[*facts, *scores])
    with storage.atomic_folder(folder) as temporary:
        number = f"%.{_DIGITS}f"
        frame.to_csv(temporary / "per_file.csv", index=False, float_format=number, lineterminator="\n")
        storage.write_json(temporary / "summary.json", summary)


def say_gaps(what: str, metrics: dict[str, dict[str, Any]]) -> None:
    """A missing value is said once in the log."""
    for name, entry in metrics.items():
        for reason, count in entry["reasons"].items():
            log.warning("%s: %s missing in %d files: %s", what, name, count, reason)
