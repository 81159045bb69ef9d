"""Where each artifact of a project lives, relative to the folder that holds `params.yaml`.

A system is a recipe trained on a corpus, written `<recipe>.<corpus>`; the unprocessed input is the system
`unprocessed`.
"""

import os
from pathlib import Path

from diffse.errors import DiffseError

UNPROCESSED = "unprocessed"
STATE = "state.pt"  # in a model's folder while it is trained
MEASURES = "measures.parquet"  # beside the mixtures: what their gate has measured


def source(root: Path, corpus: str) -> Path:
    """Recordings or texts that a corpus is made from (a folder or a link to one)."""
    return root / "sources" / corpus


def mixtures(root: Path, corpus: str) -> Path:
    """Prepared pairs: manifest.parquet, rejected.csv and FLAC shards."""
    return root / "data" / corpus / "mixtures"


def cache(root: Path, corpus: str) -> Path:
    """Compressed spectrograms for training."""
    return root / "data" / corpus / "cache"


def statistics(root: Path, corpus: str) -> Path:
    """Levels of the training spectrograms (JSON)."""
    return root / "data" / corpus / "statistics.json"


def model(root: Path, system: str) -> Path:
    """Checkpoints, training state and curves."""
    return root / "models" / system


def enhanced(root: Path, system: str, corpus: str) -> Path:
    """Enhanced test split of a corpus: manifest.parquet, enhanced.json and FLAC shards."""
    return root / "enhanced" / system / corpus


def results(root: Path, system: str, corpus: str) -> Path:
    """per_file.csv and summary.json."""
    return root / "results" / system / corpus


def sweep(root: Path, name: str) -> Path:
    """Table, plot and facts of a sweep."""
    return root / "results" / "sweeps" / name


def swap(root: Path, name: str) -> Path:
    """Scores of a system with another predictor."""
    return root / "results" / "swaps" / name


def listening(root: Path, name: str) -> Path:
    """Ratings of a listening test: ratings.csv and summary.json."""
    return root / "results" / "listening" / name


def gate(root: Path, artifact: str, *names: str) -> Path:
    """Gate result: gates/<artifact>/<name>[/<corpus>].json."""
    return root.joinpath("gates", artifact, *names[:-1], f"{names[-1]}.json")


def report(root: Path) -> Path:
    """Folder of index.html and summary.csv."""
    return root / "report"


def runs(root: Path) -> Path:
    """One JSON record per run of a verb."""
    return root / "runs"


def user_cache() -> Path:
    """What diffse keeps for a user across projects: weights and scores. `DIFFSE_CACHE` puts it elsewhere."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DIFFSE_CACHE") or Path(home) / "diffse")


def split_system(system: str) -> tuple[str, str]:
    """'recipe.corpus' -> (recipe, corpus); DiffseError when it has another form."""
    recipe, dot, corpus = system.partition(".")
    if not (recipe and dot and corpus) or "/" in system or ".." in system:
        raise DiffseError(f"'{system}' is not a system; write <recipe>.<corpus>, for example bridge_demo.demo")
    return recipe, corpus
