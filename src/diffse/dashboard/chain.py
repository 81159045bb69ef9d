"""The graph of steps: which step waits for which, and its drawing."""

import html
from collections.abc import Iterable
from dataclasses import dataclass

from diffse import paths, settings

Name = tuple[str, ...]  # verb and names: ("check", "cache", "demo")
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 184, 44, 44, 14
STATE_MARKS = {"ok": "✓", "failed": "✕", "running": "▶", "lost": "?", "interrupted": "■", "waiting": "·"}


def selected(params: settings.Params) -> list[Name]:
    """All steps of the project as its settings select them, in the order of the chain."""
    trained = [f"{recipe}.{corpus}" for corpus in params.train_corpora for recipe in params.recipes]
    found: list[Name] = []
    for corpus in params.corpora:
        found += [("prepare", corpus), ("check", "mixtures", corpus)]
    for corpus in params.train_corpora:
        found += [("cache", corpus), ("check", "cache", corpus), ("estimate", corpus)]
    for system in trained:
        found += [("train", system), ("check", "checkpoint", system)]
    for corpus in params.corpora:
        for system in (*trained, *params.externals):
            found += [("enhance", system, corpus), ("check", "enhanced", system, corpus)]
        for system in (paths.UNPROCESSED, *trained, *params.externals):
            found += [("evaluate", system, corpus), ("check", "metrics", system, corpus)]
    found += [("sweep", name) for name in params.sweeps] + [("swap", name) for name in params.swaps]
    return [*dict.fromkeys(found), ("report",)]


def before(step: Name, params: settings.Params | None) -> list[Name]:
    """Steps that a step waits for."""
    verb, *names = step
    if verb == "check":
        return [(_MADE_BY[names[0]], *names[1:])] if names and names[0] in _MADE_BY else []
    if verb in ("sweep", "swap") and params is not None:
        entry = (params.sweeps if verb == "sweep" else params.swaps).get(names[0])
        systems = [system for key in ("system", "predictor") if (system := getattr(entry, key, None))]
        return [("check", "checkpoint", system) for system in systems]
    if verb == "train":
        return [("estimate", names[0].rpartition(".")[2])]
    if verb == "enhance" and len(names) == 2:
        trained = "." in names[0]
        return [("check", "checkpoint", names[0])] * trained + [("check", "mixtures", names[1])]
    if verb == "evaluate" and len(names) == 2:
        unprocessed = names[0] == paths.UNPROCESSED
        return [("check", "mixtures", names[1]) if unprocessed else ("check", "enhanced", *names)]
    return [("check", _GATE_BEFORE[verb], *names)] if verb in _GATE_BEFORE else []


_MADE_BY = {"mixtures": "prepare", "cache": "cache", "checkpoint": "train"}
_MADE_BY |= {"enhanced": "enhance", "metrics": "evaluate"}
_GATE_BEFORE = {"cache": "mixtures", "estimate": "cache"}


def edges(steps: Iterable[Name], params: settings.Params | None) -> list[tuple[Name, Name]]:
    """(earlier, later) between the given steps; the report waits for whatever nothing else waits for.

    Steps that are not among them, for example because nothing had changed for them, are passed over: what they
    wait for is what the step behind them waits for.
    """
    known = dict.fromkeys(steps)
    found = [(first, step) for step in known for first in _nearest(step, known, params)]
    if ("report",) in known:
        waited_for = {first for first, _ in found}
        found += [(step, ("report",)) for step in known if step not in waited_for and step != ("report",)]
    return _without_detours(found)


def _nearest(step: Name, known: dict[Name, None], params: settings.Params | None) -> list[Name]:
    """The known steps that `step` waits for, by whatever way through steps that are not known."""
    found, seen, ahead = [], set(), before(step, params)
    while ahead:
        first = ahead.pop()
        if first in known:
            found.append(first)
        elif first not in seen:
            seen.add(first)
            ahead += before(first, params)
    return list(dict.fromkeys(found))


def _without_detours(links: list[tuple[Name, Name]]) -> list[tuple[Name, Name]]:
    """Without those that a longer way through other steps implies: fewer lines say the same."""
    after: dict[Name, set[Name]] = {}
    for first, last in links:
        after.setdefault(first, set()).add(last)

    def reaches(start: Name, goal: Name) -> bool:
        seen, ahead = set(), list(after.get(start, ()))
        while ahead:
            step = ahead.pop()
            if step == goal:
                return True
            if step not in seen:
                seen.add(step)
                ahead += after.get(step, ())
        return False

    return [
        (first, last)
        for first, last in links
        if not any(other != last and reaches(other, last) for other in after[first])
    ]


@dataclass(frozen=True)
class Node:
    """A step of the drawing."""

    name: Name
    state: str  # of run_records.STATES, or "waiting"
    note: str = ""  # for example its duration


