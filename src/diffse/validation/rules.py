"""Rules: what must hold for a table, as Great Expectations states it, and what to do where it does not.

`between` is true of an empty table and of a column that holds nothing, so every rule on values asks first that
they are there, and every table carries a rule on its number of rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

Expectation = dict[str, Any]  # {"type", "kwargs"}, as in a Great Expectations suite


@dataclass(frozen=True)
class Rule:
    """One line of a gate's table. All its expectations must hold."""

    name: str
    table: str
    column: str  # "" for a rule on the table as a whole
    limit: str  # for people
    remedy: str
    expectations: tuple[Expectation, ...]
    severity: str = "error"  # or "warning": told and shown, but nothing stops


@dataclass
class Subject:
    """What a gate judges: tables with a column `id`, the rules on them, and the files they were read from.

    `statistics` describe this version, for a later one to be compared with; `last_version` those of the version
    that this one was compared with.
    """

    tables: dict[str, "pandas.DataFrame"]
    rules: list[Rule]
    inputs: list[Path] = field(default_factory=list)
    statistics: dict[str, float] = field(default_factory=dict)
    last_version: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a rule. `examples`: the first ids that break it."""

    rule: Rule
    success: bool
    observed: str
    failed_count: int
    examples: list[str]


class Table:
    """Writes rules for one table of a subject: `table.within(...)` and so on return a `Rule`."""

    def __init__(self, name: str, severity: str = "error"):
        self.name, self.severity = name, severity

    def rows(self, name: str, low: int, remedy: str, high: int | None = None) -> Rule:
        """At least `low` rows, and at most `high`."""
        limit = f"at least {low}" if high is None else _span(low, high)
        return self._rule(name, "", limit, remedy, _expect("table_row_count_to_be_between", low=low, high=high))

    def within(
        self, name: str, column: str, low: float | None, high: float | None, remedy: str, missing: float = 0.0
    ) -> Rule:
        """Numbers from `low` to `high`; at most the share `missing` of them may be absent."""
        between = _expect("column_values_to_be_between", column, low=low, high=high)
        return self._rule(name, column, _span(low, high), remedy, *_present(column, missing), between)

    def true(self, name: str, column: str, remedy: str, missing: float = 0.0) -> Rule:
        """True in every row; at most the share `missing` of them may be absent."""
        holds = _expect("column_values_to_be_in_set", column, value_set=[True])
        return self._rule(name, column, "true for all", remedy, *_present(column, missing), holds)

    def one_of(self, name: str, column: str, allowed: Iterable[Any], remedy: str) -> Rule:
        """One of the values `allowed` in every row."""
        values = list(allowed)
        limit = ", ".join(map(str, values))
        member = _expect("column_values_to_be_in_set", column, value_set=values)
        return self._rule(name, column, limit, remedy, *_present(column), member)

    def unique(self, name: str, column: str, remedy: str) -> Rule:
        """No value twice."""
        once = _expect("column_values_to_be_unique", column)
        return self._rule(name, column, "all different", remedy, *_present(column), once)

    def enough(self, name: str, column: str, missing: float, remedy: str) -> Rule:
        """At most the share `missing` of the values absent."""
        return self._rule(name, column, f"at most {missing:.3g} missing", remedy, *_present(column, missing))

    def mean(self, name: str, column: str, low: float, high: float, remedy: str) -> Rule:
        """Mean of the column from `low` to `high`."""
        between = _expect("column_mean_to_be_between", column, low=low, high=high)
        return self._rule(name, column, f"mean {_span(low, high)}", remedy, between)

    def _rule(self, name: str, column: str, limit: str, remedy: str, *expectations: Expectation) -> Rule:
        return Rule(name, self.name, column, limit, remedy, expectations, self.severity)


def _present(column: str, missing: float = 0.0) -> tuple[Expectation, ...]:
    """Not null, but for the share `missing`; nothing to ask where all may be absent."""
    if missing >= 1.0:
        return ()
    return (_expect("column_values_to_not_be_null", column, mostly=round(1.0 - missing, 12)),)


def _expect(
    kind: str, column: str | None = None, low: Any = None, high: Any = None, **kwargs: Any
) -> Expectation:
    given = {"column": column, "min_value": low, "max_value": high, **kwargs}
    return {
        "type": f"expect_{kind}",
        "kwargs": {name: value for name, value in given.items() if value is not None},
    }


def _span(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"at most {high:.6g}" if low is None else f"at least {low:.6g}"
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
