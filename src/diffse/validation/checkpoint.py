"""Gate of a trained system: models/<system>, its two checkpoints and its losses."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffse import paths, storage
from diffse.data import manifest
from diffse.errors import DiffseError
from diffse.settings import CheckpointRules, Params
from diffse.validation.rules import Rule, Subject, Table

if TYPE_CHECKING:
    import pandas

WEIGHTS, DESCRIPTION, HISTORY = "weights.safetensors", "checkpoint.json", "history.csv"
AGAIN = "delete models/<system> and run 'diffse train' again"
_LARGEST = 1e12  # a loss beyond has left every scale


def subject(params: Params, names: tuple[str, ...], root: Path) -> Subject:
    """Tables and rules for one system. DiffseError when it was not trained or its corpus is not here."""
    import pandas

    (system,) = names
    recipe, corpus = paths.split_system(system)
    folder, mixtures = paths.model(root, system), paths.mixtures(root, corpus) / manifest.FILE
    if not folder.is_dir():
        raise DiffseError(f"{folder}: no such system; run 'diffse train {system}'")
    if not mixtures.is_file():
        raise DiffseError(f"{mixtures}: no such file; run 'diffse prepare {corpus}'")
    losses = _loss_table(folder / HISTORY)
    data_version = storage.sha256_file(mixtures)
    checkpoints = [_look_into(folder / name, recipe, corpus, data_version) for name in ("best", "last")]
    columns = ["id", "readable", "only_these", "checksum_matches", "belongs", "data_matches", "non_finite"]
    tables = {
        "checkpoints": pandas.DataFrame(checkpoints, columns=[*columns, "parameters_off"]),
        "losses": losses,
        "training": pandas.DataFrame([_training_facts(folder / "last" / DESCRIPTION, losses)]),
    }
    inputs = [folder / name / file for name in ("best", "last") for file in (WEIGHTS, DESCRIPTION)]
    return Subject(tables, _rules(params.check.checkpoint), [*inputs, folder / HISTORY, mixtures])


# ------------------------------------------------------------------------------------------------ tables


def _look_into(folder: Path, recipe: str, corpus: str, data_version: str) -> dict[str, Any]:
    """Facts on one checkpoint. Weights are read tensor by tensor, as numbers; no code of theirs can run."""
    from safetensors import SafetensorError, safe_open

    row: dict[str, Any] = {"id": folder.name, "readable": False}
    try:
        description = storage.read_json(folder / DESCRIPTION)
        with safe_open(folder / WEIGHTS, framework="numpy") as weights:
            counts = [_count(weights.get_tensor(name)) for name in sorted(weights.keys())]
        values, non_finite = (sum(column) for column in zip(*counts, strict=True))
        return row | {
            "readable": True,
            "only_these": {item.name for item in folder.iterdir()} == {WEIGHTS, DESCRIPTION},
            "checksum_matches": storage.sha256_file(folder / WEIGHTS) == description["weights_sha256"],
            "belongs": (description["recipe"], description["trained_on"]) == (recipe, corpus),
            "data_matches": description["data_version"] == data_version,
            "non_finite": non_finite,
            "parameters_off": abs(values - description.get("values", description["parameters"])),
        }
    except (DiffseError, SafetensorError, OSError, KeyError, TypeError, ValueError):
        return row


def _count(tensor: np.ndarray) -> tuple[int, int]:
    return tensor.size, tensor.size - int(np.count_nonzero(np.isfinite(tensor)))


def _loss_table(path: Path) -> "pandas.DataFrame":
    """history.csv; an empty table when it is missing or damaged, which the rule on its rows reports."""
    import pandas

    try:
        frame = pandas.read_csv(path)
        return frame.assign(id=["step " + str(step) for step in frame["step"]])
    except (OSError, ValueError, KeyError):
        return pandas.DataFrame({"id": [], "step": [], "loss": [], "grad_norm": []})


def _training_facts(description: Path, losses: "pandas.DataFrame") -> dict[str, Any]:
    steps_missing, before = math.nan, 0
    try:
        last = storage.read_json(description)
        steps_missing = float(abs(last["train"]["steps"] - last["step"]))
        before = int((last["train"].get("predictor") or {}).get("pretrain_steps", 0))
    except (DiffseError, KeyError, TypeError, ValueError, AttributeError):
        pass  # the rule on readable checkpoints speaks of it
    return {
        "id": "training",
        "steps_missing": steps_missing,
        # while a predictor is trained alone, the loss is another one
        "loss_ratio": loss_ratio(losses.loc[losses["step"] > before, "loss"].to_numpy(float)),
    }


def loss_ratio(losses: np.ndarray) -> float:
    """Median of the last tenth of the losses over that of the first tenth; NaN without losses."""
    tenth = max(1, len(losses) // 10)
    if len(losses) == 0:
        return math.nan
    first, last = float(np.median(losses[:tenth])), float(np.median(losses[-tenth:]))
    return last / first if first > 0 else math.nan


# ------------------------------------------------------------------------------------------------- rules


def _rules(limits: CheckpointRules) -> list[Rule]:
    checkpoints, losses, training = Table("checkpoints"), Table("losses"), Table("training")
    diverged = "lower lr or set gradient_clip, and train again"
    return [
        checkpoints.rows("checkpoints", 2, AGAIN),
        checkpoints.true("weights and description can be read", "readable", AGAIN),
        checkpoints.true(
            "nothing but weights and description", "only_these", "remove other files", missing=1.0
        ),
        checkpoints.true("checksum of the weights", "checksum_matches", AGAIN, missing=1.0),
        checkpoints.true("of this recipe and corpus", "belongs", AGAIN, missing=1.0),
        checkpoints.true("trained on the present mixtures", "data_matches", "train again", missing=1.0),
        checkpoints.within("weights that are NaN or infinite", "non_finite", 0, 0, diverged, missing=1.0),
        checkpoints.within("parameters as stated (apart)", "parameters_off", 0, 0, AGAIN, missing=1.0),
        losses.rows("losses", 1, AGAIN),
        losses.within("losses are finite", "loss", -_LARGEST, _LARGEST, diverged),
        losses.within("gradient norms are finite", "grad_norm", 0.0, _LARGEST, diverged),
        training.within(
            "steps left to train", "steps_missing", 0, 0, "run 'diffse train' to the end", missing=1.0
        ),
        training.within(
            "last losses over first",
            "loss_ratio",
            0.0,
            limits.max_final_loss_ratio,
            f"{diverged}; or change check.checkpoint.max_final_loss_ratio",
        ),
    ]
