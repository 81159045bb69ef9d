"""Levels of the training spectrograms: what EDM2SE's preconditioning is made of (paper 001, section 4)."""

from pathlib import Path

import numpy as np

from diffse import paths, settings
from diffse.data.batches import gain
from diffse.data.cache_reader import CacheReader
from diffse.errors import DiffseError
from diffse.storage import read_json, write_json

FORMAT = 1


def run(params: settings.Params, corpus: str, root: Path) -> dict:
    """Write data/<corpus>/statistics.json: sigma_x, sigma_n and sigma_y of the training split for factor 1.

    Root mean squares per real channel of the compressed clean, noise (y - x) and noisy spectrograms, each
    utterance scaled so that its noisy peak is 1. Reads one utterance at a time.
    """
    cache = CacheReader(paths.cache(root, corpus), "train")
    cache.expect(params.cache)
    sums, count = np.zeros(3), 0
    for item in range(len(cache)):
        frames = int(cache.n_frames[item])
        scale = gain(cache.peak(item, 0, frames, 1)) ** cache.stft.exponent
        clean, noisy = np.moveaxis(np.asarray(cache.read(item, 0, frames), dtype=np.float64) * scale, 1, 0)
        sums += [np.square(part).sum() for part in (clean, noisy - clean, noisy)]
        count += clean.size
    levels = dict(zip(("sigma_x", "sigma_n", "sigma_y"), np.sqrt(sums / count).tolist(), strict=True))
    write_json(
        paths.statistics(root, corpus),
        {"format": FORMAT, "utterances": len(cache), "mixtures_sha256": cache.description["mixtures_sha256"]}
        | {name: float(f"{value:.6g}") for name, value in levels.items()},
    )
    return levels | {"utterances": len(cache)}


def read(path: Path) -> dict:
    """The levels; DiffseError when they have not been measured."""
    if not path.is_file():
        raise DiffseError(
            f"{path}: missing; run 'diffse estimate {path.parent.name}', or set sigma_x and sigma_n"
        )
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DiffseError(f"{path}: not statistics of format {FORMAT}; run 'diffse estimate' again")
    return found
