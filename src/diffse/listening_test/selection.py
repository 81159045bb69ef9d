"""Which files are heard: drawn at random, but balanced over SNR, gender and speaker."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas

STRATA = 3  # ranges of SNR with the same number of files, where it takes more values than that


def draw(files: "pandas.DataFrame", count: int, seed: int) -> list[str]:
    """Ids of `count` files (all, if there are fewer), in the random order in which they were drawn.

    files: one row per file with id, speaker, gender and SNR (`snr_db`, else `snr_measured_db`). Each next file
    comes from the SNR range, gender and speaker that have had the fewest so far, in this order of importance.
    """
    rng = np.random.default_rng(seed)
    files = files.sort_values("id")
    strata = _strata(files)
    left = [
        (str(row["id"]), (strata[place], str(row.get("gender", "")), str(row.get("speaker", ""))))
        for place, row in enumerate(files.to_dict("records"))
    ]
    left = [left[place] for place in rng.permutation(len(left))]
    used = [Counter(), Counter(), Counter()]
    drawn = []
    while left and len(drawn) < count:
        # the first of the shuffled files with the least-used kind: min keeps that order
        place = min(range(len(left)), key=lambda p: tuple(c[k] for c, k in zip(used, left[p][1], strict=True)))
        item, kinds = left.pop(place)
        for counter, kind in zip(used, kinds, strict=True):
            counter[kind] += 1
        drawn.append(item)
    return drawn


def _strata(files: "pandas.DataFrame") -> list[float]:
    """Range of SNR of each file: its value where there are few, else 0 to STRATA - 1 by quantiles."""
    snr = files["snr_db"].where(files["snr_db"].notna(), files["snr_measured_db"]).to_numpy(dtype=float)
    known = np.unique(snr[np.isfinite(snr)])
    if len(known) <= STRATA + 1:
        return [float(value) if np.isfinite(value) else -1.0 for value in snr]
    edges = np.quantile(snr[np.isfinite(snr)], np.arange(1, STRATA) / STRATA)
    places = np.searchsorted(edges, np.nan_to_num(snr, nan=known[0]), side="right")
    return [float(place) for place in places]
