"""Listening tests as text for the page and for Markdown."""

from typing import Any

from diffse.report.compare import number
from diffse.report.names import label

_NAMES = {"reference": "hidden reference", "anchor35": "low anchor, 3.5 kHz"}


def condition(system: str) -> str:
    """What a condition is called."""
    return _NAMES.get(system, label(system))


def view(summary: dict[str, Any]) -> dict[str, Any]:
    """A test as text for the page."""
    rows = []
    for one in summary["conditions"]:
        interval = "" if one["low"] is None else f"{number(one['low'], 1)} to {number(one['high'], 1)}"
        quartiles = f"{number(one['q1'], 1)} to {number(one['q3'], 1)}"
        texts = (str(one["rank"] or "–"), number(one["mean"], 1), interval, number(one["median"], 1), quartiles)
        rows.append((condition(one["system"]), *texts))
    undecided = [pair for pair in summary["pairs"] if pair["better"] is None]
    listeners = "1 listener" if summary["listeners"] == 1 else f"{summary['listeners']} listeners"
    return {
        "title": f"{summary['name']}: {summary['corpus']}, {listeners}, {summary['trials']} trials",
        "name": summary["name"],
        "rows": rows,
        "left_out": [one["reason"] for one in summary["left_out"]],
        "undecided": [f"{condition(pair['first'])} and {condition(pair['second'])}" for pair in undecided],
        "confidence": f"{summary['confidence'] * 100:g} %",
    }
