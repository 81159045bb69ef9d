"""Runs and systems against each other: settings that differ, and paired differences of scores."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffse.dashboard.entries import Entry
from diffse.metrics import statistics

if TYPE_CHECKING:
    import pandas

CONFIDENCE, RESAMPLES, SEED = 0.95, 2000, 0


def settings_table(entries: list[Entry], only_different: bool) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run, "–" where it has none), in order of their names."""
    keys = sorted({key for entry in entries for key in entry.settings})
    rows = [(key, [entry.settings.get(key, "–") for entry in entries]) for key in keys]
    return [row for row in rows if not only_different or len(set(row[1])) > 1]


@dataclass(frozen=True)
class Comparison:
    """One system in one metric. `change`: mean of the per-file differences to the reference system."""

    system: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None

    @property
    def verdict(self) -> str:
        """'higher', 'lower', 'no clear difference', or "" where nothing can be compared."""
        if self.change is None or self.change_low is None or self.change_high is None:
            return ""
        if self.change_low > 0:
            return "higher"
        return "lower" if self.change_high < 0 else "no clear difference"


def compare(tables: dict[str, "pandas.DataFrame"], metric: str, reference: str) -> list[Comparison]:
    """Means with intervals of each system and paired differences to the reference system.

    tables: system -> scores per file, indexed by id. Intervals of the differences are widened for the number of
    comparisons (Bonferroni), so that one clear difference among many is not chance.
    """
    others = max(1, len(tables) - 1)
    base = tables.get(reference)
    found = []
    for system, table in tables.items():
        if metric not in table:
            continue
        own = statistics.summarise(table[metric].to_numpy(), CONFIDENCE, RESAMPLES, SEED)
        row = Comparison(system, own["mean"], own["low"], own["high"], own["n"])
        if system != reference and base is not None and metric in base:
            change = (table[metric] - base[metric]).dropna().to_numpy()  # by id
            facts = statistics.summarise(change, 1 - (1 - CONFIDENCE) / others, RESAMPLES, SEED)
            row = Comparison(
                *(system, own["mean"], own["low"], own["high"], own["n"]),
                *(facts["mean"], facts["low"], facts["high"]),
            )
        found.append(row)
    return found
