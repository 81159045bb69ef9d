"""per_file.csv and summary.json: the scores of one system."""

import csv
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
    names = [column.name for column in table.columns(plan.metrics)]
    columns = [*facts, *(part for name in names for part in (name, f"{name}_reason"))]
    with storage.atomic_folder(folder) as temporary:
        with open(temporary / "per_file.csv", "w", encoding="utf-8", newline="") as stream:
            written = csv.writer(stream, lineterminator="\n")
            written.writerow(columns)
            written.writerows([_cell(row[name]) for name in columns] for row in rows)
        storage.write_json(temporary / "summary.json", summary)


def _cell(value: Any) -> str:
    """A value as text; "" for what is missing."""
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.{_DIGITS}f}"
    return "" if value is None else str(value)


def say_gaps(what: str, metrics: dict[str, dict[str, Any]]) -> None:
    """A missing value is said once in the log."""
    for name, entry in metrics.items():
        for reason, count in entry["reasons"].items():
            log.warning("%s: %s missing in %d files: %s", what, name, count, reason)
