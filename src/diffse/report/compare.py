"""Each system against its own input: paired differences with bootstrap intervals, and plain sentences."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from diffse import paths, settings
from diffse.metrics import statistics, table
from diffse.report.artifacts import Project, Scores


@dataclass(frozen=True)
class Metric:
    """How a metric is written."""

    label: str
    unit: str
    digits: int
    higher_is_better: bool = True

    @property
    def heading(self) -> str:
        """Label with the unit, if there is one."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


METRICS = {
    "si_sdr": Metric("SI-SDR", "dB", 2),
    "pesq": Metric("PESQ", "", 3),
    "estoi": Metric("ESTOI", "", 3),
    "dnsmos_ovrl": Metric("DNSMOS OVRL", "", 2),
    "si_sir": Metric("SI-SIR", "dB", 2),
    "si_sar": Metric("SI-SAR", "dB", 2),
    "dnsmos_sig": Metric("DNSMOS SIG", "", 2),
    "dnsmos_bak": Metric("DNSMOS BAK", "", 2),
    "dnsmos_p808": Metric("DNSMOS P.808", "", 2),
}
HEAD = ("si_sdr", "pesq", "estoi", "dnsmos_ovrl")  # judged in sentences, figures and per-file tables
MAIN = (*HEAD, "si_sir", "si_sar")  # columns of the main table; all others follow in a table of their own


def metric(name: str) -> Metric:
    """How to write a metric: as METRICS says, then as the registry of metrics, else under its own name."""
    return METRICS.get(name) or _registered().get(name) or Metric(name, "", 3)


@functools.cache
def _registered() -> dict[str, Metric]:
    columns = [column for entry in table.METRICS.values() for column in entry.columns]
    return {
        column.name: Metric(
            column.title,
            "dB" if column.unit == "dB" else "",
            2 if column.unit in ("dB", "MOS", "%") else 3,
            column.higher_is_better,
        )
        for column in columns
    }


def ordered(names: Iterable[str]) -> list[str]:
    """Names of metrics in the order of METRICS, unknown ones behind them by name."""
    unique = set(names)
    return [name for name in METRICS if name in unique] + sorted(unique - METRICS.keys())


@dataclass(frozen=True)
class Difference:
    """Mean of per-file differences to the unprocessed input over `n` files.

    `low` and `high` bound it at the confidence asked for; None for fewer than two files.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    higher_is_better: bool = True

    @property
    def verdict(self) -> str:
        """'better', 'worse' or 'unclear' (the interval holds zero or there is none)."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "unclear"
        return "better" if (self.low > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class Compared:
    """One system on one corpus beside its input; the unprocessed input itself has no differences."""

    scores: Scores
    differences: dict[str, Difference | None]
    sentence: str  # empty for the unprocessed input


def compare(project: Project, corpus: str, how: settings.Evaluate) -> list[Compared]:
    """Every system evaluated on a corpus, the unprocessed input first."""
    unprocessed = project.scores.get((paths.UNPROCESSED, corpus))
    rows = []
    for scores in project.evaluated(corpus):
        if scores is unprocessed:
            rows.append(Compared(scores, {}, ""))
            continue
        found = {name: difference(scores, unprocessed, name, how) for name in scores.metrics}
        rows.append(Compared(scores, found, sentence(scores.system, found, how.confidence)))
    return rows


def difference(
    scores: Scores, unprocessed: Scores | None, name: str, how: settings.Evaluate
) -> Difference | None:
    """Difference of a system to its input in one metric, over the files that both have a value for.

    Percentile bootstrap over files. None when no file has both values.
    """
    if unprocessed is None or name not in scores.table or name not in unprocessed.table:
        return None
    change = (scores.table[name] - unprocessed.table[name]).dropna().to_numpy()
    if len(change) == 0:
        return None
    mean = float(np.mean(change))
    if len(change) == 1:
        return Difference(mean, None, None, 1, metric(name).higher_is_better)
    low, high = statistics.interval(change, how.confidence, how.bootstrap, how.seed)
    return Difference(mean, low, high, len(change), metric(name).higher_is_better)


# ---------------------------------------------------------------------------------------------- words


def number(value: float | None, digits: int) -> str:
    """Fixed decimals with a real minus sign; a dash for no value."""
    if value is None or not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0.0 else text.replace("-", "−")


def signed(value: float, digits: int) -> str:
    """As `number`, with a plus sign in front of what is above zero."""
    text = number(value, digits)
    return text if text[0] in "−–" or float(text) == 0.0 else f"+{text}"


def evidence(difference: Difference, name: str, confidence: float) -> str:
    """'95 % interval +2.90 to +3.50, 24 files'."""
    if difference.low is None or difference.high is None:
        return "1 file, so no interval"
    digits = metric(name).digits
    low, high = signed(difference.low, digits), signed(difference.high, digits)
    return f"{confidence * 100:g} % interval {low} to {high}, {difference.n} files"


def amount(difference: Difference, name: str) -> str:
    """'+3.21 dB'."""
    how = metric(name)
    return f"{signed(difference.mean, how.digits)} {how.unit}".strip()


def sentence(system: str, differences: dict[str, Difference | None], confidence: float) -> str:
    """What a system does to its input, in plain words; bad news is said like good news."""
    groups: dict[str, list[str]] = {"better": [], "worse": [], "unclear": []}
    for name in HEAD:
        found = differences.get(name)
        if found is None:
            continue
        label, change, proof = metric(name).label, amount(found, name), evidence(found, name, confidence)
        text = f"{label} by {change} ({proof})" if found.verdict == "better" else f"{label} ({change}; {proof})"
        groups[found.verdict].append(text)
    openings = {
        "better": "improves its input in",
        "worse": "stays below its input in",
        "unclear": "shows no clear difference to its input in",
    }
    parts = [f"{openings[verdict]} {_join(texts)}" for verdict, texts in groups.items() if texts]
    if not parts:
        return f"{system} cannot be compared with its input: no file has a score for both."
    return f"{system} {'; it '.join(parts)}."


def _join(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
