"""The papers' tables as data (`papers.yaml`): which number a paper states for which system on which corpus."""

import difflib
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffse.errors import DiffseError

FILE = Path(__file__).with_name("papers.yaml")
UNPROCESSED = "unprocessed"


@dataclass(frozen=True)
class Number:
    """A value as printed, with what the table gives behind ± (None: nothing)."""

    mean: float
    spread: float | None = None

    def __str__(self) -> str:
        text = f"{self.mean:g}" if self.spread is None else f"{self.mean:g} ± {self.spread:g}"
        return text.replace("-", "−")


@dataclass(frozen=True)
class Corpus:
    """Test files of the papers. `files`: 0 where no paper states it; `anchor`: scores of their noisy input."""

    name: str  # of a preset of corpora, if there is one
    title: str
    files: int
    home: str = ""  # where it is, if there is no preset
    anchor: dict[str, Number] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of a paper's table. recipe: the preset that it is, "" if diffse has none."""

    name: str
    label: str
    recipe: str
    predictor: str  # preset of another predictor, "" for the recipe's own
    corpus: Corpus
    trained_on: Corpus
    paper: str
    table: str
    spread: str  # what stands behind ±
    values: dict[str, Number]
    other: dict[str, str]  # metric -> why ours must not stand beside it
    assumed: dict[str, str]  # metric -> what the paper does not state
    refuse: str  # why nothing of the row can be compared; "" if it can

    @property
    def source(self) -> str:
        return f"{self.paper}, table {self.table}"


@functools.cache
def corpora() -> dict[str, Corpus]:
    """The papers' corpora by name."""
    found = {}
    for name, entry in _read()["corpora"].items():
        facts = entry | {"anchor": _numbers(entry.get("anchor", {}))}
        found[name] = Corpus(name=name, **facts)
    return found


@functools.cache
def rows() -> dict[str, Row]:
    """Every row by its name, in the order of the file."""
    tables = _read()["tables"]
    return {name: _row(name, entry, table) for table in tables for name, entry in table["rows"].items()}


def find(name: str) -> Row:
    """The row `name`; DiffseError that lists the rows when there is none."""
    if name in rows():
        return rows()[name]
    near = difflib.get_close_matches(name, rows(), n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise DiffseError(f"'{name}' is no row of the papers' tables; {hint}there are: {', '.join(rows())}")


def _row(name: str, entry: dict[str, Any], table: dict[str, Any]) -> Row:
    corpus = corpora()[table["corpus"]]
    return Row(
        name=name,
        label=entry["label"],
        recipe=entry["recipe"],
        predictor=entry.get("predictor", ""),
        corpus=corpus,
        trained_on=corpora()[entry.get("trained_on", corpus.name)],
        paper=_read()["papers"][table["paper"]],
        table=table["table"],
        spread=table.get("spread", ""),
        values=_numbers(entry["values"]),
        other=table.get("other", {}) | entry.get("other", {}),
        assumed=table.get("assumed", {}),
        refuse=table.get("refuse", ""),
    )


def _numbers(values: dict[str, list[float]]) -> dict[str, Number]:
    return {name: Number(*map(float, pair)) for name, pair in values.items()}


@functools.cache
def _read() -> dict[str, Any]:
    import yaml

    return yaml.safe_load(FILE.read_text(encoding="utf-8"))
