"""The step `evaluate`: score the test split of a corpus, enhanced by a system or as it is."""

import logging
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffse import paths, storage
from diffse.data import shards
from diffse.data.parallel import Workers
from diffse.errors import DiffseError
from diffse.metrics import statistics, table
from diffse.metrics.score import score_pair
from diffse.progress import tqdm
from diffse.settings import Evaluate, Params

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

FACTS = ("id", "speaker", "noise_kind", "snr_db")  # of the mixture, beside the scores
_OF_SYSTEM = ("recipe", "trained_on", "real_time_factor", "evaluations", "parameters", "sampler")
_ITEM = dict.fromkeys(("id", "shard", "position", "n_samples", "gain"), "")  # columns read of enhanced audio
_NAMED = 3  # ids in an error line
_DIGITS = 6  # written after the point; pystoi's own noise is far below


def run(params: Params, system: str, corpus: str, root: Path) -> dict[str, Any]:
    """Score the test split of `corpus` as enhanced by `system`; "unprocessed" scores the noisy input.

    Writes results/<system>/<corpus>/per_file.csv and summary.json and returns
    {"files", "means": {column: mean}, "missing": {column: count}}. The same audio and settings give the same
    bytes, whatever the number of processes. DiffseError: no such artifact, ids or lengths that differ.
    """
    root, settings = Path(root), params.evaluate
    columns = table.columns(settings.metrics)
    mixtures = _test_rows(root, corpus)
    description = {} if system == paths.UNPROCESSED else _description(root, system, corpus)
    jobs = _jobs(root, system, corpus, mixtures)
    rows = _scored(jobs, settings, f"evaluate {system} on {corpus}")
    summary = {
        "system": system,
        "corpus": corpus,
        **{name: description.get(name) for name in _OF_SYSTEM},
        "files": len(rows),
        "metrics": {
            column.name: _summary(column, rows, settings, int(mixtures["rate"].iloc[0])) for column in columns
        },
    }
    _write(paths.results(root, system, corpus), rows, columns, summary)
    return _record(summary)


def _scored(jobs: list[dict[str, Any]], settings: Evaluate, title: str) -> list[dict[str, Any]]:
    """Rows of per_file.csv, ordered by id."""
    # the longest first, so that no process is left alone with one at the end
    jobs = sorted(jobs, key=lambda job: (-job["n_samples"], job["id"]))
    with Workers(settings.processes) as workers:
        scored = workers.map(partial(score_job, metrics=settings.metrics), jobs)
        rows = list(tqdm(scored, title, len(jobs), unit="file", disable=None))
    return sorted(rows, key=lambda row: row["id"])


def score_job(job: dict[str, Any], metrics: tuple[str, ...]) -> dict[str, Any]:
    """Read and score one utterance; runs in a worker process."""
    clean, noisy = shards.read_pair(job["mixtures"], job)
    output = job["output"]
    enhanced = noisy
    if output is not None:
        stored = shards.read_item(job["enhanced"], output["shard"], output["position"], output["n_samples"])
        enhanced = stored[0] / np.float32(output["gain"])
    scores = score_pair(clean, noisy, enhanced, int(job["rate"]), metrics)
    return {name: job[name] for name in FACTS} | scores


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


def _jobs(root: Path, system: str, corpus: str, mixtures: "pandas.DataFrame") -> list[dict[str, Any]]:
    """One mapping per utterance: its manifest row, where its audio is, and its enhanced item by id."""
    from diffse.data import manifest

    enhanced = paths.enhanced(root, system, corpus)
    rows = mixtures.to_dict("records")
    outputs: dict[str, dict | None] = {row["id"]: None for row in rows}
    if system != paths.UNPROCESSED:
        outputs = {row["id"]: row for row in manifest.read(enhanced, _ITEM).to_dict("records")}
        _check_join(enhanced, {row["id"]: row["n_samples"] for row in rows}, outputs)
    places = {"mixtures": paths.mixtures(root, corpus), "enhanced": enhanced}
    return [row | places | {"output": outputs[row["id"]]} for row in rows]


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


def _summary(column: table.Column, rows: list[dict], settings: Evaluate, rate: int) -> dict[str, Any]:
    values = np.array([row[column.name] for row in rows])
    found = statistics.summarise(values, settings.confidence, settings.bootstrap, settings.seed)
    reasons = Counter(reason for row in rows if (reason := row[f"{column.name}_reason"]))
    return {
        **{name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in found.items()},
        "missing": len(rows) - found["n"],
        "reasons": dict(sorted(reasons.items())),
        "unit": column.unit,
        "rate": column.rate or rate,
        "version": column.version,
    }


def _write(folder: Path, rows: list[dict], columns: list[table.Column], summary: dict[str, Any]) -> None:
    import pandas

    scores = [name for column in columns for name in (column.name, f"{column.name}_reason")]
    frame = pandas.DataFrame(rows, columns=[*FACTS, *scores])
    with storage.atomic_folder(folder) as partial_folder:
        frame.to_csv(
            partial_folder / "per_file.csv", index=False, float_format=f"%.{_DIGITS}f", lineterminator="\n"
        )
        storage.write_json(partial_folder / "summary.json", summary)


def _record(summary: dict[str, Any]) -> dict[str, Any]:
    """What the run record keeps; a missing value is said once in the log."""
    metrics = summary["metrics"]
    for name, entry in metrics.items():
        for reason, count in entry["reasons"].items():
            log.warning(
                "%s on %s: %s missing in %d files: %s",
                summary["system"],
                summary["corpus"],
                name,
                count,
                reason,
            )
    return {
        "files": summary["files"],
        "means": {name: entry["mean"] for name, entry in metrics.items()},
        "missing": {name: entry["missing"] for name, entry in metrics.items()},
    }
