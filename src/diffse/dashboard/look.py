"""How the pages look: colours, badges, and text from outside that stays text."""

import html
import string
from collections.abc import Iterable

COLOURS = {"ok": "green", "failed": "red", "running": "blue", "lost": "orange", "interrupted": "gray"}
WORDS = {"ok": "done", "failed": "failed", "running": "running", "lost": "lost", "interrupted": "stopped"}
CHIPS = {"done": "green", "failed": "red", "running": "blue", "lost": "orange", "stopped": "gray"}
# Lines of charts, seen on white and on black.
SYSTEMS = ("#1a6fd1", "#cc4a14", "#148a69", "#9a45c0", "#96700a", "#c2397d")

# Streamlit would fetch an icon of its own from another site.
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' stroke='%230b62c4' "
    "stroke-width='2.5' stroke-linecap='round'%3E"
    "%3Cpath d='M4 10v4M8 6v12M12 3v18M16 7v10M20 10v4'/%3E%3C/svg%3E"
)

_STATES = {  # colours of words, on white and on black
    "light": ":root { --ok: #1a7f4b; --failed: #c9302c; --running: #2170c8; --lost: #b35c00; }",
    "dark": ":root { --ok: #4ec384; --failed: #ff7b72; --running: #6cb2ff; --lost: #f0a04b; }",
}
_STYLE = """<style>
.block-container { max-width: 82rem; padding-top: 4.5rem; }
h1 { font-size: 1.75rem !important; padding: 0 !important; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem !important; } h3 { font-size: 1.05rem !important; }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; margin: .25rem 0; }
.card { flex: 1 1 7.5rem; max-width: 15rem; border: 1px solid rgba(128, 140, 155, .3); border-radius: .6rem;
  padding: .6rem .9rem; min-width: 0; }
.card b { display: block; font-size: 1.35rem; line-height: 1.3; font-weight: 600; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }
.card.long b { font-size: 1rem; line-height: 1.7; }
.card span { font-size: .8rem; opacity: .75; }
.card.ok b { color: var(--ok); } .card.failed b { color: var(--failed); }
.card.running b { color: var(--running); } .card.lost b { color: var(--lost); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .9rem; }
.legend span { overflow-wrap: anywhere; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem; margin-right: .4rem; }
.scroll { overflow-x: auto; padding-bottom: .5rem; }
.scroll .facts { min-width: 32rem; }
.facts { width: 100%; border-collapse: collapse; font-size: .9rem; }
.facts th, .facts td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0;
  border-bottom: 1px solid rgba(128, 140, 155, .25); overflow-wrap: anywhere; }
.facts th { font-weight: 500; opacity: .75; white-space: nowrap; padding-right: 1.5rem; }
.facts .different { background: rgba(214, 160, 20, .16); }
@media (max-width: 40rem) { .facts th { white-space: normal; } .card { flex-basis: 6.5rem; } }
</style>"""


def style(theme: str) -> str:
    """The style sheet of all pages, as HTML."""
    return _STYLE.replace("<style>", f"<style>\n{_STATES['dark' if theme == 'dark' else 'light']}")


def plain(text: object) -> str:
    """Text from outside for a place that reads Markdown: every sign that could mean something is escaped."""
    line = " ".join(str(text).split())
    for sign in ("://", "www.", "@"):  # of addresses, which would become links: an invisible joiner parts them
        line = line.replace(sign, f"{sign[0]}\u2060{sign[1:]}")
    return "".join(f"\\{sign}" if sign in string.punctuation else sign for sign in line)


def cards(items: Iterable[tuple[str, object, str]]) -> str:
    """Small boxes of (label, value, class) as HTML."""
    made = []
    for label, value, kind in items:
        long = " long" if len(str(value)) > 8 else ""
        text = f"<b>{html.escape(str(value))}</b><span>{html.escape(label)}</span>"
        made.append(f'<div class="card {kind}{long}">{text}</div>')
    return f'<div class="cards">{"".join(made)}</div>'


def legend(names: Iterable[str]) -> str:
    """Which colour of the charts is whose, as HTML."""
    entries = (
        f'<span><i style="background: {SYSTEMS[place % len(SYSTEMS)]}"></i>{html.escape(name)}</span>'
        for place, name in enumerate(names)
    )
    return f'<div class="legend">{"".join(entries)}</div>'


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """A table of names and values as HTML."""
    lines = (
        f"<tr><th scope='row'>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f'<table class="facts">{"".join(lines)}</table>'


def table(names: list[str], rows: Iterable[tuple[str, list[str]]], mark: bool = False) -> str:
    """A table of one column per name; `mark`: show the rows whose values differ."""
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in names)
    lines = []
    for label, values in rows:
        how = " class='different'" if mark and len(set(values)) > 1 else ""
        cells = "".join(f"<td>{html.escape(value)}</td>" for value in values)
        lines.append(f"<tr{how}><th scope='row'>{html.escape(label)}</th>{cells}</tr>")
    return f'<div class="scroll"><table class="facts"><tr><th></th>{head}</tr>{"".join(lines)}</table></div>'
