"""The report's numbers as CSV files for programs, and as a table for the terminal."""

import csv
import io
from pathlib import Path

from diffse import paths
from diffse.errors import DiffseError
from diffse.report import against, breakdown, significance
from diffse.report.compare import HEAD, Compared, metric, number
from diffse.report.findings import Findings
from diffse.report.names import label

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
PAPER_COLUMNS = ("row", "source", "system", "corpus", "metric", "paper", "ours", "difference", "tolerance")
PAPER_COLUMNS += ("verdict", "reason", "notes")
COSTS = ("real_time_factor", "evaluations", "parameters")  # rows of the table that are not means over files


def files(found: Findings) -> dict[str, str]:
    """The CSV files by name."""
    pairs = [row for corpus, one in found.rankings.items() for row in significance.pair_rows(corpus, one)]
    kinds = [row for corpus, one in found.breakdowns.items() for row in breakdown.csv_rows(corpus, one)]
    scores = [row for corpus, rows in found.tables.items() for row in _csv_rows(corpus, rows)]
    return {
        FILE: csv_text(COLUMNS, scores),
        "pairs.csv": csv_text(significance.PAIR_COLUMNS, pairs),
        "breakdown.csv": csv_text(breakdown.COLUMNS, kinds),
        "papers.csv": csv_text(PAPER_COLUMNS, [_paper_line(line) for line in found.lines]),
    }


def csv_text(columns: tuple[str, ...], rows: list[list[object]]) -> str:
    """CSV with a heading; empty where there is no value."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()


def _csv_rows(corpus: str, rows: list[Compared]) -> list[list[object]]:
    return [line for row in rows for line in _csv_lines(corpus, row)]


def _paper_line(line: against.Line) -> list[object]:
    ours = line.ours.mean if line.ours is not None else None
    texts = [_rounded(line.paper.mean), _rounded(ours), _rounded(line.difference), _rounded(line.tolerance)]
    start = [line.row.name, line.row.source, line.system, line.corpus, line.metric]
    return [*start, *texts, line.verdict, line.reason, "; ".join(line.notes)]


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
