"""What the page says about differences between systems, kinds of files, the papers, cost and environment."""

import functools
import math
from importlib import metadata
from typing import Any

from diffse import settings
from diffse.report import against, figures, significance
from diffse.report.artifacts import Project, Scores
from diffse.report.breakdown import Breakdown
from diffse.report.compare import HEAD, metric, number, signed
from diffse.report.names import label
from diffse.report.significance import Ranking

PACKAGES = ("torch", "numpy", "scipy", "pandas", "pesq", "pystoi", "speechmos", "pyloudnorm")
TESTS = {"wilcoxon": "Wilcoxon signed-rank test", "permutation": "permutation test of the mean difference"}
CORRECTIONS = {"holm": "corrected after Holm", "fdr_bh": "corrected after Benjamini and Hochberg", "none": ""}


# ------------------------------------------------------------------------------------ significance


def method(report: settings.Report) -> str:
    """How systems are told apart, in words."""
    corrected = CORRECTIONS[report.correction]
    how = f" {corrected} over all pairs of systems" if corrected else " without correction for many comparisons"
    return f"{TESTS[report.test]}, two-sided, file by file,{how}, at {report.alpha:g}"


def rank_table(rankings: dict[str, Ranking], systems: list[str]) -> dict[str, Any]:
    """Systems (rows) by metric (columns): rank, mean, and the interval over speakers where there is one."""
    names = [name for name in HEAD if name in rankings] or list(rankings)
    rows = []
    for system in systems:
        cells = [_rank_cell(rankings[name], system) for name in names]
        if any(cell["rank"] for cell in cells):
            rows.append((label(system), cells))
    return {
        "headings": [metric(name).heading for name in names],
        "rows": rows,
        "basis": _basis({metric(name).label: significance.basis(rankings[name]) for name in names}),
        "sentences": [sentence(rankings[name]) for name in names],
    }


def _basis(texts: dict[str, str]) -> list[str]:
    """Files that each metric rests on; once where they are the same for all."""
    if len(set(texts.values())) == 1:
        return [f"All metrics: {next(iter(texts.values()))}."]
    return [f"{name}: {text}." for name, text in texts.items()]


def _rank_cell(ranking: Ranking, system: str) -> dict[str, Any]:
    if system not in ranking.ranks:
        return {"rank": 0, "mean": "–", "speakers": "", "best": False}
    digits = metric(ranking.metric).digits
    bounds = ranking.by_speaker.get(system)
    speakers = f"{number(bounds[0], digits)} to {number(bounds[1], digits)}" if bounds else ""
    return {
        "rank": ranking.ranks[system],
        "mean": number(ranking.means[system], digits),
        "speakers": speakers,
        "best": system in ranking.best,
    }


def sentence(ranking: Ranking) -> str:
    """'PESQ: a is ahead of b and c.' or that nothing is decided."""
    name = metric(ranking.metric).label
    if not ranking.decided:
        return f"{name}: no system differs significantly from any other."
    groups = [" and ".join(map(label, systems)) for _, systems in significance.standing(ranking)]
    return f"{name}: {'; then '.join(groups)}."


def pair_tables(rankings: dict[str, Ranking]) -> list[dict[str, Any]]:
    """One table per metric of HEAD: every pair with difference, p value and effect sizes."""
    tables = []
    for name in (name for name in HEAD if name in rankings):
        ranking = rankings[name]
        rows = [_pair_row(ranking, pair) for pair in ranking.pairs]
        tables.append({"name": metric(name).heading, "rows": rows, "files": ranking.files})
    return tables


def _pair_row(ranking: Ranking, pair: Any) -> dict[str, str]:
    digits = metric(ranking.metric).digits
    winner = ranking.winner(pair)
    return {
        "first": label(pair.first),
        "second": label(pair.second),
        "difference": signed(pair.mean, digits),
        "interval": f"{signed(pair.low, digits)} to {signed(pair.high, digits)}",
        "p": p_text(pair.corrected),
        "cohen": "–" if math.isnan(pair.cohen) else signed(pair.cohen, 2),
        "rank": signed(pair.rank_biserial, 2),
        "result": f"{label(winner)} is better" if winner else "not decided",
        "verdict": "better" if winner else "unclear",
    }


