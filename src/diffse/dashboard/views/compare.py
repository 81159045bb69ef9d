"""Runs and systems beside each other."""

import streamlit as st

from diffse import paths
from diffse.dashboard import charts, comparing, look, session
from diffse.dashboard.entries import Entry, duration, flat
from diffse.dashboard.project import Project
from diffse.dashboard.views import common, training
from diffse.errors import DiffseError
from diffse.report import artifacts
from diffse.report.compare import metric as described
from diffse.report.compare import number, ordered, signed

_MOST = 8  # runs beside each other


def show() -> None:
    """Chosen runs: settings, versions and results; and the systems behind them: scores and curves."""
    project = session.project()
    common.heading("Compare", "Runs side by side, and systems by their scores on the same files.")
    entries, damaged, notes = project.entries()
    grouped, _, _ = project.grouped()
    known = {entry.key: entry for entry in [*entries, *grouped]}
    common.problems(damaged, notes)
    asked = [key for key in st.query_params.get("runs", "").split(",") if key in known]
    systems_tab, runs_tab = st.tabs(["Systems", "Runs"], default="Runs" if asked else "Systems")
    with runs_tab:
        chosen = _choose(known, asked)
    with systems_tab:
        _systems(project, [known[key] for key in asked])
    if chosen:
        with runs_tab:
            _runs(chosen)


def _choose(known: dict[str, Entry], asked: list[str]) -> list[Entry]:
    if not known:
        common.empty("No runs yet", "Runs of this project appear here.")
        return []
    names = {key: _label(entry) for key, entry in known.items()}
    keys = st.multiselect(
        "Runs", list(known), default=asked, format_func=names.get, max_selections=_MOST, key=f"runs {asked}"
    )
    if len(keys) < 2:
        st.caption("Choose two runs or more, here or by ticking them in the list of runs.")
    return [known[key] for key in keys]


def _label(entry: Entry) -> str:
    return f"{entry.title} · {entry.started:%m-%d %H:%M:%S} · {look.WORDS[entry.state]}"


def _runs(entries: list[Entry]) -> None:
    names = [entry.title for entry in entries]
    facts = [
        ("state", [look.WORDS[entry.state] for entry in entries]),
        ("started (UTC)", [f"{entry.started:%Y-%m-%d %H:%M:%S}" for entry in entries]),
        ("duration", [duration(entry.seconds) for entry in entries]),
        ("kind", [entry.kind for entry in entries]),
        ("data", [entry.data or "–" for entry in entries]),
        ("code", [entry.code or "–" for entry in entries]),
    ]
    st.html(look.table(names, facts, mark=True))
    st.subheader("Settings", anchor=False)
    only = st.toggle("Only what differs", value=True)
    rows = comparing.settings_table(entries, only)
    if rows:
        st.html(look.table(names, rows, mark=True))
    else:
        st.caption("No setting differs." if only else "These runs have read no settings.")
    results = [flat(entry.run.table("result")) if entry.run else {} for entry in entries]
    keys = list(dict.fromkeys(key for result in results for key in result))
    if keys:
        st.subheader("Results", anchor=False)
        rows = [(key, [result.get(key, "–") for result in results]) for key in keys]
        st.html(look.table(names, rows, mark=True))


# ---------------------------------------------------------------------------------------------- systems


def _systems(project: Project, entries: list[Entry]) -> None:
    evaluated = project.results()
    if not evaluated:
        common.empty("No scores yet", "`diffse evaluate SYSTEM CORPUS` or `dvc repro` writes them to results/.")
        return
    corpora = list(dict.fromkeys(corpus for _, corpus in evaluated))
    left, right = st.columns([1, 3])
    corpus = left.selectbox("Corpus", corpora)
    systems = sorted(
        (name for name, on in evaluated if on == corpus), key=lambda name: name != paths.UNPROCESSED
    )
    named = [name for entry in entries if entry.run for name in entry.run.names]
    first = [name for name in systems if name in named] or systems[:6]
    if paths.UNPROCESSED in systems and paths.UNPROCESSED not in first:
        first = [paths.UNPROCESSED, *first]
    chosen = right.multiselect("Systems", systems, default=first, max_selections=12)
    if not chosen:
        return
    scores = _read(project, chosen, corpus)
    if not scores:
        return
    reference = st.selectbox("Reference", list(scores), help="Differences are to this system, file by file.")
    _scores(scores, reference)
    trained = [name for name in scores if name in project.systems()]
    if trained:
        st.subheader("Training curves", anchor=False)
        training.curves(trained[:6], True)


def _read(project: Project, systems: list[str], corpus: str) -> dict[str, artifacts.Scores]:
    found = {}
    for system in systems:
        try:
            scores = artifacts.read_scores(project.root, system, corpus)
        except (DiffseError, KeyError, TypeError, ValueError) as error:
            st.warning(look.plain(f"{system} on {corpus}: {error}. The rest is shown."))
            continue
        if scores is not None:
            found[system] = scores
    return found


def _scores(scores: dict[str, artifacts.Scores], reference: str) -> None:
    tables = {system: found.table for system, found in scores.items()}
    metrics = ordered({name for found in scores.values() for name in found.metrics})
    if not metrics:
        st.caption("These evaluations hold no metric.")
        return
    for name in metrics:
        rows = comparing.compare(tables, name, reference)
        if any(row.mean is not None for row in rows):
            _metric(name, rows, list(scores), reference)
    st.caption(
        f"Points are means over files with {comparing.CONFIDENCE:.0%} bootstrap intervals. Verdicts are those "
        "of Wilcoxon's signed-rank test of the per-file differences, corrected for their number (Holm)."
    )


def _metric(name: str, rows: list[comparing.Comparison], names: list[str], reference: str) -> None:
    how = described(name)
    st.markdown(f"**{look.plain(how.heading)}**")
    left, right = st.columns([3, 4])
    points = [
        {"system": row.system, "mean": row.mean, "low": row.low or row.mean, "high": row.high or row.mean}
        for row in rows
        if row.mean is not None
    ]
    left.vega_lite_chart(charts.intervals(points, names, how.heading))
    lines = []
    for row in rows:
        change, p = ("reference" if row.system == reference else "–"), "–"
        if row.change is not None and row.p is not None:
            change, p = signed(row.change, how.digits), f"{row.p:.3f}" if row.p >= 0.001 else "< 0.001"
        lines.append((row.system, [number(row.mean, how.digits), change, p, row.verdict or "–", str(row.n)]))
    right.html(look.table(["mean", "difference", "p", "verdict", "files"], lines))
