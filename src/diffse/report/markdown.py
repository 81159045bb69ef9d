"""The report as Markdown: the main table of each corpus, what differs, the papers, sweeps and swaps."""

from diffse.report import heard, sections, sweeps
from diffse.report.artifacts import Project
from diffse.report.compare import HEAD, MAIN, Compared, Difference, metric, number, signed
from diffse.report.findings import Findings
from diffse.report.names import label
from diffse.report.trials import Trials
from diffse.settings import Params


def text(title: str, project: Project, found: Findings, params: Params) -> str:
    """All of it, with a line feed at the end."""
    parts = [f"# {_escape(title)}", ""]
    for corpus, rows in found.tables.items():
        parts += _corpus(corpus, rows, found, params)
    confidence = f"{params.evaluate.confidence * 100:g} %"
    parts.append(
        f"Mean, {confidence} interval over files in brackets, then the mean difference to the unprocessed "
        "input with its interval."
    )
    parts += _papers(sections.paper_view(found.lines))
    for summary in project.heard:
        parts += _heard(heard.view(summary))
    for trials in project.trials:
        parts += ["", *_trials(trials)]
    return "\n".join(parts) + "\n"


def _corpus(corpus: str, rows: list[Compared], found: Findings, params: Params) -> list[str]:
    parts = [f"## {_escape(corpus)}", ""]
    said = [f"- {_escape(row.sentence)}" for row in rows if row.sentence]
    parts += [*said, ""] if said else []
    names = [name for name in MAIN if any(name in row.scores.metrics for row in rows)]
    heads = ["system", "files", *(metric(name).heading for name in names)]
    heads += ["real-time factor", "network evaluations", "parameters"]
    parts += [_line(heads), _line(["---"] * len(heads))]
    parts += [*(_row(row, names) for row in rows), ""]
    ranked = [ranking for name, ranking in found.rankings[corpus].items() if name in HEAD]
    if ranked:
        parts += [f"Which differences are real ({sections.method(params.report)}):", ""]
        parts += [*(f"- {_escape(sections.sentence(one))}" for one in ranked), ""]
    return parts


def _heard(view: dict) -> list[str]:
    heads = ["condition", "rank", "mean", f"{view['confidence']} interval", "median", "quartiles"]
    parts = ["", f"## Listening test {_escape(view['title'])}", "", _line(heads), _line(["---"] * len(heads))]
    parts += [_line([_escape(cell) for cell in row]) for row in view["rows"]]
    return parts + (["", f"Left out: {_escape('; '.join(view['left_out']))}."] if view["left_out"] else [])


def _papers(view: dict) -> list[str]:
    if not view["compared"]:
        return ["", "No score of this report can stand beside a number of the papers."]
    keys = ("row", "system", "metric", "paper", "ours", "difference", "verdict", "notes")
    parts = ["", "## Against the papers", "", _line(list(keys)), _line(["---"] * len(keys))]
    return parts + [_line([_escape(row[key]) for key in keys]) for row in view["compared"]]


def _trials(trials: Trials) -> list[str]:
    """A sweep or swap: heading, sentences and table."""
    heads = ["row", *sweeps.headings(trials)]
    lines = [f"## {_escape(sweeps.title(trials))}", "", _escape(" ".join(sweeps.sentences(trials))), ""]
    lines += [_line(heads), _line(["---"] * len(heads))]
    for name, cells in sweeps.rows(trials):
        texts = [f"{mean} [{interval}]" if interval else mean for mean, interval, _ in cells]
        lines.append(_line([_escape(text) for text in (name, *texts)]))
    return lines


def _row(row: Compared, names: list[str]) -> str:
    scores = row.scores
    cells = [label(scores.system), str(scores.files), *(_cell(row, name) for name in names)]
    count = f"{scores.parameters:,}" if scores.parameters is not None else "–"
    costs = [number(scores.real_time_factor, 3), number(scores.evaluations, 0), count]
    return _line([_escape(cell) for cell in [*cells, *costs]])


def _cell(row: Compared, name: str) -> str:
    value = row.scores.metrics.get(name)
    if value is None or value.mean is None:
        return "–"
    digits = metric(name).digits
    text = f"{number(value.mean, digits)} [{number(value.low, digits)}, {number(value.high, digits)}]"
    if value.missing:
        text += f", {value.missing} missing"
    found = row.differences.get(name)
    return f"{text}; {change(found, digits)}" if found else text


def change(found: Difference, digits: int) -> str:
    """'+3.21 [+2.90, +3.50]'."""
    text = signed(found.mean, digits)
    if found.low is None or found.high is None:
        return text
    return f"{text} [{signed(found.low, digits)}, {signed(found.high, digits)}]"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Keep a name from becoming a table border, markup or a line of its own."""
    text = " ".join(text.split())
    for character in "\\|`*_<>":
        text = text.replace(character, f"\\{character}")
    return text
