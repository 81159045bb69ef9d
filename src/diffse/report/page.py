"""What `page.j2` shows, as plain values, and the page itself."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

import diffse
from diffse import paths, settings
from diffse.report import facts, figures, heard, listening, sections, sweeps, templates
from diffse.report.artifacts import Project
from diffse.report.compare import HEAD, MAIN, Compared, metric, number, ordered, signed
from diffse.report.findings import Findings
from diffse.report.names import label

MAX_ROWS = 500  # of a per-file table
MAX_CLOUD = 500  # files of one system in a scatter figure


@dataclass(frozen=True)
class Cell:
    """A mean with its interval, count, and difference to the input; `verdict` as Difference.verdict."""

    mean: str
    interval: str = ""
    count: str = ""
    missing: str = ""
    change: str = ""
    evidence: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of (label, paper row, cells) under headings."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class FileTable:
    """Scores of each file: `groups` are metrics, each with one column per system."""

    groups: tuple[str, ...]
    systems: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple["FileCell", ...]], ...]  # ((id, speaker, noise, SNR), scores)
    total: int
    rule: str


@dataclass(frozen=True)
class FileCell:
    """One score; `value` is what sorting uses, `reason` why it is missing."""

    text: str
    value: str
    reason: str


def render(title: str, project: Project, found: Findings, params: settings.Params) -> str:
    """The page as HTML text."""
    import markupsafe

    style, script = templates.style(), (templates.HERE / "page.js").read_text("utf-8")
    return (
        templates.environment()
        .get_template("page.j2")
        .render(
            title=title,
            style=style,
            script=markupsafe.Markup(script),
            style_hash=_csp_hash(style),
            script_hash=_csp_hash(script),
            version=diffse.__version__,
            confidence=f"{params.evaluate.confidence * 100:g} %",
            project=project,
            views=_corpus_views(project, found, params.report),
            method=sections.method(params.report),
            papers=sections.paper_view(found.lines),
            heard=[heard.view(summary) for summary in project.heard],
            cost_headings=sections.COST_HEADINGS,
            costs=sections.cost_rows(project),
            environment=sections.environment(),
            sweeps=_trial_views(project, "sweep"),
            swaps=_trial_views(project, "swap"),
            training=_training_charts(project),
            validation=_validation_charts(project),
            systems=[facts.system_facts(system, project) for system in project.systems],
            corpora=[facts.corpus_facts(project, corpus) for corpus in project.corpora],
            metrics=facts.metric_facts(project),
            range_db=f"{listening.RANGE_DB:g}",
            colour_bar=listening.colour_bar(),
            box=figures,
        )
    )


def _csp_hash(text: str) -> str:
    """The source expression that lets exactly this inline style or script run, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# --------------------------------------------------------------------------------------------- corpora


def _corpus_views(project: Project, found: Findings, report: settings.Report) -> list[dict]:
    choices = {corpus: listening.choose(project, corpus, report.listen_files) for corpus in found.tables}
    seconds = listening.fitting_seconds(project, choices, report.max_seconds)
    views = []
    for corpus, rows in found.tables.items():
        measured = ordered({name for row in rows for name in row.scores.metrics})
        others = [name for name in measured if name not in MAIN]
        ranked = found.rankings[corpus]
        systems = [row.scores.system for row in rows]
        views.append(
            {
                "name": corpus,
                "rows": rows,
                "lower": [metric(name).label for name in measured if not metric(name).higher_is_better],
                "ranks": sections.rank_table(ranked, systems) if ranked else None,
                "by_speaker": any(one.by_speaker for one in ranked.values()),
                "pairs": sections.pair_tables(ranked),
                "breakdowns": sections.breakdown_views(found.breakdowns[corpus], project.systems),
                "main": _score_table(project, rows, MAIN, costs=True),
                "others": _score_table(project, rows, tuple(others), costs=False) if others else None,
                "missing": _missing_values(rows),
                "scatter": _scatter_charts(project, rows),
                "rule": listening.rank(project, corpus).rule,
                "files": listening.listen_files(project, corpus, choices[corpus], seconds),
                "per_file": _file_table(project, corpus, rows),
            }
        )
    return views


def _score_table(project: Project, rows: list[Compared], names: tuple[str, ...], costs: bool) -> Table:
    headings = [metric(name).heading for name in names]
    if costs:
        headings += ["Real-time factor", "Network evaluations", "Parameters"]
    lines = []
    for row in rows:
        cells = [_score_cell(row, name) for name in names]
        if costs:
            cells += _cost_cells(row)
        lines.append((label(row.scores.system), facts.origin(row.scores.system, project), tuple(cells)))
    return Table(tuple(headings), tuple(lines))


def _score_cell(row: Compared, name: str) -> Cell:
    value = row.scores.metrics.get(name)
    if value is None:
        return Cell("–", count="not measured")
    digits, found = metric(name).digits, row.differences.get(name)
    missing = f"{value.missing} missing" if value.missing else ""
    if value.mean is None:
        return Cell("–", missing=missing)
    interval = "" if value.low is None else f"{number(value.low, digits)} to {number(value.high, digits)}"
    cell = Cell(number(value.mean, digits), interval, f"n = {value.n}", missing)
    if found is None:
        return cell
    change = f"{signed(found.mean, digits)} {metric(name).unit}".strip()
    proof = "one file, no interval"
    if found.low is not None and found.high is not None:
        proof = f"{signed(found.low, digits)} to {signed(found.high, digits)}"
    return Cell(cell.mean, cell.interval, cell.count, cell.missing, change, proof, found.verdict)


