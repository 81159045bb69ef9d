"""Statistics of a version of the mixtures, and how far they are from those of the last one that passed."""

import math
from typing import TYPE_CHECKING, Any

from diffse.data.manifest import SPLITS
from diffse.settings import MixtureRules
from diffse.validation.rules import Rule, Table

if TYPE_CHECKING:
    import pandas

_UNITS = {  # last part of a statistic's name -> (what its change is compared by, title of the rule)
    "utterances": "relative",
    "hours": "relative",
    "speakers": "relative",
    "snr_db": "db",
    "level_dbfs": "db",
    "noisy_dbfs": "db",
    "t60": "t60",
}
TITLES = {
    "relative": "counts and hours against the last version (relative change)",
    "db": "levels and SNR against the last version (dB apart)",
    "t60": "T60 against the last version (s apart)",
    "shares": "noises and speakers against the last version (share apart)",
}


def statistics(frame: "pandas.DataFrame") -> dict[str, float]:
    """Figures of every split: `train.hours`, `train.snr_db`, `train.noise.babble` and so on."""
    found: dict[str, float] = {}
    for split in SPLITS:
        part = frame[frame["split"] == split]
        if len(part):
            found |= {f"{split}.{name}": value for name, value in _of_split(part).items()}
    return {name: round(value, 6) for name, value in found.items() if math.isfinite(value)}


def _of_split(part: "pandas.DataFrame") -> dict[str, float]:
    finite = part["snr_measured_db"].where(part["snr_measured_db"].abs() < math.inf)
    figures = {
        "utterances": float(len(part)),
        "hours": float(part["seconds"].sum()) / 3600.0,
        "speakers": float(part["speaker"].nunique()),
        "snr_db": float(finite.mean()),
        "level_dbfs": float(part["level_dbfs"].where(part["level_dbfs"] > -math.inf).mean()),
        "noisy_dbfs": float(part["noisy_dbfs"].where(part["noisy_dbfs"] > -math.inf).mean()),
        "t60": float(part["t60"].mean()) if "t60" in part.columns else math.nan,
    }
    kinds = part["noise_kind"].value_counts(normalize=True)
    figures |= {f"noise.{kind or 'unnamed'}": float(share) for kind, share in kinds.items()}
    if (part["gender"] != "").any():
        figures["women"] = float((part["gender"] == "f").mean())
    return figures


def table(present: dict[str, float], last: dict[str, float]) -> "pandas.DataFrame":
    """One row per figure of the splits that both versions have, with its change; empty without a last one."""
    import pandas

    splits = {name.split(".")[0] for name in present} & {name.split(".")[0] for name in last}
    names = [name for name in sorted({*present, *last}) if name.split(".")[0] in splits]
    rows = [_row(name, present.get(name), last.get(name)) for name in names]
    return pandas.DataFrame(rows, columns=["id", "now", "before", *TITLES])


def _row(name: str, now: float | None, before: float | None) -> dict[str, Any]:
    """A figure that only one version has counts as 0 in the other, if it is a share, and else not at all."""
    unit = _UNITS.get(name.split(".")[1], "shares")
    row: dict[str, Any] = {"id": name, "now": now, "before": before}
    if unit == "shares":
        return row | {unit: abs((now or 0.0) - (before or 0.0))}
    if now is None or before is None:
        return row
    change = abs(now - before)
    return row | {unit: change / before if unit == "relative" and before else change}


def rules(limits: MixtureRules) -> list[Rule]:
    """Rules on the changes. A change may be meant, so that a broken one is a warning."""
    changes, drift = Table("drift", "warning"), limits.drift
    advice = (
        "if you did not mean this change, look at the sources and settings; the limits are check.mixtures.drift"
    )
    allowed = {
        "relative": drift.max_change,
        "db": drift.max_change_db,
        "t60": drift.max_change_t60,
        "shares": drift.max_change_shares,
    }
    return [
        changes.within(title, unit, 0.0, allowed[unit], advice, missing=1.0) for unit, title in TITLES.items()
    ]
