"""One run or one pipeline run: its graph, and of each step state, times, log, inputs, outputs and verdicts."""

import json

import pandas
import streamlit as st

from diffse.dashboard import chain, look, player, session
from diffse.dashboard.entries import Entry, duration, flat, of_pipeline, of_record, progress_text
from diffse.dashboard.project import Project
from diffse.dashboard.views import common
from diffse.run_records import Run

_NOW = "the project as it is now"
_SCROLLBAR, _TALLEST = 24, 640  # pixels


def show() -> None:
    """The run that the address names, else the whole project's latest steps."""
    project = session.project()
    name, pipeline = st.query_params.get("run", ""), st.query_params.get("pipeline", "")
    if name:
        _one(project, name)
    else:
        _chain(project, pipeline)


# ---------------------------------------------------------------------------------------- a pipeline run


def _chain(project: Project, asked: str) -> None:
    runs, damaged = project.runs()
    elsewhere, notes = project.elsewhere()
    names = list(dict.fromkeys(run.pipeline for run in runs if run.pipeline))
    names += [entry.pipeline for entry in elsewhere if entry.pipeline not in names]
    common.heading("Pipeline", "What ran, what waits for what, and where it stands.")
    common.problems(damaged, notes)
    choices = [_NOW, *names]
    place = choices.index(asked) if asked in choices else 0
    pipeline = st.selectbox("Pipeline run", choices, index=place, key=f"pipeline {asked}")
    if asked and asked not in choices:
        st.info(f"There is no pipeline run {look.plain(asked)} any more.")
    known = next((entry for entry in elsewhere if entry.pipeline == pipeline), None)
    if known is not None:
        _elsewhere(known)
    _steps(pipeline)


def _elsewhere(entry: Entry) -> None:
    """What a server or git tells of a run."""
    with st.container(horizontal=True, vertical_alignment="center"):
        common.badge(entry.state)
        st.caption(look.plain(f"{entry.kind}, started {common.when(entry.started)}"))
    if entry.error:
        st.error(look.plain(entry.error))
    if entry.settings:
        st.html(look.facts(entry.settings.items()))
    if entry.link:
        st.link_button("Open in Kubeflow", entry.link)


@st.fragment(run_every="5s")
def _steps(pipeline: str) -> None:
    project = session.project()
    runs, _ = project.runs()
    members = [run for run in reversed(runs) if pipeline in (_NOW, run.pipeline)]
    latest = {(run.verb, *run.names): run for run in members if run.verb in _STEPS}
    params = project.params()
    if not latest and pipeline != _NOW:
        st.caption("It has left no run records here.")
        return
    names = _names(latest, params, pipeline)
    if not names:
        common.empty("No steps yet", "There are neither run records nor settings that select any step.")
        return
    if members and pipeline != _NOW:
        _summary(of_pipeline(pipeline, members))
    nodes = [_node(name, latest.get(name)) for name in names]
    page, height = chain.page(nodes, chain.edges(names, params), common.theme())
    height = min(height + _SCROLLBAR, _TALLEST)
    st.iframe(player.sandboxed(page, height), height=height)
    _choice(project, latest)


_STEPS = ("prepare", "check", "cache", "estimate", "train", "enhance", "evaluate", "sweep", "swap", "report")


def _names(latest: dict, params, pipeline: str) -> list[chain.Name]:
    chosen = chain.selected(params) if params is not None and pipeline == _NOW else []
    if pipeline == _NOW and chosen:  # what earlier settings ran is no part of the project now
        return chosen
    return [*latest]


def _node(name: chain.Name, run: Run | None) -> chain.Node:
    if run is None:
        return chain.Node(name, "waiting")
    return chain.Node(name, run.state, duration(run.seconds))


def _summary(entry: Entry) -> None:
    items = [("state", look.WORDS[entry.state], entry.state), ("steps", entry.steps, "")]
    items += [("duration", duration(entry.seconds), ""), ("started", f"{entry.started:%m-%d %H:%M}", "")]
    items += [("code", entry.code or "–", ""), ("runner", entry.kind, "")]
    st.html(look.cards(items))


def _choice(project: Project, latest: dict[chain.Name, Run]) -> None:
    found = sorted(latest.values(), key=lambda run: run.started)
    if not found:
        return
    frame = pandas.DataFrame(common.lines(map(of_record, found)))
    picked = st.dataframe(
        frame[["state", "run", "progress", "detail", "started", "duration"]],
        column_config=common.columns(),
        hide_index=True,
        height=common.table_height(len(found), 460),
        on_select="rerun",
        selection_mode="single-cell",
        key="steps",
    )
    cells = picked["selection"]["cells"]
    if cells and cells[0][0] < len(found):
        details(project, found[cells[0][0]])
    else:
        st.caption("Click a step to see its log, settings, inputs, outputs and verdicts.")


