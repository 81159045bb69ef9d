"""Levels of the training spectrograms: what EDM2SE's preconditioning is made of (paper 001, section 4)."""

from pathlib import Path

from diffse import paths, settings
from diffse.data import cache_reader
from diffse.errors import DiffseError
from diffse.storage import read_json, write_json

FORMAT = 1
LEVELS = ("sigma_x", "sigma_n", "sigma_y")


def run(params: settings.Params, corpus: str, root: Path) -> dict:
    """Write data/<corpus>/statistics.json: sigma_x, sigma_n and sigma_y of the training split for factor 1.

    Root mean squares per real channel of the compressed clean, noise (y - x) and noisy spectrograms, each
    utterance scaled so that its noisy peak is 1. They were measured while the cache was written: nothing is
    read again. DiffseError for a cache of another transform, and one of silence only.
    """
    cache = cache_reader.CacheReader(paths.cache(root, corpus), "train")
    cache.expect(params.cache)
    measured = cache.description["statistics"]
    if not measured["utterances"]:
        raise DiffseError(f"{cache.folder}: all training utterances are silent; look at their gate")
    levels = {name: float(f"{measured[name]:.6g}") for name in LEVELS}
    facts = {"utterances": measured["utterances"], "mixtures_sha256": cache.description["mixtures_sha256"]}
    write_json(paths.statistics(root, corpus), {"format": FORMAT} | facts | levels)
    return levels | {"utterances": measured["utterances"]}


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