def p_text(value: float) -> str:
    """'0.023', '< 0.001'."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# --------------------------------------------------------------------------------------- breakdown


def breakdown_views(found: list[Breakdown], order: tuple[str, ...]) -> list[dict[str, Any]]:
    """By factor: a table per metric, apart those beyond HEAD, and a figure where the factor is a number."""
    views: dict[str, dict[str, Any]] = {}
    for one in found:
        new = {"name": one.factor.label, "tables": [], "further": [], "charts": []}
        view = views.setdefault(one.factor.column, new)
        view["tables" if one.metric in HEAD else "further"].append(_breakdown_table(one))
        if one.factor.step is not None and one.metric in HEAD:
            view["charts"].append(_breakdown_chart(one, order))
    return list(views.values())


def _breakdown_table(one: Breakdown) -> dict[str, Any]:
    digits = metric(one.metric).digits
    rows = []
    for group in one.groups:
        cells = []
        for system in one.systems:
            mean, low, high = group.values[system]
            interval = "" if low is None else f"{number(low, digits)} to {number(high, digits)}"
            cells.append((number(mean, digits), interval))
        rows.append((group.label, group.files, cells))
    unknown = f" {one.unknown} files without it are left out." if one.unknown else ""
    return {
        "name": metric(one.metric).heading,
        "caption": f"{metric(one.metric).heading} by {one.factor.label}.{unknown}",
        "systems": [label(system) for system in one.systems],
        "rows": rows,
    }


def _breakdown_chart(one: Breakdown, order: tuple[str, ...]) -> figures.Chart | None:
    """Means with intervals over the middle of each range; order: systems in the order of their colours."""
    how, curves, said = metric(one.metric), [], []
    for system in one.systems:
        points = []
        for group in one.groups:
            mean, low, high = group.values[system]
            text = f"{label(system)}, {group.label}: {number(mean, how.digits)} {how.unit}".strip()
            points.append(figures.Measured(group.middle, mean, low, high, text))
        index = order.index(system) if system in order else len(order)
        curves.append(figures.Curve(label(system), index, points))
        said.append("; ".join(point.title for point in points))
    return figures.interval_chart(
        title=f"{how.label} by {one.factor.label}",
        description=f"{how.label} by {one.factor.label}: {'. '.join(said)}.",
        labels=(f"{one.factor.label} ({one.factor.unit})", how.heading),
        curves=curves,
    )


# ------------------------------------------------------------------------------- against the papers


def paper_view(lines: list[against.Line]) -> dict[str, Any]:
    """Rows that are compared, and for the others what stands in the way."""
    compared = [_paper_row(line) for line in lines if line.verdict != "not comparable"]
    refused: dict[tuple[str, str, str], list[str]] = {}
    for line in lines:
        if line.verdict == "not comparable":
            key = (label(line.system), line.corpus, line.reason)
            refused.setdefault(key, []).append(f"{line.row.name} {metric(line.metric).label} {line.paper}")
    listed = [(system, corpus, reason, texts) for (system, corpus, reason), texts in refused.items()]
    return {"compared": compared, "refused": listed}


def _paper_row(line: against.Line) -> dict[str, str]:
    how, ours = metric(line.metric), line.ours
    bounds = "" if ours.low is None else f"{number(ours.low, how.digits)} to {number(ours.high, how.digits)}"
    return {
        "row": line.row.name,
        "label": f"{line.row.label}, {line.row.corpus.title}",
        "source": line.row.source,
        "system": label(line.system),
        "metric": how.heading,
        "paper": str(line.paper),
        "spread": line.row.spread if line.paper.spread is not None else "",
        "ours": number(ours.mean, how.digits),
        "interval": bounds,
        "difference": signed(line.difference, how.digits),
        "tolerance": f"within {number(line.tolerance, how.digits)}",
        "verdict": line.verdict,
        "notes": "; ".join(line.notes),
    }


# --------------------------------------------------------------------------- cost and environment


def cost_rows(project: Project) -> list[tuple[str, str, list[str]]]:
    """(system, corpus, texts of COST_HEADINGS)."""
    rows = []
    for corpus in project.corpora:
        for scores in project.evaluated(corpus):
            texts = _costs(scores)
            if any(text != "–" for text in texts):
                rows.append((label(scores.system), corpus, texts))
    return rows


COST_HEADINGS = (
    "Parameters",
    "GMAC per second of audio",
    "Network evaluations",
    "Real-time factor",
    "Memory (MB)",
)


def _costs(scores: Scores) -> list[str]:
    macs = scores.macs_per_second
    return [
        "–" if scores.parameters is None else f"{scores.parameters:,}",
        "–" if macs is None else f"{macs / 1e9:,.1f}",
        number(scores.evaluations, 0),
        number(scores.real_time_factor, 3),
        number(scores.peak_memory_mb, 0),
    ]


@functools.cache
def environment() -> tuple[tuple[str, str], ...]:
    """(package, version) of what computes scores and statistics, as far as it is installed."""
    found = []
    for name in PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)
