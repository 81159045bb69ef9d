"""Variants of systems on the same few files, scored side by side: what `sweep` and `swap` are made of.

Enhancing is the slow part. Each variant's scores are therefore written down as soon as they are there, under a
key of everything that they depend on, and taken from there when the step runs again: after a stop, with one
value more, or with another confidence. Times are measured warm: after one file that does not count.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import diffse
from diffse import checkpoint, pages, paths, settings, storage
from diffse.data import manifest, shards
from diffse.data.parallel import Workers
from diffse.enhancer import Enhancer
from diffse.errors import DiffseError
from diffse.metrics import statistics, table
from diffse.metrics.tools import NONE, Tools
from diffse.progress import tqdm

FORMAT = 1
INPUT = "unprocessed input"
WINDOW = 64  # utterances held at once
_DIGITS = 6  # of a mean, after the point


@dataclass(frozen=True)
class Files:
    """The utterances that every variant is scored on. `rows`: their manifest rows, ordered by id."""

    folder: Path
    rows: list[dict[str, Any]]
    rate: int  # Hz
    sha256: str  # of the manifest


@dataclass(frozen=True)
class Variant:
    """One row of the table. `load` is called when its turn comes; None: the input as it is.

    `made_from`: whatever its scores depend on beside files, metrics and code (checksums and settings).
    """

    name: str
    value: float | None
    made_from: dict[str, Any]
    load: Callable[[], Enhancer] | None
    family: str = ""  # variants of one name are a curve


@dataclass(frozen=True)
class Plan:
    """All that is to be scored. `entry` names the settings block in messages, for example 'sweeps.fine'."""

    entry: str
    files: Files
    variants: list[Variant]
    metrics: tuple[str, ...]
    evaluate: settings.Evaluate
    tools: Tools = NONE


def choose(root: Path, corpus: str, split: str, count: int) -> Files:
    """`count` utterances of a split, evenly spread over its sorted ids, as training validates; 0: all."""
    if count < 0:
        raise DiffseError(f"files is {count}; give how many, or 0 for all")
    folder = paths.mixtures(root, corpus)
    frame = manifest.read(folder)
    frame = frame[frame["split"] == split].sort_values("id")
    if frame.empty:
        raise DiffseError(f"{folder}: no utterances in the {split} split; choose another split")
    count = min(count or len(frame), len(frame))
    frame = frame.iloc[np.linspace(0, len(frame) - 1, count).round().astype(int)]
    sha256 = storage.sha256_file(folder / manifest.FILE)
    return Files(folder, frame.to_dict("records"), int(frame["rate"].iloc[0]), sha256)


def checksums(folder: Path) -> dict[str, str]:
    """Which training a model folder holds: the weights of each of its checkpoints."""
    names = ("best", "last", "raw")
    found = {name: folder / name for name in names if (folder / name / checkpoint.DESCRIPTION).is_file()}
    return {name: checkpoint.describe(path)["weights_sha256"] for name, path in found.items()}


def check_metrics(plan: Plan) -> None:
    """Refuse metrics that there are not, and none at all (DiffseError)."""
    if not plan.metrics:
        raise DiffseError(f"{plan.entry}.metrics: there are none; list at least one")
    for name in plan.metrics:
        if name not in table.METRICS:
            raise DiffseError(
                f"{plan.entry}.metrics: '{name}' is not a metric (allowed: {', '.join(table.METRICS)})"
            )


# ------------------------------------------------------------------------------------------- measuring


def measure(plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """Score all variants; what was scored before into `folder`, or until a stop, is not scored again."""
    check_metrics(plan)
    pages.keep()
    progress = folder.with_name(f".{folder.name}.partial.json")
    known = _known(folder / "summary.json") | _known(progress)
    trials: list[dict[str, Any]] = []
    keys, files = [_key(plan, variant) for variant in plan.variants], len(plan.files.rows)
    counts = {"total": files * len(keys), "initial": files * sum(key in known for key in keys)}
    with Workers(plan.evaluate.processes) as workers, tqdm(**counts, unit="file", disable=None) as bar:
        for key, variant in zip(keys, plan.variants, strict=True):
            trial = known.get(key) or {"key": key} | _measured(plan, variant, workers, bar)
            named = {"name": variant.name, "value": variant.value, "family": variant.family}
            trials.append(trial | named | {"made_from": variant.made_from})
            storage.write_json(progress, {"format": FORMAT, "trials": trials})
    return trials


def _known(path: Path) -> dict[str, dict[str, Any]]:
    """Key -> what an earlier run measured. A file that cannot be used is as good as none."""
    try:
        found = storage.read_json(path)
        return {trial["key"]: trial for trial in found["trials"]} if found["format"] == FORMAT else {}
    except (DiffseError, KeyError, TypeError):
        return {}


def _key(plan: Plan, variant: Variant) -> str:
    """Checksum of everything that the scores of a variant depend on."""
    depends = {
        "made_from": variant.made_from,
        "mixtures": plan.files.sha256,
        "ids": [row["id"] for row in plan.files.rows],
        "metrics": [
            f"{column.name} {table.version(name, column, plan.tools)}"
            for name in plan.metrics
            for column in table.find(name).columns
        ],
        "code": _code(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _code() -> str:
    """Checksum of the package's source: scores of other code are not taken over."""
    folder = Path(diffse.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _measured(plan: Plan, variant: Variant, workers: Workers, bar: tqdm) -> dict[str, Any]:
    bar.set_description(f"{plan.entry} {variant.name}")
    files = plan.files
    enhancer = None if variant.load is None else variant.load()
    if enhancer is not None:
        _check_rate(plan, enhancer)
        first = files.rows[0]
        enhancer.many([shards.read_pair(files.folder, first)[1]], files.rate, [first["id"]])
    score = partial(score_job, rate=files.rate, metrics=plan.metrics, tools=plan.tools)
    scores, seconds = [], 0.0
    for jobs, spent in _enhanced(files, enhancer, partial(bar.update, 1)):
        with closing(workers.map(score, jobs)) as scored:
            scores += [{"id": job["id"], **found} for job, found in zip(jobs, scored, strict=True)]
        if enhancer is None:
            bar.update(len(jobs))
        seconds += spent
    audio = sum(row["n_samples"] for row in files.rows) / files.rate
    return {
        "evaluations": enhancer and enhancer.evaluations,
        "parameters": enhancer and sum(p.numel() for p in enhancer.system.network.parameters()),
        "real_time_factor": enhancer and float(f"{seconds / audio:.3g}"),
        "scores": scores,
    }


def _check_rate(plan: Plan, enhancer: Enhancer) -> None:
    if enhancer.rate != plan.files.rate:
        raise DiffseError(
            f"{plan.entry}: the system is for {enhancer.rate} Hz, but {plan.files.folder} has "
            f"{plan.files.rate} Hz; choose a corpus of its rate"
        )


def _enhanced(
    files: Files, enhancer: Enhancer | None, tell: Callable[[], object]
) -> Iterator[tuple[list[dict[str, Any]], float]]:
    """(signals of some utterances, seconds that enhancing them took); `tell()` when one more is enhanced."""
    for start in range(0, len(files.rows), WINDOW):
        rows = files.rows[start : start + WINDOW]
        pairs = [shards.read_pair(files.folder, row) for row in rows]
        noisy, ids = [pair[1] for pair in pairs], [row["id"] for row in rows]
        began = time.perf_counter()
        waves = noisy if enhancer is None else enhancer.many(noisy, files.rate, ids, tell)
        seconds = time.perf_counter() - began
        jobs = [
            {
                "id": row["id"],
                "text": str(row.get("text") or ""),
                "clean": clean,
                "noisy": original,
                "enhanced": wave,
            }
            for row, (clean, original), wave in zip(rows, pairs, waves, strict=True)
        ]
        yield jobs, seconds


def score_job(
    job: dict[str, Any], rate: int, metrics: tuple[str, ...], tools: Tools
) -> dict[str, float | str | None]:
    """Scores of one utterance, None where there is none; runs in a worker process."""
    from diffse.metrics.score import score_pair

    signals = (job[name] for name in ("clean", "noisy", "enhanced"))
    found = score_pair(*signals, rate, metrics, text=job["text"], tools=tools)
    return {name: None if value != value else value for name, value in found.items()}  # NaN is not JSON


# --------------------------------------------------------------------------------------------- writing


def write(folder: Path, plan: Plan, trials: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    """Write summary.json and table.csv (and figure.svg of a sweep) as one folder; returns the summary."""
    columns = table.columns(plan.metrics)
    for trial in trials:
        trial["metrics"] = {column.name: _summary(trial, column.name, plan.evaluate) for column in columns}
    summary = {
        "format": FORMAT,
        **facts,
        "files": len(plan.files.rows),
        "mixtures_sha256": plan.files.sha256,
        "confidence": plan.evaluate.confidence,
        "units": {column.name: column.unit for column in columns},
        "trials": trials,
    }
    with storage.atomic_folder(folder) as temporary:
        storage.write_json(temporary / "summary.json", summary)
        _table(trials, [column.name for column in columns]).to_csv(
            temporary / "table.csv", index=False, lineterminator="\n"
        )
        if facts["kind"] == "sweep":
            from diffse.report import sweeps

            (temporary / "figure.svg").write_text(sweeps.svg(summary), encoding="utf-8")
    folder.with_name(f".{folder.name}.partial.json").unlink(missing_ok=True)
    return summary


def _summary(trial: dict[str, Any], column: str, evaluate: settings.Evaluate) -> dict[str, Any]:
    values = np.array([score[column] for score in trial["scores"]], dtype=np.float64)  # None becomes NaN
    found = statistics.summarise(values, evaluate.confidence, evaluate.bootstrap, evaluate.seed)
    rounded = {
        name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in found.items()
    }
    return rounded | {"missing": len(values) - found["n"]}


def _table(trials: list[dict[str, Any]], columns: list[str]):
    """One line per variant: what it is, what it costs, and mean and interval of each metric."""
    import pandas

    lines, costs = [], ("evaluations", "parameters", "real_time_factor")
    for trial in trials:
        line = {name: trial[name] for name in ("name", "value", *costs)}
        for column in columns:
            found = trial["metrics"][column]
            line[column] = found["mean"]
            line |= {f"{column}_{part}": found[part] for part in ("low", "high", "n", "missing")}
        lines.append(line)
    return pandas.DataFrame(lines)


def record(summary: dict[str, Any]) -> dict[str, Any]:
    """What the run record keeps."""
    means = {
        trial["name"]: {name: found["mean"] for name, found in trial["metrics"].items()}
        for trial in summary["trials"]
    }
    return {"files": summary["files"], "means": means}
