"""Results of sweeps and swaps as the steps wrote them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffse import paths, storage
from diffse.errors import DiffseError
from diffse.settings import Params


@dataclass(frozen=True)
class Trial:
    """One row: the input (the only one without `evaluations`), or a variant of a system.

    `metrics`: column -> {"mean", "low", "high", "n", "missing"}; numbers may be None.
    """

    name: str
    value: float | None
    evaluations: float | None
    parameters: int | None
    real_time_factor: float | None
    metrics: dict[str, dict[str, Any]]
    family: str = ""  # rows of one name are a curve

    @property
    def is_input(self) -> bool:
        return self.evaluations is None


@dataclass(frozen=True)
class Trials:
    """One sweep or swap. `facts`: its summary.json without the rows."""

    kind: str  # sweep or swap
    name: str
    facts: dict[str, Any]
    rows: tuple[Trial, ...]

    @property
    def metrics(self) -> list[str]:
        return list(self.facts["units"])


def load(params: Params, root: Path) -> tuple[list[Trials], list[str]]:
    """(those that are there, in the order of the settings; plain sentences on the others)."""
    places = [(paths.sweep(root, name), "sweep", name) for name in params.sweeps]
    places += [(paths.swap(root, name), "swap", name) for name in params.swaps]
    found, missing = [], []
    for folder, kind, name in places:
        if (folder / "summary.json").is_file():
            found.append(read(folder / "summary.json"))
        else:
            missing.append(f"The {kind} {name} has not been run.")
    return found, missing


def read(path: Path) -> Trials:
    """One summary.json; DiffseError when it is damaged."""
    try:
        return parse(storage.read_json(path))
    except (KeyError, TypeError):
        raise DiffseError(f"{path}: not complete; delete it and run its step again") from None


def parse(summary: dict[str, Any]) -> Trials:
    """What `summary.json` holds."""
    names = ("name", "value", "evaluations", "parameters", "real_time_factor", "metrics")
    rows = tuple(
        Trial(**{name: trial[name] for name in names}, family=trial.get("family", ""))
        for trial in summary["trials"]
    )
    facts = {name: value for name, value in summary.items() if name != "trials"}
    wanted = ("kind", "system", "corpus", "split", "files", "confidence", "units")
    wanted += ("over",) if summary["kind"] == "sweep" else ("predictor",)
    return Trials(summary["kind"], summary["name"], {name: facts[name] for name in wanted}, rows)
