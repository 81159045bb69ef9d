"""The report's numbers as text: `summary.csv` for programs, `summary.md` and a terminal table for people."""

import csv
import io
from pathlib import Path

from diffse import paths
from diffse.errors import DiffseError
from diffse.report import sweeps
from diffse.report.compare import HEAD, MAIN, Compared, Difference, metric, number, signed
from diffse.report.trials import Trials

FILE = "summary.csv"
COLUMNS = (
    "corpus",
    "system",
    "metric",
    "unit",
    "mean",
    "low",
    "high",
    "n",
    "missing",
    "difference",
    "difference_low",
    "difference_high",
    "difference_n",
)
COSTS = ("real_time_factor", "evaluations", "parameters")  # rows of the table that are not means over files
UNPROCESSED_LABEL = "unprocessed input"


def label(system: str) -> str:
    """What a system is called in tables."""
    return UNPROCESSED_LABEL if system == paths.UNPROCESSED else system


def csv_text(tables: dict[str, list[Compared]]) -> str:
    """One line per corpus, system and metric; empty where there is no value. tables: corpus -> rows."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for corpus, rows in tables.items():
        for row in rows:
            writer.writerows(_csv_lines(corpus, row))
    return stream.getvalue()


def _csv_lines(corpus: str, row: Compared) -> list[list[object]]:
    lines = []
    start = [corpus, row.scores.system]
    for name, value in row.scores.metrics.items():
        found = row.differences.get(name)
        change = [found.mean, found.low, found.high, found.n] if found else [None] * 4
        numbers = [value.mean, value.low, value.high, value.n, value.missing, *change]
        lines.append([*start, name, value.unit, *map(_rounded, numbers)])
    for name in COSTS:
        lines.append([*start, name, "", _rounded(getattr(row.scores, name)), *[""] * (len(COLUMNS) - 5)])
    return lines


def _rounded(value: float | int | None) -> object:
    if value is None:
        return ""
    return value if isinstance(value, int) else f"{value:.6g}"


# ------------------------------------------------------------------------------------------- terminal


def terminal_table(root: Path) -> str:
    """The headline numbers of `<root>/report/summary.csv` as plain text, one block per corpus.

    DiffseError when the report has not been written or is damaged.
    """
    path = paths.report(root) / FILE
    if not path.is_file():
        raise DiffseError(f"{path}: no such file; run 'diffse report'")
    with open(path, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DiffseError(f"{path}: not a summary of this version; run 'diffse report' again")
        lines = list(reader)
    means = {(line["corpus"], line["system"], line["metric"]): line["mean"] for line in lines}
    blocks = []
    for corpus in dict.fromkeys(line["corpus"] for line in lines):
        systems = dict.fromkeys(line["system"] for line in lines if line["corpus"] == corpus)
        rows = [_terminal_row(means, corpus, system) for system in systems]
        blocks.append(f"Test files of {corpus}, means:\n{_aligned([_HEADINGS, *rows])}")
    return "\n\n".join(blocks)


_HEADINGS = ("system", "SI-SDR (dB)", "PESQ", "ESTOI", "DNSMOS", "real-time factor", "network evaluations")


def _terminal_row(means: dict[tuple[str, str, str], str], corpus: str, system: str) -> tuple[str, ...]:
    def cell(name: str, digits: int) -> str:
        text = means.get((corpus, system, name), "")
        return number(float(text), digits) if text else "–"

    scores = [cell(name, metric(name).digits) for name in HEAD]
    return (label(system), *scores, cell("real_time_factor", 3), cell("evaluations", 0))


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]))
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------- markdown


def markdown(
    title: str, tables: dict[str, list[Compared]], confidence: float, compared: list[Trials] | None = None
) -> str:
    """The main table of each corpus, the sentences on each system, and the tables of sweeps and swaps."""
    parts = [f"# {_escape(title)}", ""]
    for corpus, rows in tables.items():
        parts += [f"## {_escape(corpus)}", ""]
        sentences = [f"- {_escape(row.sentence)}" for row in rows if row.sentence]
        parts += [*sentences, ""] if sentences else []
        names = [name for name in MAIN if any(name in row.scores.metrics for row in rows)]
        heads = ["system", "files", *(metric(name).heading for name in names)]
        heads += ["real-time factor", "network evaluations", "parameters"]
        parts += [_line(heads), _line(["---"] * len(heads))]
        parts += [*(_markdown_row(row, names) for row in rows), ""]
    parts.append(
        f"Mean, {confidence * 100:g} % interval over files in brackets, then the mean difference to the "
        "unprocessed input with its interval."
    )
    for trials in compared or []:
        parts += ["", *_markdown_trials(trials)]
    return "\n".join(parts) + "\n"


def _markdown_trials(trials: Trials) -> list[str]:
    """A sweep or swap: heading, sentences and table."""
    heads = ["row", *sweeps.headings(trials)]
    lines = [f"## {_escape(sweeps.title(trials))}", "", _escape(" ".join(sweeps.sentences(trials))), ""]
    lines += [_line(heads), _line(["---"] * len(heads))]
    for name, cells in sweeps.rows(trials):
        texts = [f"{mean} [{interval}]" if interval else mean for mean, interval, _ in cells]
        lines.append(_line([_escape(text) for text in (name, *texts)]))
    return lines


def _markdown_row(row: Compared, names: list[str]) -> str:
    scores = row.scores
    cells = [label(scores.system), str(scores.files), *(_markdown_cell(row, name) for name in names)]
    count = f"{scores.parameters:,}" if scores.parameters is not None else "–"
    costs = [number(scores.real_time_factor, 3), number(scores.evaluations, 0), count]
    return _line([_escape(cell) for cell in [*cells, *costs]])


def _markdown_cell(row: Compared, name: str) -> str:
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