STYLE = """
:root { color: #1c2128; } .dark { color: #e6e9ed; }
body { margin: 0; overflow-y: auto; } svg { display: block; }
html.dark { scrollbar-color: #6b7280 transparent; }
.back { fill: #fff; stroke: none; } .dark .back { fill: #0e1117; }
text { font: 12px system-ui, sans-serif; fill: currentColor; }
.small { font-size: 10.5px; opacity: .8; } .mark { font-size: 13px; font-weight: 700; }
.edge { fill: none; stroke: rgba(128, 140, 155, .65); stroke-width: 1.4; }
.box { fill: rgba(128, 140, 155, .08); stroke: rgba(128, 140, 155, .55); stroke-width: 1.2; }
.state-ok .box { fill: rgba(34, 160, 90, .13); stroke: #22a05a; } .state-ok .mark { fill: #22a05a; }
.state-failed .box { fill: rgba(214, 52, 48, .15); stroke: #d63430; } .state-failed .mark { fill: #d63430; }
.state-running .box { fill: rgba(40, 120, 208, .15); stroke: #2878d0; stroke-dasharray: 5 3; }
.state-running .mark { fill: #2878d0; }
.state-lost .box { fill: rgba(214, 130, 20, .16); stroke: #d68214; } .state-lost .mark { fill: #d68214; }
"""


def page(nodes: list[Node], links: list[tuple[Name, Name]], theme: str = "light") -> tuple[str, int]:
    """(HTML of the graph, its height in pixels)."""
    svg, height = drawing(nodes, links)
    theme = "dark" if theme == "dark" else "light"
    return f'<!doctype html><html lang="en" class="{theme}"><style>{STYLE}</style>{svg}</html>', height


def drawing(nodes: list[Node], links: list[tuple[Name, Name]]) -> tuple[str, int]:
    """(the graph as SVG from left to right, its height in pixels)."""
    places = _places([node.name for node in nodes], links)
    columns, rows = (max(place[axis] for place in places.values()) + 1 for axis in (0, 1))
    width, height = columns * (_WIDTH + _GAP_X) - _GAP_X + 4, rows * (_HEIGHT + _GAP_Y) - _GAP_Y + 4
    lines = "".join(_edge(places[first], places[last]) for first, last in links)
    boxes = "".join(_box(node, places[node.name]) for node in nodes)
    said = "; ".join(f"{' '.join(node.name)}: {node.state}" for node in nodes)
    label = html.escape(f"Steps: {said}")
    head = f'<svg role="img" aria-label="{label}" width="{width}" height="{height}"'
    return f'{head} viewBox="-2 -2 {width} {height}">{lines}{boxes}</svg>', height


def _places(names: list[Name], links: list[tuple[Name, Name]]) -> dict[Name, tuple[int, int]]:
    """Name -> (column, row): a step stands right of all that it waits for, near the mean of their rows."""
    columns = dict.fromkeys(names, 0)
    for _ in names:  # the longest way to a step is shorter than the number of steps
        moved = [(last, columns[first] + 1) for first, last in links if columns[last] <= columns[first]]
        if not moved:
            break
        for name, column in moved:
            columns[name] = max(columns[name], column)
    places: dict[Name, tuple[int, int]] = {}
    for column in range(max(columns.values()) + 1):
        members = [name for name in names if columns[name] == column]
        wanted = {name: _mean_row(name, links, places) for name in members}
        for row, name in enumerate(sorted(members, key=lambda name: wanted[name])):
            places[name] = (column, row)
    return places


def _mean_row(name: Name, links: list[tuple[Name, Name]], places: dict[Name, tuple[int, int]]) -> float:
    rows = [places[first][1] for first, last in links if last == name and first in places]
    return sum(rows) / len(rows) if rows else 0.0


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    return place[0] * (_WIDTH + _GAP_X), place[1] * (_HEIGHT + _GAP_Y)


def _edge(first: tuple[int, int], last: tuple[int, int]) -> str:
    (x, y), (to_x, to_y) = _corner(first), _corner(last)
    x, y, to_y = x + _WIDTH, y + _HEIGHT // 2, to_y + _HEIGHT // 2
    middle = (x + to_x) // 2
    return f'<path class="edge" d="M{x} {y} C{middle} {y} {middle} {to_y} {to_x} {to_y}"/>'


def _box(node: Node, place: tuple[int, int]) -> str:
    x, y = _corner(place)
    verb, names = node.name[0], " ".join(node.name[1:])
    if verb == "check":
        verb, names = f"gate: {node.name[1]}" if len(node.name) > 1 else "gate", " ".join(node.name[2:])
    note = f" · {node.note}" if node.note else ""
    full = html.escape(f"{' '.join(node.name)}: {node.state}{note}")
    return (
        f'<g class="step state-{html.escape(node.state)}" transform="translate({x} {y})"><title>{full}</title>'
        f'<rect class="back" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>'
        f'<rect class="box" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>'
        f'<text class="mark" x="14" y="27">{STATE_MARKS.get(node.state, "·")}</text>'
        f'<text x="30" y="18">{html.escape(verb)}</text>'
        f'<text class="small" x="30" y="34">{html.escape(_short(names + note))}</text></g>'
    )


def _short(text: str, length: int = 23) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
