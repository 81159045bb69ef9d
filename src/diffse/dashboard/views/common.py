"""What several pages show."""

import datetime
from collections.abc import Iterable

import streamlit as st

from diffse.dashboard import look
from diffse.dashboard.entries import Entry, ago, duration


def problems(damaged: list[str], notes: list[str]) -> None:
    """Say which sources do not answer and which records are damaged; the rest is shown all the same."""
    for note in notes:
        st.warning(f"{look.plain(note)}. The rest is shown.", icon=":material/cloud_off:")
    if damaged:
        count = "1 run record is" if len(damaged) == 1 else f"{len(damaged)} run records are"
        with st.expander(f":orange[:material/warning: {count} damaged]"):
            st.text("\n".join(damaged))


def badge(state: str) -> None:
    """A state as a coloured word."""
    st.badge(look.WORDS.get(state, look.plain(state)), color=look.COLOURS.get(state, "gray"))


def empty(title: str, text: str) -> None:
    """What a page says when there is nothing to show yet."""
    with st.container(border=True, horizontal_alignment="center"):
        st.markdown(f"**{title}**")
        st.caption(text)


def heading(title: str, text: str = "") -> None:
    """Title of a page and what it is about; both are plain text."""
    st.title(look.plain(title), anchor=False)
    if text:
        st.caption(look.plain(text))


def when(moment: datetime.datetime) -> str:
    """'2026-11-25 21:40 UTC (5 min ago)'."""
    return f"{moment:%Y-%m-%d %H:%M} UTC ({ago(moment, datetime.datetime.now(datetime.UTC))})"


def go(page: str, **query: str) -> None:
    """Open another page."""
    st.switch_page(st.session_state["pages"][page], query_params=query)


def theme() -> str:
    """'light' or 'dark', as the visitor sees the page."""
    return str(st.context.theme.type or "light")


def table_height(rows: int, most: int) -> int:
    """Pixels of a table that shows `rows` rows without an empty one."""
    return min(35 * (rows + 1) + 2, most)


def lines(entries: Iterable[Entry]) -> list[dict]:
    """Rows of a table of runs."""
    return [
        {
            "state": [look.WORDS.get(entry.state, entry.state)],
            "run": entry.title,
            "progress": None if entry.share is None or entry.state == "ok" else 100 * entry.share,
            "detail": entry.error or entry.progress,
            "started": entry.started,
            "duration": duration(entry.seconds),
            "kind": entry.kind,
            "data": entry.data,
            "code": entry.code,
            "pipeline": entry.pipeline,
        }
        for entry in entries
    ]


def columns() -> dict:
    """How the columns of `lines` are shown."""
    config = st.column_config
    return {
        "state": config.MultiselectColumn(
            "State", options=list(look.CHIPS), color=list(look.CHIPS.values()), width=90
        ),
        "run": config.TextColumn("Run", width=260),
        "progress": config.ProgressColumn("Progress", min_value=0, max_value=100, format="%d %%", width=110),
        "detail": config.TextColumn("Detail", width=300),
        "started": config.DatetimeColumn("Started (UTC)", format="YYYY-MM-DD HH:mm:ss", width=150),
        "duration": config.TextColumn("Duration", width=90),
        "kind": config.TextColumn("Kind", width=110),
        "data": config.TextColumn("Data", width=130),
        "code": config.TextColumn("Code", width=90),
        "pipeline": config.TextColumn("Pipeline", width="medium"),
    }
