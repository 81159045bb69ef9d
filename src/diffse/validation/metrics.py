"""Gate of a metric table: results/<system>/<corpus>, against the test split and known scores of the input."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffse import paths, storage
from diffse.data import manifest
from diffse.data.corpora import registry
from diffse.errors import DiffseError
from diffse.metrics import table as metric_table
from diffse.metrics.table import Column
from diffse.settings import MetricRules, Params
from diffse.validation.rules import Rule, Subject, Table

if TYPE_CHECKING:
    import pandas

PER_FILE, SUMMARY = "per_file.csv", "summary.json"
AGAIN = "run 'diffse evaluate' again"
_ROUNDING = 1e-4  # between the mean in the summary and that of the rounded values


def subject(params: Params, names: tuple[str, ...], root: Path) -> Subject:
    """Tables and rules for the scores of one system on one corpus. DiffseError when they cannot be read."""
    system, corpus = names
    folder, source = paths.results(root, system, corpus), paths.mixtures(root, corpus)
    columns = metric_table.columns(params.evaluate.metrics)
    mixtures = manifest.read(source)
    scores = _read_scores(folder / PER_FILE, columns)
    summary = storage.read_json(folder / SUMMARY)
    tables = {
        "files": _file_table(scores, set(mixtures.loc[mixtures["split"] == "test", "id"]), columns),
        "scores": scores,
        "summary": _summary_table(summary, scores, columns),
    }
    rules = [*_file_rules(), *_score_rules(columns, params.check.metrics), *_summary_rules()]
    if system == paths.UNPROCESSED:
        rules += _anchor_rules(params, corpus, columns)
    return Subject(tables, rules, [folder / PER_FILE, folder / SUMMARY, source / manifest.FILE])


# ------------------------------------------------------------------------------------------------ tables


def _read_scores(path: Path, columns: list[Column]) -> "pandas.DataFrame":
    """per_file.csv with metrics as numbers. A metric that is not in it stays out: its rule says so."""
    import pandas

    texts = {"id": str} | {f"{column.name}_reason": str for column in columns}
    try:
        frame = pandas.read_csv(
            path, dtype=texts, keep_default_na=False, na_values={c.name: [""] for c in columns}
        )
    except FileNotFoundError:
        raise DiffseError(f"{path}: no such file; {AGAIN}") from None
    except (OSError, ValueError) as error:
        raise DiffseError(f"{path}: damaged ({' '.join(str(error).split())}); {AGAIN}") from None
    present = {column.name: float for column in columns if column.name in frame.columns}
    try:
        return frame.astype(present)
    except ValueError as error:
        raise DiffseError(f"{path}: holds what is not a number ({error}); {AGAIN}") from None


def _file_table(scores: "pandas.DataFrame", expected: set[str], columns: list[Column]) -> "pandas.DataFrame":
    """One row per file of the test split or of the results, and how many of its gaps are not explained."""
    import pandas

    unexplained = pandas.Series(0, index=scores.index)
    for column in columns:
        if {column.name, f"{column.name}_reason"} <= set(scores.columns):
            absent, silent = scores[column.name].isna(), scores[f"{column.name}_reason"] == ""
            unexplained += (absent == silent).astype(int)
    found = dict(zip(scores["id"], unexplained, strict=True))
    ids = sorted(expected | found.keys())
    rows = [
        {"id": name, "in_both": name in expected and name in found, "unexplained": found.get(name)}
        for name in ids
    ]
    return pandas.DataFrame(rows, columns=["id", "in_both", "unexplained"])


def _summary_table(
    summary: dict[str, Any], scores: "pandas.DataFrame", columns: list[Column]
) -> "pandas.DataFrame":
    """One row per metric: how far the summary is from the values it sums up."""
    import pandas

    rows = []
    for column in columns:
        stated = summary.get("metrics", {}).get(column.name)
        values = scores[column.name].dropna() if column.name in scores.columns else pandas.Series(dtype=float)
        row: dict[str, Any] = {"id": column.name, "stated": stated is not None}
        if stated is not None:
            row["count_error"] = abs(stated["n"] - len(values)) + abs(
                stated["missing"] - (len(scores) - len(values))
            )
            row["mean_error"] = _distance(stated["mean"], values.mean() if len(values) else None)
        rows.append(row)
    return pandas.DataFrame(rows, columns=["id", "stated", "count_error", "mean_error"])


def _distance(stated: float | None, found: float | None) -> float:
    if stated is None or found is None:
        return 0.0 if stated is found else math.inf
    return abs(stated - found)


# ------------------------------------------------------------------------------------------------- rules


def _file_rules() -> list[Rule]:
    files, scores = Table("files"), Table("scores")
    return [
        scores.rows("files scored", 1, AGAIN),
        scores.unique("ids", "id", AGAIN),
        files.true("the files of the test split", "in_both", AGAIN),
        files.within("missing values without a reason", "unexplained", 0, 0, AGAIN, missing=1.0),
    ]


def _score_rules(columns: list[Column], limits: MetricRules) -> list[Rule]:
    """Two rules per metric, because too many gaps and an impossible value have different remedies."""
    table, rules = Table("scores"), []
    for column in columns:
        gaps = f"read {column.name}_reason in {PER_FILE}, or change check.metrics.max_missing"
        rules.append(table.enough(f"{column.name}: values", column.name, limits.max_missing, gaps))
        wrong = "no correct score lies there; look at these files and at the version of the metric"
        rules.append(
            table.within(f"{column.name}: range", column.name, column.low, column.high, wrong, missing=1.0)
        )
    return rules


def _summary_rules() -> list[Rule]:
    table = Table("summary")
    return [
        table.true("every metric is in the summary", "stated", AGAIN),
        table.within("counts of the summary (apart)", "count_error", 0, 0, AGAIN, missing=1.0),
        table.within("means of the summary (apart)", "mean_error", 0.0, _ROUNDING, AGAIN, missing=1.0),
    ]


def _anchor_rules(params: Params, corpus: str, columns: list[Column]) -> list[Rule]:
    """The unprocessed input must score what is known of it, or the numbers beside it mean something else.

    Known are the scores that are published of a corpus, for the metrics that were computed, and those that
    check.metrics.input_anchors states. A part of a corpus (`complete: false`) has means of its own.
    """
    limits = params.check.metrics
    table, near = Table("scores"), limits.input_tolerance
    described = params.prepare[corpus]
    published = registry.facts(described) if getattr(described, "complete", True) else None
    computed = {column.name for column in columns}
    anchors = {
        name: value for name, value in (published.anchors if published else {}).items() if name in computed
    }
    anchors |= limits.input_anchors.get(corpus, {})
    remedy = "the data or a metric is not what it was; see check.metrics.input_anchors"
    return [
        table.mean(f"{name}: known score of the input", name, anchor - near, anchor + near, remedy)
        for name, anchor in sorted(anchors.items())
    ]
