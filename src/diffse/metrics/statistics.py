"""Scores of many files: mean, spread, intervals, and whether two systems really differ.

Everything is computed over files and is the same for one seed. Systems are compared on the files that all of
them have a value for, so that every comparison and every rank rests on one set of files.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Test = Literal["wilcoxon", "permutation"]
Correction = Literal["holm", "fdr_bh", "none"]

MIN_CLUSTERS = 5  # resampling fewer speakers gives an interval that is far too narrow
_DRAWS_AT_ONCE = 1 << 22  # indices held in memory
_EXACT_WITH_TIES = 13  # files, up to which ties leave the signed-rank test exact; as scipy has it


# --------------------------------------------------------------------------------------- one system


def summarise(values: np.ndarray, confidence: float, resamples: int, seed: int) -> dict[str, Any]:
    """Mean, population standard deviation and interval over the finite `values` [files].

    Returns {"mean", "std", "low", "high", "n"}: low and high bound the mean with `confidence`, by the
    percentiles of `resamples` bootstrap means over files. What too few files cannot give is None: all but n
    without any, the interval with one.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    mean, std = (float(finite.mean()), float(finite.std())) if len(finite) else (None, None)
    low, high = interval(finite, confidence, resamples, seed) if len(finite) > 1 else (None, None)
    return {"mean": mean, "std": std, "low": low, "high": high, "n": len(finite)}


