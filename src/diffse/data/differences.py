"""What changed between two versions of a corpus, from their manifests alone: no audio is read."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

from diffse.data.manifest import SPLITS

# measure -> (column, what it says of the utterances of a split, decimals)
_MEASURES = {
    "utterances": ("id", "count", 0),
    "speakers": ("speaker", "kinds", 0),
    "hours": ("seconds", "hours", 3),
    "SNR (dB), mean": ("snr_measured_db", "mean", 2),
    "SNR (dB), lowest": ("snr_measured_db", "min", 2),
    "SNR (dB), highest": ("snr_measured_db", "max", 2),
    "clean level (dBFS), mean": ("level_dbfs", "mean", 2),
    "noisy level (dBFS), mean": ("noisy_dbfs", "mean", 2),
    "noisy level (dBFS), highest": ("noisy_dbfs", "max", 2),
}


@dataclass(frozen=True)
class Change:
    """One measure of one split, before and after; NaN where there is nothing to measure."""

    split: str
    measure: str
    before: float
    after: float

    @property
    def changed(self) -> bool:
        return self.before != self.after and not (math.isnan(self.before) and math.isnan(self.after))


@dataclass(frozen=True)
class Difference:
    """Two versions of a corpus compared."""

    changes: list[Change]
    new: dict[str, list[str]]  # split -> ids
    gone: dict[str, list[str]]
    altered: dict[str, list[str]]  # the same id with other samples
    moved: list[str]  # ids in another split than before

    @property
    def same(self) -> bool:
        lists = (*self.new.values(), *self.gone.values(), *self.altered.values(), self.moved)
        return not any(lists) and not any(change.changed for change in self.changes)

    def as_json(self) -> dict[str, Any]:
        """Plain values; what cannot be measured is None."""
        return {
            "same": self.same,
            "measures": [
                {"split": change.split, "measure": change.measure}
                | {name: _plain(getattr(change, name)) for name in ("before", "after")}
                for change in self.changes
            ],
            "new": self.new,
            "gone": self.gone,
            "altered": self.altered,
            "moved": self.moved,
        }


def compare(before: "pandas.DataFrame", after: "pandas.DataFrame") -> Difference:
    """Compare two manifests of a corpus, split by split."""
    splits = [split for split in SPLITS if (before["split"] == split).any() or (after["split"] == split).any()]
    changes = [
        Change(split, measure, *(_measure(rows[rows["split"] == split], measure) for rows in (before, after)))
        for split in splits
        for measure in _MEASURES
    ]
    both = before.merge(after, on="id", how="outer", suffixes=("_before", "_after"), indicator=True)
    kept = both[both["_merge"] == "both"]
    return Difference(
        changes,
        new=_ids(both[both["_merge"] == "right_only"], "split_after", splits),
        gone=_ids(both[both["_merge"] == "left_only"], "split_before", splits),
        altered=_ids(kept[kept["sha256_before"] != kept["sha256_after"]], "split_after", splits),
        moved=sorted(kept.loc[kept["split_before"] != kept["split_after"], "id"]),
    )


def _measure(rows: "pandas.DataFrame", measure: str) -> float:
    column, how, decimals = _MEASURES[measure]
    if how == "count":
        return float(len(rows))
    if how == "kinds":
        return float(rows[column].nunique())
    if how == "hours":
        return round(float(rows[column].sum()) / 3600, decimals)
    return round(float(getattr(rows[column], how)()), decimals)  # NaN rows do not count


def _ids(rows: "pandas.DataFrame", column: str, splits: list[str]) -> dict[str, list[str]]:
    return {split: sorted(rows.loc[rows[column] == split, "id"]) for split in splits}


def table(difference: Difference, names: tuple[str, str]) -> str:
    """The comparison for people: measures side by side, then which utterances changed."""
    rows = [("split", "measure", *names, "change")]
    for change in difference.changes:
        delta = change.after - change.before
        shown = "" if not change.changed else "?" if math.isnan(delta) else f"{delta:+.{_decimals(change)}f}"
        rows.append((change.split, change.measure, *(_shown(change, v) for v in _both(change)), shown))
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    lines = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *_named(difference)])


def _named(difference: Difference) -> list[str]:
    lines = []
    for kind, found in (("new", difference.new), ("gone", difference.gone), ("altered", difference.altered)):
        lines += [f"{split}: {len(ids)} {kind} ({_first(ids)})" for split, ids in found.items() if ids]
    if difference.moved:
        lines.append(f"in another split: {len(difference.moved)} ({_first(difference.moved)})")
    return lines or ["the same utterances, sample for sample"]


def _first(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")


def _both(change: Change) -> tuple[float, float]:
    return change.before, change.after


def _decimals(change: Change) -> int:
    return _MEASURES[change.measure][2]


def _shown(change: Change, value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.{_decimals(change)}f}"


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
