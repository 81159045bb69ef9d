"""Whether two sets of recordings are of one kind: population stability index and Kolmogorov-Smirnov test."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas

NUMBERS = {
    "snr_measured_db": "SNR (dB)",
    "seconds": "length (s)",
    "level_dbfs": "speech level (dBFS)",
    "noisy_dbfs": "mixture level (dBFS)",
    "t60": "reverberation time (s)",
}
KINDS = {"noise_kind": "kind of noise", "gender": "gender"}
_BINS = 10  # quantiles of the reference
_FLOOR = 1e-3  # share of an empty bin
SHIFTED, DIFFERENT = 0.1, 0.25  # the usual limits of the index
_P = 0.01


@dataclass(frozen=True)
class Drift:
    """How far a column is from the reference. `p`: of the test, NaN for kinds; `index`: stability index."""

    label: str
    index: float
    p: float

    @property
    def verdict(self) -> str:
        """'alike', 'shifted' or 'different'; a difference that chance explains counts as alike."""
        if self.index < SHIFTED or self.p > _P:
            return "alike"
        return "shifted" if self.index < DIFFERENT else "different"


def drifts(reference: "pandas.DataFrame", other: "pandas.DataFrame") -> list[Drift]:
    """Every column that both manifests can be compared in."""
    found = []
    for column, label in NUMBERS.items():
        if column in reference and column in other:
            before, after = (frame[column].dropna().to_numpy(float) for frame in (reference, other))
            if len(before) > 1 and len(after) > 1:
                found.append(numeric(label, before, after))
    for column, label in KINDS.items():
        if column in reference and column in other and (reference[column] != "").any():
            found.append(Drift(label, kinds(list(reference[column]), list(other[column])), float("nan")))
    return found


def numeric(label: str, before: np.ndarray, after: np.ndarray) -> Drift:
    """Drift of a number: index over the reference's deciles, p of the two-sample Kolmogorov-Smirnov test."""
    from scipy.stats import ks_2samp

    edges = np.unique(np.quantile(before, np.linspace(0, 1, _BINS + 1)[1:-1]))
    shares = [
        np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1) / len(x) for x in (before, after)
    ]
    return Drift(label, stability(*shares), float(ks_2samp(before, after).pvalue))


def kinds(before: list[str], after: list[str]) -> float:
    """Index over the names that occur."""
    names = sorted({*before, *after})
    shares = [
        np.array([values.count(name) / max(len(values), 1) for name in names]) for values in (before, after)
    ]
    return stability(*shares)


def stability(before: np.ndarray, after: np.ndarray) -> float:
    """Population stability index, sum of (q - p) ln(q / p) over bins; 0 for equal shares."""
    p, q = np.maximum(before, _FLOOR), np.maximum(after, _FLOOR)
    return float(np.sum((q - p) * np.log(q / p)))
