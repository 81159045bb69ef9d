"""The listening room: one utterance, every system."""

import streamlit as st

from diffse import paths
from diffse.dashboard import look, player, session
from diffse.dashboard.project import Project
from diffse.dashboard.views import common
from diffse.errors import DiffseError
from diffse.report import artifacts
from diffse.report.compare import HEAD, metric, number


def show() -> None:
    """Pick an utterance and switch between noisy, clean and every system while it plays."""
    project = session.project()
    common.heading("Listen", "Every signal plays at the same position and the same loudness.")
    corpora = project.corpora()
    if not corpora:
        common.empty(
            "Nothing to hear yet", "`diffse prepare CORPUS` or `dvc repro` makes the first recordings."
        )
        return
    left, right = st.columns([1, 3])
    corpus = left.selectbox("Corpus", corpora)
    try:
        rows = player.utterances(project.root, corpus)
        if rows.empty:
            common.empty("No test recordings", "This corpus has no utterance in its test split.")
            return
        enhanced = [name for name in _systems(project) if paths.enhanced(project.root, name, corpus).is_dir()]
        systems = right.multiselect("Systems", enhanced, default=enhanced[:4], max_selections=8)
        scores = _scores(project, [paths.UNPROCESSED, *systems], corpus)
        name = _utterance(rows, scores, systems)
        _play(project, corpus, rows.loc[name], systems, scores)
    except (DiffseError, KeyError) as error:
        st.error(look.plain(error))


def _systems(project: Project) -> list[str]:
    from diffse.dashboard.project import _folders

    return _folders(project.root / "enhanced")


def _scores(project: Project, systems: list[str], corpus: str) -> dict[str, artifacts.Scores]:
    found = {}
    for system in systems:
        try:
            scores = artifacts.read_scores(project.root, system, corpus)
        except (DiffseError, KeyError, TypeError, ValueError):
            continue  # scores are an extra here; the page of comparisons says what is wrong with them
        if scores is not None and not scores.table.empty:
            found[system] = scores
    return found


def _utterance(rows, scores: dict[str, artifacts.Scores], systems: list[str]) -> str:
    """The chosen id. Utterances can be ordered by what the first system does to them."""
    order = ["name"]
    judged = next((name for name in systems if name in scores and "si_sdr" in scores[name].table), "")
    before = scores.get(paths.UNPROCESSED)
    if judged and before is not None and "si_sdr" in before.table:
        order += [f"worst of {judged}", f"best of {judged}"]
    left, right = st.columns([1, 3])
    how = left.selectbox("Order", order)
    names = list(rows.index)
    if how != "name":
        change = (scores[judged].table["si_sdr"] - before.table["si_sdr"]).dropna().sort_values()
        ranked = [name for name in change.index if name in rows.index]
        names = ranked if how.startswith("worst") else ranked[::-1]
    labels = {name: f"{name} · {_facts(rows.loc[name])}" for name in names}
    return right.selectbox("Utterance", names, format_func=labels.get, key=f"utterance {how}")


def _facts(row) -> str:
    snr = row["snr_measured_db"]
    parts = [row["speaker"], row["noise_kind"], row.get("room", "")]
    return ", ".join([*(str(part) for part in parts if part), f"{number(float(snr), 1)} dB"])


def _play(project: Project, corpus: str, row, systems: list[str], scores: dict[str, artifacts.Scores]) -> None:
    notes = {system: _note(found, str(row["id"])) for system, found in scores.items()}
    signals = player.signals_of(project.root, corpus, row, systems, notes)
    theme = common.theme()
    seconds = float(row["n_samples"]) / float(row["rate"])
    cut = f"The first {player.MAX_SECONDS:g} of {seconds:.1f} s. " if seconds > player.MAX_SECONDS else ""
    text = f"{cut}Spectrograms share one scale, 0 to {float(row['rate']) / 2000:g} kHz."
    page, height = player.page(signals, int(row["rate"]), theme, text)
    st.iframe(player.sandboxed(page, height), height=height)


def _note(scores: artifacts.Scores, name: str) -> str:
    if name not in scores.table.index:
        return ""
    row = scores.table.loc[name]
    return ", ".join(
        f"{metric(key).label} {number(row[key], metric(key).digits)}" for key in HEAD[:2] if key in row
    )
