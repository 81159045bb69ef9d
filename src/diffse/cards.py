"""What a step made, for a page that shows it: the reference, numbers and a short text (`--write-card`)."""

import math
from pathlib import Path
from typing import Any

from diffse import storage
from diffse.steps import Step


def card(root: Path, step: Step, result: dict[str, Any], reference: str) -> dict[str, Any]:
    """{"command", "reference", "location", "checksum", "numbers", "text"} of a step that has ended well.

    `result` is what its verb returned; `text` is Markdown. Raises DiffseError if a gate's result is damaged.
    """
    location, _, checksum = reference.partition("@")
    found = numbers(result)
    rows = _rules(root / step.writes[0]) if step.verb == "check" else [(k, _short(v)) for k, v in found.items()]
    header = ("rule", "holds", "observed", "limit") if step.verb == "check" else ("what", "value")
    text = f"**{step.command}**\n\n`{reference}`\n\n{_table(header, rows)}"
    facts = {"location": location, "checksum": checksum, "numbers": found, "text": text}
    return {"command": step.command, "reference": reference, **facts}


def card_of_files(result: dict[str, Any], target: str) -> dict[str, Any]:
    """The same of `diffse enhance IN OUT`, whose product no step uses: it has no version."""
    found = numbers(result)
    text = f"**{target}**\n\n{_table(('what', 'value'), [(k, _short(v)) for k, v in found.items()])}"
    facts = {"location": target, "checksum": "", "numbers": found, "text": text}
    return {"command": "diffse enhance", "reference": target, **facts}


def numbers(result: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """All finite numbers of a nested result, by their path: {"means si_sdr": 12.3}."""
    found: dict[str, float] = {}
    for key, value in result.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found |= numbers(value, f"{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[name] = value
    return found


def _rules(gate: Path) -> list[tuple[str, ...]]:
    rules = storage.read_json(gate)["rules"]
    return [(r["rule"], "yes" if r["success"] else "NO", str(r["observed"]), str(r["limit"])) for r in rules]


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
