"""All scores of one utterance. Training validates with it, so importing it costs nothing."""

import math

import numpy as np

from diffse.metrics import table
from diffse.metrics.checks import Missing


def score_pair(
    clean: np.ndarray, noisy: np.ndarray, enhanced: np.ndarray, rate: int, metrics: tuple[str, ...]
) -> dict[str, float | str]:
    """Scores of `enhanced` against `clean`, as a row of per_file.csv.

    clean, noisy, enhanced: float [samples], of one length (ValueError otherwise); rate in Hz; metrics: names
    of `table.METRICS`. Returns for each column its value, and under `<column>_reason` why the value is
    missing (NaN), or "". A score that cannot be computed never raises.
    """
    if not (clean.ndim == 1 and clean.shape == noisy.shape == enhanced.shape):
        raise ValueError(
            f"clean {clean.shape}, noisy {noisy.shape} and enhanced {enhanced.shape} differ in shape"
        )
    row: dict[str, float | str] = {}
    for name in metrics:
        metric = table.find(name)
        try:
            values = np.atleast_1d(metric.compute(clean, enhanced, noisy, rate)).tolist()
            reason = ""
        except Missing as missing:
            values, reason = [math.nan] * len(metric.columns), missing.reason
        for column, value in zip(metric.columns, values, strict=True):
            unsaid = "not a number" if math.isnan(value) else ""
            row |= {column.name: value, f"{column.name}_reason": reason or unsaid}
    return row
