"""Which systems differ from each other, metric by metric, and the ranks that follow from it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffse.metrics import statistics
from diffse.report.artifacts import Project, Scores
from diffse.report.compare import metric, ordered
from diffse.settings import Params

if TYPE_CHECKING:
    import pandas

PAIR_COLUMNS = ("corpus", "metric", "first", "second", "difference", "low", "high", "p", "p_corrected")
PAIR_COLUMNS += ("cohen_dz", "rank_biserial", "files", "better")


@dataclass(frozen=True)
class Ranking:
    """One metric on one corpus, over the files that every system has a value for.

    `systems` stand from best to worst mean; those of one rank are not to be told apart from the best of them.
    """

    metric: str
    systems: tuple[str, ...]
    means: dict[str, float]
    by_speaker: dict[str, tuple[float, float]]  # intervals; empty with too few speakers
    ranks: dict[str, int]
    pairs: tuple[statistics.Comparison, ...]
    files: int
    left_out: int  # files that some system has no value for
    absent: tuple[str, ...]  # systems without any value: they take no part
    speakers: int
    alpha: float

    @property
    def decided(self) -> bool:
        """Whether any two systems differ."""
        return len(set(self.ranks.values())) > 1

    @property
    def best(self) -> frozenset[str]:
        """Systems that no other is better than; none where nothing is decided."""
        return frozenset(name for name, rank in self.ranks.items() if rank == 1 and self.decided)

    def winner(self, pair: statistics.Comparison) -> str | None:
        """The better system of a pair, if one is."""
        return pair.winner(self.alpha, metric(self.metric).higher_is_better)


def common(rows: Iterable[Scores], name: str) -> "pandas.DataFrame":
    """Values of a metric by file (rows) and system (columns), only of files that every column has.

    Systems without a single value have no column.
    """
    import pandas

    columns = {
        row.system: row.table[name] for row in rows if name in row.table and row.table[name].notna().any()
    }
    return pandas.DataFrame(columns).dropna().sort_index()


def rankings(project: Project, corpus: str, params: Params) -> dict[str, Ranking]:
    """Metric -> ranking, of every metric that at least two systems have values of."""
    rows = project.evaluated(corpus)
    names = ordered({name for row in rows for name in row.scores_in_table})
    found = {name: _ranking(rows, name, params) for name in names}
    return {name: ranking for name, ranking in found.items() if ranking is not None}


def _ranking(rows: list[Scores], name: str, params: Params) -> Ranking | None:
    values = common(rows, name)
    if len(values) < 2 or len(values.columns) < 2:
        return None
    how, report = params.evaluate, params.report
    settings = statistics.How(report.test, report.correction, how.confidence, how.bootstrap, how.seed)
    pairs = statistics.compare({system: values[system].to_numpy() for system in values}, settings)
    upward = metric(name).higher_is_better
    means = values.mean().sort_values(ascending=not upward, kind="stable")
    files = set().union(*(row.table.index for row in rows))
    speakers = _speakers(rows, values.index)
    return Ranking(
        metric=name,
        systems=tuple(means.index),
        means={str(system): float(mean) for system, mean in means.items()},
        by_speaker=_by_speaker(values, speakers, params),
        ranks=statistics.ranks(list(means.index), pairs, report.alpha, upward),
        pairs=tuple(pairs),
        files=len(values),
        left_out=len(files) - len(values),
        absent=tuple(row.system for row in rows if row.system not in values.columns),
        speakers=len(set(speakers) - {""}),
        alpha=report.alpha,
    )


def _speakers(rows: list[Scores], files: "pandas.Index") -> np.ndarray:
    """Speaker of each file; "" where it is not known."""
    for row in rows:
        if "speaker" in row.table:
            return row.table["speaker"].reindex(files).fillna("").to_numpy()
    return np.full(len(files), "")


def _by_speaker(
    values: "pandas.DataFrame", speakers: np.ndarray, params: Params
) -> dict[str, tuple[float, float]]:
    how = params.evaluate
    if "" in speakers:
        return {}
    found = {
        str(system): statistics.cluster_interval(
            values[system].to_numpy(), speakers, how.confidence, how.bootstrap, how.seed
        )
        for system in values
    }
    return {system: interval for system, interval in found.items() if interval is not None}


# ------------------------------------------------------------------------------------------- words


def standing(ranking: Ranking) -> list[tuple[int, list[str]]]:
    """(rank, its systems) from the best rank on."""
    groups: dict[int, list[str]] = {}
    for system in ranking.systems:
        groups.setdefault(ranking.ranks[system], []).append(system)
    return sorted(groups.items())


def basis(ranking: Ranking) -> str:
    """On which files a ranking rests, in words."""
    text = f"{ranking.files} files that every system has a value for"
    if ranking.left_out:
        text += f"; {ranking.left_out} left out"
    if ranking.absent:
        text += f"; without any value: {', '.join(ranking.absent)}"
    return text


def pair_rows(corpus: str, found: dict[str, Ranking]) -> list[list[object]]:
    """One row of PAIR_COLUMNS per metric and pair."""
    rows: list[list[object]] = []
    for name, ranking in found.items():
        for pair in ranking.pairs:
            numbers = (pair.mean, pair.low, pair.high, pair.p, pair.corrected, pair.cohen, pair.rank_biserial)
            texts = ["" if np.isnan(value) else f"{value:.6g}" for value in numbers]
            rows.append([corpus, name, pair.first, pair.second, *texts, pair.n, ranking.winner(pair) or ""])
    return rows
