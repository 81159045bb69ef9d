"""Scores by what a file is like: SNR, noise, speaker, gender and reverberation time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffse.metrics import statistics
from diffse.report.artifacts import Project
from diffse.report.compare import HEAD, ordered
from diffse.report.significance import common
from diffse.settings import Params

if TYPE_CHECKING:
    import pandas

COLUMNS = ("corpus", "metric", "factor", "group", "system", "mean", "low", "high", "files")
MAX_GROUPS = 40  # of one factor; with more, the factor says nothing at a glance
_FEW = 6  # so many different numbers are groups of their own
_SNR_STEP, _T60_STEP = 5.0, 0.2  # dB, s


@dataclass(frozen=True)
class Factor:
    """A property of files. `step`: width of the ranges that numbers are put into; None: a text."""

    column: str
    label: str
    step: float | None = None
    unit: str = ""


FACTORS = (
    Factor("snr_db", "SNR", _SNR_STEP, "dB"),
    Factor("noise_kind", "Noise"),
    Factor("speaker", "Speaker"),
    Factor("gender", "Gender"),
    Factor("t60", "T60", _T60_STEP, "s"),
)
_WORDS = {"gender": {"f": "female", "m": "male"}}


@dataclass(frozen=True)
class Group:
    """Files of one kind: system -> (mean, low, high); the bounds are None for a single file."""

    label: str
    files: int
    values: dict[str, tuple[float, float | None, float | None]]
    middle: float = 0.0  # of its range of numbers


@dataclass(frozen=True)
class Breakdown:
    """One metric by one factor, over the files that every system has a value for."""

    metric: str
    factor: Factor
    systems: tuple[str, ...]
    groups: tuple[Group, ...]
    unknown: int  # files without the property


def breakdowns(project: Project, corpus: str, params: Params) -> list[Breakdown]:
    """Of each metric, those of HEAD first, and each factor that splits the files into at least two groups."""
    rows = project.evaluated(corpus)
    names = dict.fromkeys((*HEAD, *ordered({name for scores in rows for name in scores.metrics})))
    facts = _facts(project, corpus)
    if facts.empty:
        return []
    found = []
    for name in names:
        values = common(rows, name)
        for factor in FACTORS if len(values) else ():
            if factor.column in facts:
                found.append(_breakdown(name, factor, values, facts[factor.column], params))
    return [one for one in found if 2 <= len(one.groups) <= MAX_GROUPS]


def _facts(project: Project, corpus: str) -> "pandas.DataFrame":
    """Properties of the files, by id: of the results where they have them, else of the manifest."""
    import pandas

    columns: dict[str, pandas.Series] = {}
    tables = [scores.table for scores in project.evaluated(corpus)]
    mixtures = project.mixtures[corpus].table
    if mixtures is not None:
        tables.append(mixtures.set_index("id"))
    for factor in FACTORS:
        for table in tables:
            if factor.column in table and factor.column not in columns:
                columns[factor.column] = table[factor.column]
    return pandas.DataFrame(columns)


def _breakdown(
    name: str, factor: Factor, values: "pandas.DataFrame", facts: "pandas.Series", params: Params
) -> Breakdown:
    labels = _labels(factor, facts.reindex(values.index))
    how = params.evaluate
    groups = []
    for label in dict.fromkeys(labels[labels.notna()].sort_values(key=_order)):
        part = values[(labels == label).to_numpy()]
        found = {}
        for system in part:
            one = statistics.summarise(part[system].to_numpy(), how.confidence, how.bootstrap, how.seed)
            found[str(system)] = (one["mean"], one["low"], one["high"])
        middle = sum(label) / 2 if isinstance(label, tuple) else 0.0
        groups.append(Group(_text(factor, label), len(part), found, middle))
    systems = tuple(str(system) for system in values)
    return Breakdown(name, factor, systems, tuple(groups), int(labels.isna().sum()))


def _order(labels: "pandas.Series") -> "pandas.Series":
    """Ranges by their lower end, texts by themselves."""
    return labels.map(lambda label: label[0] if isinstance(label, tuple) else label)


def _labels(factor: Factor, facts: "pandas.Series") -> "pandas.Series":
    """Group of each file: a text, or (low, high) of a range; missing where the property is not known."""
    import pandas

    if factor.step is None:
        return facts.astype(object).where(facts.notna() & (facts != ""), None)
    numbers = pandas.to_numeric(facts, errors="coerce")
    known = numbers.dropna()
    bounds = _ranges(known.to_numpy(), factor.step)
    return pandas.Series([bounds(number) for number in numbers], index=facts.index, dtype=object)


def _ranges(known: np.ndarray, step: float) -> Callable[[float], tuple[float, float] | None]:
    """Function number -> its range: itself where numbers repeat, else from k step to (k + 1) step."""
    few = len(np.unique(np.round(known, 6))) <= _FEW

    def find(number: float) -> tuple[float, float] | None:
        if not np.isfinite(number):
            return None
        if few:
            value = round(float(number), 6)
            return value, value
        place = np.floor(number / step + 1e-9)
        return round(float(place * step), 6), round(float((place + 1) * step), 6)

    return find


def _text(factor: Factor, label: object) -> str:
    if not isinstance(label, tuple):
        return _WORDS.get(factor.column, {}).get(str(label), str(label))
    low, high = (f"{end:g}".replace("-", "−") for end in label)
    return f"{low} {factor.unit}" if low == high else f"{low} to {high} {factor.unit}"


def csv_rows(corpus: str, found: list[Breakdown]) -> list[list[object]]:
    """One row of COLUMNS per metric, factor, group and system."""
    rows: list[list[object]] = []
    for one in found:
        for group in one.groups:
            for system, bounds in group.values.items():
                texts = ["" if value is None else f"{value:.6g}" for value in bounds]
                rows.append([corpus, one.metric, one.factor.column, group.label, system, *texts, group.files])
    return rows
