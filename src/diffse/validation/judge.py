"""The adapter to Great Expectations: rules and tables in, outcomes out. The only module that imports it."""

import functools
import logging
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from diffse.validation.rules import Outcome, Rule, Subject

if TYPE_CHECKING:
    import pandas

EXAMPLES = 5  # ids named per rule


def judge(subject: Subject) -> list[Outcome]:
    """Outcome of every rule, in the order of the rules."""
    outcomes: dict[int, Outcome] = {}
    for name, frame in subject.tables.items():
        rules = {number: rule for number, rule in enumerate(subject.rules) if rule.table == name}
        if rules:
            outcomes |= _judge_table(name, frame, rules)
    return [outcomes[number] for number in range(len(subject.rules))]


def version() -> str:
    """Version of Great Expectations."""
    from importlib.metadata import version

    return version("great-expectations")


@functools.cache
def _library() -> tuple[Any, Any]:
    """(great_expectations, batch definition of any data frame); the import takes seconds."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)  # it logs each missing column
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_pandas("diffse").add_dataframe_asset("table")
    return gx, asset.add_batch_definition_whole_dataframe("whole")


def _judge_table(name: str, frame: "pandas.DataFrame", rules: dict[int, Rule]) -> dict[int, Outcome]:
    gx, batches = _library()
    # results come in an order of their own; meta says which rule each belongs to
    expectations = [
        {**expectation, "meta": {"rule": number, "part": part}}
        for number, rule in rules.items()
        for part, expectation in enumerate(rule.expectations)
    ]
    suite = gx.ExpectationSuite(name=name, expectations=expectations)
    # no examples from the library: it looks up every failing row one by one, a minute for 100,000 of them
    batch = batches.get_batch({"dataframe": frame})
    validated = batch.validate(suite, result_format={"result_format": "BASIC"}).to_json_dict()
    parts: dict[int, list[dict]] = {number: [] for number in rules}
    for result in validated["results"]:
        parts[result["expectation_config"]["meta"]["rule"]].append(result)
    if any(len(parts[number]) != len(rule.expectations) for number, rule in rules.items()):
        raise RuntimeError(f"Great Expectations left out rules on '{name}'")
    return {number: _outcome(rule, frame, parts[number]) for number, rule in rules.items()}


def _outcome(rule: Rule, frame: "pandas.DataFrame", results: list[dict]) -> Outcome:
    failed = [result for result in results if not result["success"]]
    errors = [message for result in failed if (message := _error(result))]
    count = sum(result["result"].get("unexpected_count", 1) for result in failed)
    observed = errors[0] if errors else _observed(rule, frame, results)
    return Outcome(rule, not failed, observed, count, [] if errors else _examples(frame, failed))


def _examples(frame: "pandas.DataFrame", failed: list[dict]) -> list[str]:
    """Ids of the first rows that break what failed."""
    broken = np.zeros(len(frame), bool)
    for result in failed:
        config = result["expectation_config"]
        given = config["kwargs"]
        if "column" in given and "unexpected_count" in result["result"]:
            broken |= _BREAKS[config["type"]](frame[given["column"]], given).to_numpy(bool)
    return list(dict.fromkeys(map(str, frame["id"][broken][:EXAMPLES])))


def _outside(column: "pandas.Series", given: dict) -> "pandas.Series":
    low, high = given.get("min_value", -math.inf), given.get("max_value", math.inf)
    return column.notna() & ~column.between(low, high)


# The rows that an expectation counts as unexpected.
_BREAKS: dict[str, Callable[["pandas.Series", dict], "pandas.Series"]] = {
    "expect_column_values_to_not_be_null": lambda column, given: column.isna(),
    "expect_column_values_to_be_between": _outside,
    "expect_column_values_to_be_in_set": lambda column, given: (
        column.notna() & ~column.isin(given["value_set"])
    ),
    "expect_column_values_to_be_unique": lambda column, given: column.notna() & column.duplicated(keep=False),
}


def _error(result: dict) -> str:
    """Message of an expectation that could not be evaluated, such as one on a column that is not there.

    The information is a mapping by metric for those, and flat for the others.
    """
    information = result.get("exception_info") or {}
    entries = [information] if "raised_exception" in information else list(information.values())
    messages = [str(entry["exception_message"]) for entry in entries if entry.get("raised_exception")]
    return " ".join(messages[0].removeprefix("Error: ").split()) if messages else ""


def _observed(rule: Rule, frame: "pandas.DataFrame", results: list[dict]) -> str:
    """What the table holds, in a few words."""
    for result in results:
        if "observed_value" in result["result"]:
            return _number(result["result"]["observed_value"])
    column = frame[rule.column]
    values = column.dropna()
    absent = f", {len(column) - len(values)} missing" if len(values) < len(column) else ""
    if values.empty:
        return f"nothing{absent}"
    if all(isinstance(value, bool | np.bool_) for value in values.tolist()):
        return f"{int(values.sum())} of {len(column)} true{absent}"
    if column.dtype.kind in "if":
        low, high = _number(values.min()), _number(values.max())
        return (low if low == high else f"{low} to {high}") + absent
    return f"{values.nunique()} different in {len(values)}{absent}"


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "nothing"
    return f"{round(value, 9):.6g}"  # what is below is rounding, which differs between machines