def _cost_cells(row: Compared) -> list[Cell]:
    scores = row.scores
    count = "–" if scores.parameters is None else f"{scores.parameters / 1e6:.2f} M"
    return [Cell(number(scores.real_time_factor, 3)), Cell(number(scores.evaluations, 0)), Cell(count)]


def _missing_values(rows: list[Compared]) -> list[str]:
    lines = []
    for row in rows:
        for name, value in row.scores.metrics.items():
            for reason, count in sorted(value.reasons.items()):
                files = "1 file" if count == 1 else f"{count} files"
                lines.append(f"{metric(name).label} of {label(row.scores.system)}, {files}: {reason}")
    return lines


def _scatter_charts(project: Project, rows: list[Compared]) -> list[figures.Chart]:
    """One figure per metric of HEAD, input against enhanced."""
    unprocessed = next((row.scores.table for row in rows if row.scores.system == paths.UNPROCESSED), None)
    charts = []
    for name in HEAD if unprocessed is not None else ():
        clouds = {}
        for row in rows:
            system, table = row.scores.system, row.scores.table
            if system == paths.UNPROCESSED or name not in table or name not in unprocessed:
                continue
            both = unprocessed[[name]].merge(table[[name]], left_index=True, right_index=True).dropna()
            both = both.iloc[:: max(1, -(-len(both) // MAX_CLOUD))]  # evenly, so that they stay typical
            clouds[system] = (project.systems.index(system), list(both.index), *both.to_numpy().T)
        chart = figures.scatter_chart(metric(name).label, metric(name).unit, clouds)
        charts += [chart] if chart else []
    return charts


def _file_table(project: Project, corpus: str, rows: list[Compared]) -> FileTable | None:
    """Scores of each file in the metrics of HEAD; the worst MAX_ROWS files where there are more."""
    rows = [row for row in rows if not row.scores.table.empty]
    names = [name for name in HEAD if any(name in row.scores.table for row in rows)]
    if not names:
        return None
    ranking = listening.rank(project, corpus)
    first = rows[0].scores.table
    ids = list(dict.fromkeys(item for row in rows for item in row.scores.table.index))
    if len(ids) > MAX_ROWS:
        ids = [item for _, item in ranking.files[:MAX_ROWS]]
    lines = []
    for item in ids:
        cells = [_file_cell(row, name, item) for name in names for row in rows]
        lines.append((_file_facts(first, item), tuple(cells)))
    total = len({item for row in rows for item in row.scores.table.index})
    groups = tuple(metric(name).heading for name in names)
    return FileTable(groups, tuple(row.scores.system for row in rows), tuple(lines), total, ranking.rule)


def _file_facts(table: Any, item: str) -> tuple[str, ...]:
    if item not in table.index:
        return (item, "", "", "–")
    row = table.loc[item]
    snr = number(float(row["snr_db"]), 1) if "snr_db" in row else "–"
    return (item, str(row.get("speaker", "")), str(row.get("noise_kind", "")), snr)


def _file_cell(row: Compared, name: str, item: str) -> FileCell:
    table = row.scores.table
    if name not in table or item not in table.index:
        return FileCell("–", "", "not evaluated")
    value = float(table.at[item, name])
    if np.isfinite(value):
        return FileCell(number(value, metric(name).digits), f"{value:.6g}", "")
    reason = f"{name}_reason"
    return FileCell("–", "", str(table.at[item, reason]) if reason in table else "missing")


# ------------------------------------------------------------------------------------ sweeps and swaps


def _trial_views(project: Project, kind: str) -> list[dict]:
    return [
        {
            "name": trials.name,
            "title": sweeps.title(trials),
            "sentences": sweeps.sentences(trials),
            "charts": sweeps.charts(trials),
            "headings": sweeps.headings(trials),
            "rows": sweeps.rows(trials),
        }
        for trials in project.trials
        if trials.kind == kind
    ]


# -------------------------------------------------------------------------------------------- training


def _training_charts(project: Project) -> list[figures.Chart]:
    charts = []
    for index, system in enumerate(project.trained):
        history = project.models[system].history
        if {"step", "loss"} <= set(history.columns):
            steps, losses = history["step"].to_numpy(), history["loss"].to_numpy()
            charts.append(figures.loss_chart(system, index, steps, losses))
    return [chart for chart in charts if chart is not None]


def _validation_charts(project: Project) -> list[figures.Chart]:
    charts = []
    for name in HEAD:
        curves = {}
        for index, system in enumerate(project.trained):
            table = project.models[system].validation
            if {"step", name} <= set(table.columns):
                curves[system] = (index, table["step"].to_numpy(), table[name].to_numpy())
        charts.append(figures.validation_chart(metric(name).label, metric(name).unit, curves))
    return [chart for chart in charts if chart is not None]
