"""The page of a gate: one HTML file that needs no network, with what is broken first."""

import html
from pathlib import Path
from typing import Any

from diffse import storage

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #667; }
:root { --bad: #b3261e; --warn: #8a5a00; --good: #1b6e3c; }
@media (prefers-color-scheme: dark) {
  :root { --quiet: #9aa; --bad: #ff8a80; --warn: #ffc46b; --good: #7ddc9f; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .35rem .7rem; border-bottom: 1px solid var(--line); }
th { font-weight: 600; border-bottom-width: 2px; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.quiet { color: var(--quiet); }
.bad { color: var(--bad); }
.warn { color: var(--warn); }
.good { color: var(--good); }
.wide { overflow-x: auto; }
.verdict { font-size: 1.15rem; font-weight: 600; }
code { overflow-wrap: anywhere; }
section.broken { border-left: 4px solid; padding: .1rem 1rem; margin: 1rem 0; }
section.broken p { margin: .4rem 0; }
@media (max-width: 40rem) {  /* a card for each rule, with the column's name before each value */
  .rules tr, .rules td { display: block; border: 0; padding: .1rem 0; }
  .rules tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
  .rules tr:first-child, .rules td:empty { display: none; }
  .rules .number { text-align: left; }
  .rules td[data-label]::before { content: attr(data-label) ": "; color: var(--quiet); }
}
"""

_COLUMNS, _FAILING = ("Rule", "Table", "Allowed", "Found"), "Failing rows"


def write(result: dict[str, Any], path: Path) -> None:
    """Write the page of a gate's result (the dictionary that its JSON file holds), atomically."""
    with storage.atomic_file(path) as temporary:
        temporary.write_text(text(result), encoding="utf-8")


def text(result: dict[str, Any]) -> str:
    """The page as HTML."""
    title = f"Gate: {result['artifact']} {result['name']}"
    broken = [rule for rule in result["rules"] if not rule["success"]]
    parts = [
        f"<h1>{_safe(title)}</h1>",
        _verdict(result, broken),
        *(_broken(rule) for rule in sorted(broken, key=lambda rule: rule["severity"] != "error")),
        _rule_table(result["rules"]),
        _statistics(result.get("statistics") or {}, result.get("last_version") or {}),
        _inputs(result),
    ]
    head = f"<meta charset='utf-8'><title>{_safe(title)}</title><style>{_STYLE}</style>"
    viewport = "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    return f"<!doctype html><html lang='en'><head>{head}{viewport}</head><body>{''.join(parts)}</body></html>\n"


def _verdict(result: dict[str, Any], broken: list[dict[str, Any]]) -> str:
    errors = sum(rule["severity"] == "error" for rule in broken)
    warnings = len(broken) - errors
    said = _count(errors, "rule") + " broken: the chain stops here" if errors else "Passed"
    style = "bad" if errors else "good"
    if warnings:
        said += f", with {_count(warnings, 'warning')}"
    rows = ", ".join(f"{_safe(name)} {count:,}" for name, count in result["rows"].items())
    return (
        f"<p class='verdict {style}'>{said}</p><p class='quiet'>{_count(len(result['rules']), 'rule')}"
        f"{'; rows: ' + rows if rows else ''}</p>"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _broken(rule: dict[str, Any]) -> str:
    style = "bad" if rule["severity"] == "error" else "warn"
    which = ""
    if rule["examples"]:
        more = ", …" if rule["failed_count"] > len(rule["examples"]) else ""
        names = ", ".join(f"<code>{_safe(name)}</code>" for name in rule["examples"])
        which = f"<p>{rule['failed_count']:,} fail: {names}{more}</p>"
    return (
        f"<section class='broken {style}'><p><b>{_safe(rule['rule'])}</b> ({rule['severity']})</p>{which}"
        f"<p>Found {_safe(rule['observed'])}; allowed {_safe(rule['limit'])}.</p>"
        f"<p>To do: {_safe(rule['remedy'])}.</p></section>"
    )


def _rule_table(rules: list[dict[str, Any]]) -> str:
    rows = []
    for rule in rules:
        style = "good" if rule["success"] else "bad" if rule["severity"] == "error" else "warn"
        word = "holds" if rule["success"] else "broken" if rule["severity"] == "error" else "warning"
        cells = zip(_COLUMNS, (rule["rule"], rule["table"], rule["limit"], rule["observed"]), strict=True)
        failed = f"{rule['failed_count']:,}" if rule["failed_count"] else ""
        rows.append(
            f"<tr><td class='{style}'>{word}</td>"
            + "".join(f"<td data-label='{name}'>{_safe(value)}</td>" for name, value in cells)
            + f"<td class='number' data-label='{_FAILING}'>{failed}</td></tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in ("", *_COLUMNS, _FAILING))
    table = f"<table class='rules'><tr>{head}</tr>{''.join(rows)}</table>"
    return f"<h2>All rules</h2><div class='wide'>{table}</div>"


def _statistics(now: dict[str, float], before: dict[str, float]) -> str:
    if not now:
        return ""
    rows = [
        f"<tr><td>{_safe(name)}</td><td class='number'>{_figure(now.get(name))}</td>"
        f"<td class='number'>{_figure(before.get(name))}</td></tr>"
        for name in sorted({*now, *before}, key=lambda name: (name not in now, name))
    ]
    head = "<tr><th>Statistic</th><th class='number'>This version</th><th class='number'>Last version</th></tr>"
    return f"<h2>Statistics</h2><div class='wide'><table>{head}{''.join(rows)}</table></div>"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _inputs(result: dict[str, Any]) -> str:
    version = result.get("great_expectations")
    judged = f"Judged by Great Expectations {_safe(str(version))}. " if version else ""
    files = "".join(
        f"<tr><td><code>{_safe(name)}</code></td><td><code class='quiet'>{_safe(digest)}</code></td></tr>"
        for name, digest in result["inputs"].items()
    )
    table = (
        f"<div class='wide'><table><tr><th>File</th><th>SHA-256</th></tr>{files}</table></div>" if files else ""
    )
    beside = f"<p class='quiet'>{judged}The same result as JSON lies beside this page.</p>"
    return f"<h2>What was judged</h2>{table}{beside}"


def _safe(value: str) -> str:
    return html.escape(str(value))
