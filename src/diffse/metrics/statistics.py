"""Mean, spread and confidence interval of the scores of many files."""

from typing import Any

import numpy as np

_DRAWS_AT_ONCE = 1 << 22  # indices held in memory


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
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)