def interval(values: np.ndarray, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` [files] (Efron, 1979); the same for one seed."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // len(values))
    means = [
        values[rng.integers(len(values), size=(min(at_once, resamples - done), len(values)))].mean(axis=1)
        for done in range(0, resamples, at_once)
    ]
    return _percentiles(np.concatenate(means), confidence)


def cluster_interval(
    values: np.ndarray, clusters: Sequence[Any], confidence: float, resamples: int, seed: int
) -> tuple[float, float] | None:
    """Percentile interval of the mean when files of one cluster (a speaker) resemble each other.

    values: finite [files]; clusters: the cluster of each file. Whole clusters are drawn with replacement
    (cluster bootstrap: Davison and Hinkley, 1997, section 3.8). None with fewer than MIN_CLUSTERS of them.
    """
    _, places = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
    count = int(places.max(initial=-1)) + 1
    if count < MIN_CLUSTERS:
        return None
    sums, sizes = np.bincount(places, weights=values), np.bincount(places)
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    return _percentiles(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), confidence)


def _percentiles(means: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


# --------------------------------------------------------------------------------------- two systems


@dataclass(frozen=True)
class Comparison:
    """`first` minus `second` over the same n files."""

    first: str
    second: str
    mean: float
    low: float  # bootstrap interval of the mean over files
    high: float
    p: float  # of the paired test, two-sided
    corrected: float  # for all pairs that were tested together
    cohen: float  # d_z: mean over standard deviation of the differences; NaN if they do not vary
    rank_biserial: float  # share of signed ranks in favour of `first` minus the others' share, -1 to 1
    n: int

    def winner(self, alpha: float, higher_is_better: bool = True) -> str | None:
        """The better system, or None: not significant, or mean and ranks point to different ones."""
        if not self.corrected <= alpha or self.mean * self.rank_biserial <= 0:
            return None
        return self.first if (self.mean > 0) == higher_is_better else self.second


@dataclass(frozen=True)
class How:
    """How pairs of systems are tested."""

    test: Test = "wilcoxon"
    correction: Correction = "holm"
    confidence: float = 0.95
    resamples: int = 2000  # of the bootstrap and of the permutation test
    seed: int = 0


def wilcoxon(differences: np.ndarray) -> float:
    """p of the two-sided Wilcoxon signed-rank test; 1 when no file differs. differences: [files]."""
    from scipy import stats

    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    ranks = stats.rankdata(np.abs(moved))
    if len(moved) <= _EXACT_WITH_TIES and len(np.unique(ranks)) < len(moved):
        # What scipy's test does here one sign after the other, in one array: 0.2 s become milliseconds.
        found = stats.permutation_test(
            (ranks * np.sign(moved),), np.sum, permutation_type="samples", vectorized=True, n_resamples=np.inf
        )
        return float(found.pvalue)
    return float(stats.wilcoxon(moved).pvalue)


def permutation(differences: np.ndarray, resamples: int, seed: int) -> float:
    """p of the two-sided sign-flip test of the mean: exact where 2^files is at most `resamples`.

    Otherwise the smallest value is 1 / (resamples + 1) (Phipson and Smyth, 2010).
    """
    from scipy import stats

    if not differences.any():
        return 1.0
    found = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=True, n_resamples=resamples,
        batch=max(1, _DRAWS_AT_ONCE // len(differences)), rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def cohen_dz(differences: np.ndarray) -> float:
    """Standardised mean difference of pairs (Cohen, 1988); NaN when all differences are the same."""
    mean = float(np.mean(differences))
    spread = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    rounding = 1e-9 * float(np.max(np.abs(differences), initial=0.0))
    return mean / spread if spread > rounding else float("nan")


def rank_biserial(differences: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation (Kerby, 2014), -1 to 1; 0 when no file differs."""
    from scipy import stats

    moved = differences[differences != 0]
    if not len(moved):
        return 0.0
    ranks = stats.rankdata(np.abs(moved))
    return float((ranks * np.sign(moved)).sum() / ranks.sum())


def adjusted(p_values: Sequence[float], correction: Correction) -> list[float]:
    """p values corrected for being tested together (Holm, 1979; Benjamini and Hochberg, 1995)."""
    if correction == "none" or not len(p_values):
        return list(p_values)
    if correction == "fdr_bh":
        from scipy import stats

        return stats.false_discovery_control(p_values).tolist()
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    return stepped[np.argsort(order)].tolist()


def compare(scores: dict[str, np.ndarray], how: How) -> list[Comparison]:
    """Every pair of systems. scores: system -> finite [files], all over the same files in the same order.

    Their p values are corrected together. Empty for fewer than two files or systems.
    """
    names = list(scores)
    files = len(scores[names[0]]) if names else 0
    if files < 2 or len(names) < 2:
        return []
    table = np.stack([np.asarray(scores[name], dtype=np.float64) for name in names], axis=1)
    means = bootstrap_means(table, how.resamples, how.seed)
    pairs = list(itertools.combinations(range(len(names)), 2))
    p_values = [_p(table[:, a] - table[:, b], how) for a, b in pairs]
    found = []
    for (a, b), p, corrected in zip(pairs, p_values, adjusted(p_values, how.correction), strict=True):
        change = table[:, a] - table[:, b]
        low, high = _percentiles(means[:, a] - means[:, b], how.confidence)
        sizes = cohen_dz(change), rank_biserial(change)
        found.append(
            Comparison(names[a], names[b], float(change.mean()), low, high, p, corrected, *sizes, files)
        )
    return found


def _p(differences: np.ndarray, how: How) -> float:
    if how.test == "permutation":
        return permutation(differences, how.resamples, how.seed)
    return wilcoxon(differences)


def bootstrap_means(table: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means [resamples, systems] of `table` [files, systems] over the same drawn files for all systems."""
    files = len(table)
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // files)
    chances = np.full(files, 1 / files)
    counts = (
        rng.multinomial(files, chances, size=min(at_once, resamples - done))
        for done in range(0, resamples, at_once)
    )
    return np.concatenate([drawn @ table / files for drawn in counts])


def ranks(
    systems: Sequence[str], comparisons: Sequence[Comparison], alpha: float, higher_is_better: bool = True
) -> dict[str, int]:
    """1 + the number of systems that are significantly better. Systems may share a rank."""
    beaten = dict.fromkeys(systems, 0)
    for pair in comparisons:
        winner = pair.winner(alpha, higher_is_better)
        if winner is not None:
            beaten[pair.second if winner == pair.first else pair.first] += 1
    return {system: 1 + count for system, count in beaten.items()}
