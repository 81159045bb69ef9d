"""A small folder of prepared mixtures for the tests of what reads mixtures."""

from pathlib import Path

import numpy as np
import pandas

from diffse import paths
from diffse.data import manifest, shards

RATE = 16000
LENGTHS = {"train": [20000, 32768, 9000, 41000, 100, 17777, 50000], "valid": [16000, 12345]}
EMPTY = {"string": "", "int64": 0, "float64": 0.0, "bool": True}


def make_pair(number: int, n_samples: int) -> np.ndarray:
    """[2, n_samples]: a gliding, pausing tone, and the same in noise; quieter with every number.

    The clean tone has a faint noise floor, as every recording has: without one, most bins would hold nothing
    but rounding, which compression makes visible.
    """
    rng = np.random.default_rng(number)
    time = np.arange(n_samples) / RATE
    clean = np.sin(2 * np.pi * (200 + 300 * time) * time) * (np.sin(2 * np.pi * 1.5 * time) > -0.3)
    clean += 1e-3 * rng.standard_normal(n_samples)
    noisy = clean + 0.2 * rng.standard_normal(n_samples)
    return (np.stack([clean, noisy]) * 0.6 / (1 + number)).astype(np.float32)


def write_mixtures(root: Path, corpus: str = "toy", lengths: dict | None = None, pairs: dict | None = None):
    """Write data/<corpus>/mixtures/ below `root` and return its folder; `pairs` replaces single signals."""
    folder = paths.mixtures(root, corpus)
    folder.mkdir(parents=True)
    rows, number = [], 0
    with shards.ShardWriter(folder, RATE, 2, max_bytes=400_000) as writer:
        for split, counts in (lengths or LENGTHS).items():
            for n_samples in counts:
                name = f"{split}_{number:03d}"
                pair = (pairs or {}).get(name, make_pair(number, n_samples))
                placed = writer.add(pair)
                row = {column: EMPTY[kind] for column, kind in manifest.COLUMNS.items()} | placed
                row |= {"id": name, "corpus": corpus, "split": split, "speaker": f"s{number % 2}"}
                rows.append(row | {"rate": RATE, "seconds": n_samples / RATE})
                number += 1
    manifest.write(pandas.DataFrame(rows), folder)
    return folder
