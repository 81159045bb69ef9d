"""The first page: all runs."""

import pandas
import streamlit as st

from diffse.dashboard import look, session
from diffse.dashboard.entries import Entry, counts
from diffse.dashboard.views import common

_SHOWN = 2000  # lines of the table; the newest


def show() -> None:
    """The list of runs, filtered, searched and sorted; it follows running ones."""
    project = session.project()
    common.heading("Runs", f"{project.root.resolve()}")
    controls = st.container(horizontal=True, vertical_alignment="bottom")
    with controls:
        text = st.text_input(
            "Search", placeholder="name, setting=value, version, error …", key="search", width=330
        )
        st.pills("State", list(look.CHIPS), selection_mode="multi", key="states")
        st.segmented_control("Show", ["steps", "pipelines"], default="steps", key="grouping")
    _list(text or "")


@st.fragment(run_every="5s")
def _list(text: str) -> None:
    project = session.project()
    grouped = st.session_state.get("grouping") == "pipelines"
    entries, damaged, notes = project.grouped() if grouped else project.entries()
    common.problems(damaged, notes)
    if not entries:
        common.empty("No runs yet", "Run `dvc repro` or any `diffse` command in this project: it appears here.")
        return
    st.html(look.cards(_cards(entries)))
    kinds = sorted({entry.kind for entry in entries})
    if len(kinds) > 1:
        st.pills("Kind", kinds, selection_mode="multi", key="kinds", label_visibility="collapsed")
    found = matching(entries, text, st.session_state.get("states") or [], st.session_state.get("kinds") or [])
    if not found:
        common.empty("Nothing matches", "Clear the search or the filters.")
        return
    _table(found[:_SHOWN])
    if len(found) > _SHOWN:
        st.caption(f"The newest {_SHOWN:,} of {len(found):,}; search to see others.")


def _cards(entries: list[Entry]) -> list[tuple[str, object, str]]:
    number = counts(entries)
    order = ("running", "failed", "lost", "ok", "interrupted")
    return [("all", f"{len(entries):,}", "")] + [
        (look.WORDS[state], f"{number[state]:,}", state) for state in order if number.get(state)
    ]


def matching(entries: list[Entry], text: str, states: list[str], kinds: list[str]) -> list[Entry]:
    """Entries that hold every word of `text` and are of one of the states and kinds, if any are given."""
    words = text.lower().split()
    return [
        entry
        for entry in entries
        if all(word in entry.text for word in words)
        and (not states or look.WORDS.get(entry.state) in states)
        and (not kinds or entry.kind in kinds)
    ]


def _table(entries: list[Entry]) -> None:
    picked = st.dataframe(
        pandas.DataFrame(common.lines(entries)),
        column_config=common.columns(),
        hide_index=True,
        height=common.table_height(len(entries), 640),
        on_select="rerun",
        selection_mode=["multi-row", "single-cell"],
        key="table",
    )
    cells, rows = picked["selection"]["cells"], picked["selection"]["rows"]
    if cells:
        _open(entries[cells[0][0]])
    chosen = [entries[row] for row in rows if row < len(entries)]
    if not chosen:
        st.caption("Click a run to open it; tick several to compare them.")
        return
    with st.container(horizontal=True):
        if len(chosen) == 1 and st.button("Open", icon=":material/open_in_full:"):
            _open(chosen[0])
        if st.button(f"Compare {len(chosen)} runs", type="primary", disabled=len(chosen) < 2):
            common.go("compare", runs=",".join(entry.key for entry in chosen))


def _open(entry: Entry) -> None:
    if entry.run is not None:
        common.go("run", run=entry.run.id)
    common.go("run", pipeline=entry.pipeline)
