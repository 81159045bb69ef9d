"""Tables for a paper: LaTeX with booktabs, intervals, and bold type only for what is significantly better."""

from diffse.report import sections
from diffse.report.compare import MAIN, Compared, metric, number
from diffse.report.findings import Findings
from diffse.report.names import label
from diffse.report.significance import Ranking
from diffse.settings import Params

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--", "<": "$<$",
    ">": "$>$", '"': "''",
}  # fmt: skip


def escape(text: str) -> str:
    """A text as it is, whatever it holds."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))


def tables(found: Findings, params: Params) -> str:
    """One table per corpus. Needs \\usepackage{booktabs}."""
    parts = [
        "% Written by diffse. Needs \\usepackage{booktabs} and UTF-8.",
        *(
            _table(corpus, rows, found.rankings[corpus], params)
            for corpus, rows in found.tables.items()
            if rows
        ),
    ]
    return "\n".join(parts) + "\n"


def _table(corpus: str, rows: list[Compared], rankings: dict[str, Ranking], params: Params) -> str:
    names = [name for name in MAIN if any(name in row.scores.metrics for row in rows)]
    heads = ["System", *(escape(metric(name).heading) for name in names)]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_caption(corpus, rankings, params)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(names)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
    ]
    for row in rows:
        cells = [_cell(row, name, rankings.get(name)) for name in names]
        lines.append(" & ".join([escape(label(row.scores.system)), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _cell(row: Compared, name: str, ranking: Ranking | None) -> str:
    value = row.scores.metrics.get(name)
    if value is None or value.mean is None:
        return "--"
    digits = metric(name).digits
    text = escape(number(value.mean, digits))
    if ranking is not None and row.scores.system in ranking.best:
        text = rf"\textbf{{{text}}}"
    if value.low is None or value.high is None:
        return text
    bounds = escape(f"{number(value.low, digits)}, {number(value.high, digits)}")
    return rf"{text} {{\scriptsize [{bounds}]}}"


def _caption(corpus: str, rankings: dict[str, Ranking], params: Params) -> str:
    confidence = f"{params.evaluate.confidence * 100:g} %"
    text = (
        f"Test files of {corpus}: means with {confidence} bootstrap intervals over files. Bold: no system is "
        f"significantly better, and some are significantly worse ({sections.method(params.report)})."
    )
    counts = {metric(name).label: rankings[name].files for name in MAIN if name in rankings}
    files = ", ".join(f"{files} for {name}" for name, files in counts.items())
    if len(set(counts.values())) == 1:
        files = str(next(iter(counts.values())))
    compared = f" Compared on the files that every system has a value for: {files}." if counts else ""
    return escape(text + compared)
