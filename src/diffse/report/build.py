"""The report step: everything that was measured, on one page that needs no network."""

from pathlib import Path
from typing import Any

from diffse import paths, storage
from diffse.report import artifacts, findings, latex, markdown, page, summary
from diffse.report.summary import terminal_table
from diffse.settings import Params

__all__ = ["run", "terminal_table"]


def run(params: Params, root: Path) -> dict[str, Any]:
    """Write the page and its tables for the selected systems and corpora.

    `report/`: index.html; summary.csv, pairs.csv, breakdown.csv and papers.csv for programs; summary.md and
    tables.tex for people. Reads results, checkpoints, curves, gates, enhanced audio and mixtures below `root`;
    the same artifacts give the same bytes. Returns {"page": path, "table": text for the terminal, "bytes":
    size of the page}. DiffseError when there is no result at all or a file is damaged.
    """
    root = Path(root)
    project = artifacts.load(params, root)
    found = findings.find(project, params)
    title = params.report.title
    folder = paths.report(root)
    html = page.render(title, project, found, params)
    for name, text in summary.files(found).items():
        _write(folder / name, text)
    _write(folder / "summary.md", markdown.text(title, project, found, params))
    _write(folder / "tables.tex", latex.tables(found, params))
    _write(folder / "index.html", html)
    return {
        "page": str(folder / "index.html"),
        "table": terminal_table(root),
        "bytes": len(html.encode()),
    }


def _write(path: Path, text: str) -> None:
    with storage.atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
