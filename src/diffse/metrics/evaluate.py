"""The step `evaluate`: score the test split of a corpus, enhanced by a system or as it is."""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffse import paths, storage
from diffse.data import shards
from diffse.data.parallel import Workers
from diffse.errors import DiffseError
from diffse.metrics import recognition, results, scoring, suspicions, table, tools, transcripts
from diffse.metrics.scoring import Plan, Signals, Utterance
from diffse.settings import Params

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

FACTS = ("id", "speaker", "noise_kind", "snr_db")  # of the mixture, beside the scores
MORE_FACTS = ("gender", "t60")  # where the manifest has them
COSTS = ("real_time_factor", "evaluations", "parameters", "macs_per_second", "peak_memory_mb")
_OF_SYSTEM = ("recipe", "trained_on", *COSTS, "sampler")
_ITEM = dict.fromkeys(("id", "shard", "position", "n_samples", "gain"), "")  # columns read of enhanced audio
_NAMED = 3  # ids in an error line


def run(params: Params, system: str, corpus: str, root: Path) -> dict[str, Any]:
    """Score the test split of `corpus` as enhanced by `system`; "unprocessed" scores the noisy input.

    Writes results/<system>/<corpus>/per_file.csv and summary.json and returns
    {"files", "means": {column: mean}, "missing": {column: count}, "warnings"}. The same audio and settings give
    the same bytes, whatever the number of processes. DiffseError: no such artifact, ids or lengths that differ,
    a metric without what it needs.
    """
    root, settings = Path(root), params.evaluate
    table.columns(settings.metrics)
    plan = Plan.of(settings.metrics, tools.find(settings, settings.metrics, root), settings.cache)
    mixtures = _test_rows(root, corpus)
    description = {} if system == paths.UNPROCESSED else _description(root, system, corpus)
    facts = [*FACTS, *(name for name in MORE_FACTS if name in mixtures.columns)]
    utterances = _utterances(root, system, corpus, mixtures, facts, _texts(settings.texts, root))
    with Workers(settings.processes) as workers:
        heard = transcripts.by_program(utterances, plan)
        rows = scoring.rows(workers, utterances, plan, f"evaluate {system} on {corpus}", heard)
        warnings = suspicions.of_scores(workers, utterances, rows, plan)
    summary = {
        "system": system,
        "corpus": corpus,
        **{name: description.get(name) for name in _OF_SYSTEM},
        "made_from": _made_from(root, system, corpus, description),
        "files": len(rows),
        "metrics": results.metric_entries(rows, plan, settings, int(mixtures["rate"].iloc[0])),
    }
    folder = paths.results(root, system, corpus)
    results.write(folder, rows, facts, plan, summary)
    warnings = [f"{folder}: {line}" for line in warnings] + suspicions.other_versions(root, corpus, summary)
    return _record(summary, warnings)


def _test_rows(root: Path, corpus: str) -> "pandas.DataFrame":
    from diffse.data import manifest

    folder = paths.mixtures(root, corpus)
    frame = manifest.read(folder)
    frame = frame[frame["split"] == "test"]
    if frame.empty:
        raise DiffseError(f"{folder}: no utterances in the test split, so there is nothing to evaluate")
    return frame


def _description(root: Path, system: str, corpus: str) -> dict[str, Any]:
    """enhanced.json of a system; DiffseError when it is missing or was made from other mixtures."""
    folder = paths.enhanced(root, system, corpus)
    description = storage.read_json(folder / "enhanced.json")
    current = storage.sha256_file(paths.mixtures(root, corpus) / "manifest.parquet")
    if description.get("mixtures_sha256") != current:
        raise DiffseError(f"{folder}: enhanced from other mixtures than the present; run its stage again")
    return description


def _made_from(root: Path, system: str, corpus: str, description: dict[str, Any]) -> dict[str, Any]:
    """Checksums of the manifests that name the audio, and of the weights that made it."""
    found = {"mixtures_sha256": storage.sha256_file(paths.mixtures(root, corpus) / "manifest.parquet")}
    if system != paths.UNPROCESSED:
        found["enhanced_sha256"] = storage.sha256_file(
            paths.enhanced(root, system, corpus) / "manifest.parquet"
        )
    of_weights = ("checkpoint_sha256", "snapshots_sha256")
    return found | {name: description[name] for name in of_weights if name in description}


def _texts(file: str, root: Path) -> dict[str, str]:
    return recognition.read_texts(root / file) if file else {}


def _utterances(
    root: Path, system: str, corpus: str, mixtures: "pandas.DataFrame", facts: list[str], texts: dict[str, str]
) -> list[Utterance]:
    """One per row of the test split, with its enhanced item by id."""
    from diffse.data import manifest

    enhanced = paths.enhanced(root, system, corpus)
    found = mixtures.to_dict("records")
    outputs: dict[str, dict | None] = {row["id"]: None for row in found}
    if system != paths.UNPROCESSED:
        outputs = {row["id"]: row for row in manifest.read(enhanced, _ITEM).to_dict("records")}
        _check_join(enhanced, {row["id"]: row["n_samples"] for row in found}, outputs)
    folder = paths.mixtures(root, corpus)
    return [
        Utterance(
            {name: row[name] for name in facts},
            partial(read_signals, folder, row, enhanced, outputs[row["id"]]),
            str(row.get("text") or "") or texts.get(row["id"], ""),
            size=row["n_samples"],
        )
        for row in found
    ]


def read_signals(mixtures: Path, row: dict[str, Any], folder: Path, output: dict[str, Any] | None) -> Signals:
    """Clean, noisy and enhanced signal of a manifest row, and their rate. `output` None: enhanced is noisy."""
    clean, noisy = shards.read_pair(mixtures, row)
    enhanced = noisy
    if output is not None:
        stored = shards.read_item(folder, output["shard"], output["position"], output["n_samples"])
        enhanced = stored[0] / np.float32(output["gain"])
    return clean, noisy, enhanced, int(row["rate"])


def _check_join(folder: Path, lengths: dict[str, int], outputs: dict[str, dict]) -> None:
    missing = sorted(lengths.keys() - outputs.keys())
    extra = sorted(outputs.keys() - lengths.keys())
    unequal = sorted(
        name for name in lengths.keys() & outputs.keys() if outputs[name]["n_samples"] != lengths[name]
    )
    for ids, what in (
        (missing, "of the test split are not there"),
        (extra, "are not in the test split"),
        (unequal, "have another length than their mixture"),
    ):
        if ids:
            named = ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")
            raise DiffseError(f"{folder}: {len(ids)} utterances {what} ({named}); run its stage again")


def _record(summary: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """What the run record keeps."""
    metrics = summary["metrics"]
    results.say_gaps(f"{summary['system']} on {summary['corpus']}", metrics)
    for line in warnings:
        log.warning("%s", line)
    return {
        "files": summary["files"],
        "means": {name: entry["mean"] for name, entry in metrics.items()},
        "missing": {name: entry["missing"] for name, entry in metrics.items()},
        "warnings": warnings,
    }