# ---------------------------------------------------------------------------------------------- one run


@st.fragment(run_every="5s")
def _one(project: Project, name: str) -> None:
    run = project.run(name)
    if run is None:
        common.heading("Run")
        st.info(f"There is no run {look.plain(name)} here, or its record is damaged.")
        return
    details(project, run, title=True)


def details(project: Project, run: Run, title: bool = False) -> None:
    """Everything about one run."""
    entry = of_record(run)
    if title:
        common.heading(run.title, f"{entry.kind}, started {common.when(run.started)}")
        if run.pipeline and st.button(look.plain(f"Part of {run.pipeline}"), icon=":material/account_tree:"):
            common.go("run", pipeline=run.pipeline)
    else:
        st.subheader(look.plain(run.title), anchor=False)
    host = str(run.table("host").get("name") or "–")
    items = [("state", look.WORDS[run.state], run.state), ("duration", duration(run.seconds), "")]
    items += [("data", entry.data or "–", ""), ("code", entry.code or "–", ""), ("host", host, "")]
    st.html(look.cards(items))
    if run.state == "running" and run.progress is not None:
        st.progress(run.progress.share or 0.0, look.plain(f"{run.progress.what} {progress_text(run)}"))
    if run.error:
        (st.warning if run.state in ("lost", "interrupted") else st.error)(look.plain(run.error))
    _gate(run)
    tabs = st.tabs(["Log", "Result", "Settings", "Inputs and outputs", "Environment"])
    with tabs[0]:
        _log(project, run)
    with tabs[1]:
        _table(flat(run.table("result")), "The run has left no result.")
    with tabs[2]:
        _table(flat(run.table("settings")), "The run has read no settings.")
    with tabs[3]:
        _inputs_and_outputs(run)
    with tabs[4]:
        _table(_environment(run), "")


def _table(rows: dict[str, str], nothing: str) -> None:
    if rows:
        st.html(look.facts(rows.items()))
    else:
        st.caption(nothing)


def _log(project: Project, run: Run) -> None:
    text = project.records.log(run.id)
    if text:
        lines = text.splitlines()
        st.code("\n".join(lines[-200:]), language=None, wrap_lines=True, height=min(22 * len(lines) + 40, 420))
    else:
        st.caption("The run has said nothing." if run.heartbeat else "Older records keep no log.")


def _gate(run: Run) -> None:
    """The verdict of a gate: broken rules first."""
    gate = run.table("gate")
    rules = [rule for rule in gate.get("rules") or [] if isinstance(rule, dict)]
    if not gate:
        return
    broken = [rule for rule in rules if not rule.get("success")]
    if not broken:
        st.success(f"The gate has passed: {len(rules)} rules hold.", icon=":material/verified:")
    for rule in broken:
        examples = ", ".join(map(str, rule.get("examples") or []))
        st.error(
            f"**{look.plain(rule.get('rule'))}**: {look.plain(rule.get('failed_count'))} fail "
            f"(found {look.plain(rule.get('observed'))}, allowed {look.plain(rule.get('limit'))}). "
            f"{look.plain(examples)}  \nTo do: {look.plain(rule.get('remedy'))}",
            icon=":material/gpp_bad:",
        )
    with st.expander(f"All {len(rules)} rules"):
        rows = [
            (("✓ " if rule.get("success") else "✕ ") + str(rule.get("rule")), _judged(rule)) for rule in rules
        ]
        st.html(look.facts(rows))


def _judged(rule: dict) -> str:
    return f"found {rule.get('observed')}, allowed {rule.get('limit')}"


def _inputs_and_outputs(run: Run) -> None:
    record = run.record or {}
    inputs = record.get("inputs") if isinstance(record.get("inputs"), list) else []
    rows = [("command", " ".join(["diffse", *map(str, record.get("arguments") or [])]))]
    rows += [("input", value) for value in inputs]
    rows += [(f"data {name}", value) for name, value in run.table("data").items()]
    rows += [("output", run.text("output") or "–")]
    st.html(look.facts(rows))


def _environment(run: Run) -> dict[str, str]:
    record = run.record or {}
    parts = {
        key: record.get(key) for key in ("code", "host", "runner", "pipeline", "project", "pid", "heartbeat")
    }
    rows = flat({key: value for key, value in parts.items() if value is not None})
    return rows | {"record": f"{run.id}.json, {len(json.dumps(record)):,} characters"}
