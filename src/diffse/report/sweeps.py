"""Sweeps and swaps on the page: figures, tables and sentences, and the figure as a file of its own."""

from typing import Any

from diffse.report import figures, templates
from diffse.report.compare import metric, number, ordered
from diffse.report.trials import Trial, Trials, parse

PANELS = 3  # side by side in a figure's file
_AXIS = {"steps": "sampling steps (log scale)", "ema": "relative length of the average (0: none)"}
_OVER = {"steps": "numbers of sampling steps", "ema": "lengths of the weights' average"}
COSTS = ("Network evaluations", "Real-time factor", "Parameters")


def title(trials: Trials) -> str:
    """Heading of a section."""
    facts = trials.facts
    if trials.kind == "sweep":
        return f"{trials.name}: {facts['system']} at different {_OVER[facts['over']]}"
    return f"{trials.name}: {facts['system']} with the predictor of {facts['predictor']}"


def sentences(trials: Trials) -> list[str]:
    """On which files, and which row has the highest mean of each metric."""
    facts = trials.facts
    count = "1 file" if facts["files"] == 1 else f"{facts['files']} files"
    lines = [f"{count} of {facts['corpus']}, {facts['split']} split."]
    for name in ordered(trials.metrics):
        rows = [row for row in trials.rows if row.metrics[name]["mean"] is not None]
        if rows:
            best = max(rows, key=lambda row: row.metrics[name]["mean"])
            lines.append(f"{metric(name).label} is highest for {best.name}: {_mean(best, name)}.")
        if _families(trials) and len(front := _front(rows, name)) > 1:
            lines.append(f"No row with as few network evaluations has more {metric(name).label} than, from few "
                         f"evaluations to many: {', '.join(row.name for row in front)}.")  # fmt: skip
    return lines


def _families(trials: Trials) -> list[str]:
    """Names of the samplers compared, in order; none where there is only the recipe's."""
    return list(dict.fromkeys(row.family for row in trials.rows if row.family))


def _front(rows: list[Trial], name: str) -> list[Trial]:
    """The rows that are better than all with as few evaluations or fewer."""
    front: list[Trial] = []
    variants = [row for row in rows if not row.is_input]
    for row in sorted(variants, key=lambda row: (row.evaluations, -row.metrics[name]["mean"])):
        if not front or row.metrics[name]["mean"] > front[-1].metrics[name]["mean"]:
            front.append(row)
    return front


def _mean(row: Trial, name: str) -> str:
    """'2.31 dB (2.10 to 2.52)'."""
    found, how = row.metrics[name], metric(name)
    text = f"{number(found['mean'], how.digits)} {how.unit}".strip()
    return text if found["low"] is None else f"{text} ({_interval(row, name)})"


def _interval(row: Trial, name: str) -> str:
    found, digits = row.metrics[name], metric(name).digits
    if found["low"] is None:
        return ""
    return f"{number(found['low'], digits)} to {number(found['high'], digits)}"


# -------------------------------------------------------------------------------------------- tables


def rows(trials: Trials) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(row, cells of (mean, interval, count)) for each metric and cost, in the order of `headings`."""
    lines = []
    for row in trials.rows:
        cells = [_cell(row, name) for name in ordered(trials.metrics)]
        costs = (number(row.evaluations, 0), number(row.real_time_factor, 3), _millions(row.parameters))
        lines.append((row.name, cells + [(text, "", "") for text in costs]))
    return lines


def _cell(row: Trial, name: str) -> tuple[str, str, str]:
    found = row.metrics[name]
    count = f"n = {found['n']}" + (f", {found['missing']} missing" if found["missing"] else "")
    return number(found["mean"], metric(name).digits), _interval(row, name), count


def _millions(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:.2f} M"


def headings(trials: Trials) -> list[str]:
    return [*(metric(name).heading for name in ordered(trials.metrics)), *COSTS]


# ------------------------------------------------------------------------------------------- figures


def charts(trials: Trials) -> list[figures.Chart]:
    """One figure per metric of a sweep; none of a swap, whose rows have no order."""
    if trials.kind != "sweep":
        return []
    made = [_chart(trials, name) for name in ordered(trials.metrics)]
    return [chart for chart in made if chart is not None]


def _chart(trials: Trials, name: str) -> figures.Chart | None:
    facts, how = trials.facts, metric(name)
    log = facts["over"] == "steps"
    known = [row for row in trials.rows if row.metrics[name]["mean"] is not None]
    families = _families(trials)
    curves = [
        figures.Curve(family or facts["system"], index, _points(known, name, family))
        for index, family in enumerate(families or [""])
    ]
    level = next((row.metrics[name]["mean"] for row in known if row.is_input), None)
    said = "; ".join(point.title for curve in curves for point in curve.points)
    if level is not None:
        said += f". Dashed: the unprocessed input, {number(level, how.digits)} {how.unit}".rstrip()
    return figures.interval_chart(
        title=how.label,
        description=f"{how.label} of {facts['system']} on {facts['corpus']}: {said}.",
        labels=("network evaluations (log scale)" if families else _AXIS[facts["over"]], how.heading),
        curves=curves,
        level=level,
        log=log,
    )


def _points(rows: list[Trial], name: str, family: str) -> list[figures.Measured]:
    """Of one sampler, over its network evaluations where there are several, else over what is varied."""
    return [
        figures.Measured(
            row.evaluations if family else row.value,
            row.metrics[name]["mean"],
            row.metrics[name]["low"],
            row.metrics[name]["high"],
            f"{row.name}: {_mean(row, name)}",
        )
        for row in rows
        if not row.is_input and row.family == family
    ]


def svg(summary: dict[str, Any]) -> str:
    """The figure of a sweep as one SVG file that needs nothing else; it follows light and dark schemes."""
    trials = parse(summary)
    made = charts(trials)
    return (
        templates.environment()
        .get_template("sweep.j2")
        .render(
            title=title(trials),
            sentences=sentences(trials),
            charts=made,
            columns=max(1, min(PANELS, len(made))),
            panel_rows=max(1, -(-len(made) // PANELS)),
            style=templates.style(),
            confidence=f"{trials.facts['confidence'] * 100:g} %",
            box=figures,
        )
    )
