"""Runs and systems against each other: settings that differ, and paired differences of scores."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from diffse.dashboard.entries import Entry
from diffse.metrics import statistics

if TYPE_CHECKING:
    import numpy
    import pandas

CONFIDENCE, RESAMPLES, SEED = 0.95, 2000, 0


def settings_table(entries: list[Entry], only_different: bool) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run, "–" where it has none), in order of their names."""
    keys = sorted({key for entry in entries for key in entry.settings})
    rows = [(key, [entry.settings.get(key, "–") for entry in entries]) for key in keys]
    return [row for row in rows if not only_different or len(set(row[1])) > 1]


@dataclass(frozen=True)
class Comparison:
    """One system in one metric: its mean with interval over `n` files, and its difference to the reference.

    `change`: mean of the per-file differences to the reference system, None where nothing can be compared;
    `p`: of the paired test, corrected for all systems that are compared with the reference.
    """

    system: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    change: float | None = None
    p: float | None = None

    @property
    def verdict(self) -> str:
        """'higher', 'lower', 'no clear difference', or "" where nothing can be compared."""
        if self.change is None or self.p is None:
            return ""
        if self.p >= 1 - CONFIDENCE:
            return "no clear difference"
        return "higher" if self.change > 0 else "lower"


def compare(tables: dict[str, "pandas.DataFrame"], metric: str, reference: str) -> list[Comparison]:
    """Every system that has the metric, and how it differs from the reference system, file by file.

    tables: system -> scores per file, indexed by id. Wilcoxon's signed-rank test, corrected by Holm's method.
    """
    found, p_values = [], {}
    for system, table in tables.items():
        if metric not in table:
            continue
        own = statistics.summarise(table[metric].to_numpy(), CONFIDENCE, RESAMPLES, SEED)
        row = Comparison(system, own["mean"], own["low"], own["high"], own["n"])
        change = _changes(table, tables.get(reference), metric)
        if system != reference and len(change) > 1:
            row = replace(row, change=float(change.mean()))
            p_values[system] = statistics.wilcoxon(change)
        found.append(row)
    corrected = dict(zip(p_values, statistics.adjusted(list(p_values.values()), "holm"), strict=True))
    return [replace(row, p=corrected.get(row.system)) for row in found]


def _changes(table: "pandas.DataFrame", base: "pandas.DataFrame | None", metric: str) -> "numpy.ndarray":
    """Differences of the files that both have a value for."""
    import numpy

    if base is None or metric not in base:
        return numpy.zeros(0)
    return (table[metric] - base[metric]).dropna().to_numpy(float)  # joined by id
