"""Data versions, their statistics, and how far sets of recordings are from each other."""

import pandas
import streamlit as st

from diffse import paths, storage
from diffse.dashboard import charts, drift, look, session
from diffse.dashboard.project import Project
from diffse.dashboard.views import common
from diffse.data import manifest
from diffse.errors import DiffseError

_SPLITS = ("train", "valid", "test")


def show() -> None:
    """What is in each corpus, which versions there were, and where they differ."""
    project = session.project()
    common.heading("Data", "Corpora, their versions, and whether training and test data are of one kind.")
    frames = _frames(project)
    if not frames:
        common.empty("No data yet", "`diffse prepare CORPUS` or `dvc repro` makes the first corpus.")
    else:
        corpus = st.selectbox("Corpus", list(frames))
        _statistics(project, corpus, frames[corpus])
        _drift(
            {
                f"{name}, {split}": frame[frame["split"] == split]
                for name, frame in frames.items()
                for split in _SPLITS
            }
        )
    _versions(project)


def _frames(project: Project) -> dict[str, pandas.DataFrame]:
    found = {}
    for corpus in project.corpora():
        try:
            found[corpus] = manifest.read(paths.mixtures(project.root, corpus))
        except DiffseError as error:
            st.error(look.plain(error))
    return found


def _statistics(project: Project, corpus: str, frame: pandas.DataFrame) -> None:
    version = storage.sha256_file(paths.mixtures(project.root, corpus) / manifest.FILE)
    items = [("version", version[:12], ""), ("utterances", f"{len(frame):,}", "")]
    items += [
        ("hours", f"{frame['seconds'].sum() / 3600:.2f}", ""),
        ("speakers", frame["speaker"].nunique(), ""),
    ]
    items += [("rate", ", ".join(f"{rate / 1000:g} kHz" for rate in sorted(frame["rate"].unique())), "")]
    st.html(look.cards(items))
    rows = []
    for split in _SPLITS:
        own = frame[frame["split"] == split]
        snr = own["snr_measured_db"]
        spread = f"{snr.min():.1f} to {snr.max():.1f} dB" if len(own) and snr.notna().any() else "–"
        kinds = ", ".join(sorted(set(own["noise_kind"]) - {""})) or "–"
        rows.append(
            [
                split,
                f"{len(own):,}",
                f"{own['seconds'].sum() / 3600:.2f}",
                str(own["speaker"].nunique()),
                spread,
                kinds,
            ]
        )
    head = ["utterances", "hours", "speakers", "SNR", "kinds of noise"]
    st.html(look.table(head, [(row[0], row[1:]) for row in rows]))
    splits = {split: frame[frame["split"] == split] for split in _SPLITS}
    splits = {split: own for split, own in splits.items() if len(own)}
    shown = [name for name in ("snr_measured_db", "seconds", "level_dbfs") if frame[name].nunique() > 1]
    if shown:
        st.html(look.legend(splits))
    for name, column in zip(shown, st.columns(3), strict=False):
        with column:
            st.vega_lite_chart(charts.densities(splits, name, drift.NUMBERS[name]))


def _drift(sets: dict[str, pandas.DataFrame]) -> None:
    sets = {name: frame for name, frame in sets.items() if len(frame)}
    if len(sets) < 2:
        return
    st.subheader("Drift", anchor=False)
    left, right = st.columns(2)
    names = list(sets)
    reference = left.selectbox("Reference", names)
    rest = [name for name in names if name != reference]
    other = right.selectbox("Compared with it", rest, index=len(rest) - 1)
    found = drift.drifts(sets[reference], sets[other])
    rows = [
        (item.label, [item.verdict, f"{item.index:.2f}", "–" if item.p != item.p else f"{item.p:.3f}"])
        for item in found
    ]
    st.html(
        look.table(["verdict", "stability index", "p (Kolmogorov-Smirnov)"], rows).replace(
            " class='different'", ""
        )
    )
    st.caption(
        f"Stability index: below {drift.SHIFTED} alike, from {drift.DIFFERENT} on different. Small sets differ "
        "by chance: what the test cannot tell from it counts as alike."
    )


def _versions(project: Project) -> None:
    """Every version of the data that a run has seen."""
    runs, damaged = project.runs()
    common.problems(damaged, [])
    seen: dict[tuple[str, str], list] = {}
    for run in reversed(runs):
        for corpus, version in run.table("data").items():
            seen.setdefault((corpus, str(version)), []).append(run)
    if not seen:
        return
    st.subheader("Versions that runs have used", anchor=False)
    lines = []
    for (corpus, version), users in seen.items():
        made = next((run for run in users if run.verb == "prepare"), None)
        utterances = made.table("result").get("utterances") if made else None
        total = sum(utterances.values()) if isinstance(utterances, dict) else utterances
        lines.append(
            {
                "corpus": corpus,
                "version": version[:12],
                "first used": users[0].started,
                "last used": users[-1].started,
                "runs": len(users),
                "utterances": total if isinstance(total, int | float) else None,
                "here now": version == _current(project, corpus),
            }
        )
    time = st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm")
    st.dataframe(
        pandas.DataFrame(lines).sort_values("last used", ascending=False),
        hide_index=True,
        column_config={"first used": time, "last used": time},
    )


def _current(project: Project, corpus: str) -> str:
    file = paths.mixtures(project.root, corpus) / manifest.FILE
    return storage.sha256_file(file) if corpus in project.corpora() and file.is_file() else ""
