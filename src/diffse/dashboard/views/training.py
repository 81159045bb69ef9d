"""Curves of trainings, live while they run."""

import math

import pandas
import streamlit as st

from diffse.dashboard import charts, look, session
from diffse.dashboard.entries import progress_text
from diffse.dashboard.views import common
from diffse.errors import DiffseError
from diffse.report import artifacts


def show() -> None:
    """Loss and validation scores of the chosen systems."""
    project = session.project()
    common.heading("Training", "Loss and validation scores, refreshed while a training runs.")
    systems = project.systems()
    if not systems:
        common.empty("No trainings yet", "`diffse train SYSTEM` or `dvc repro` writes its curves to models/.")
        return
    running = [run.names[0] for run in project.runs()[0] if run.verb == "train" and run.state == "running"]
    first = [name for name in running if name in systems] or systems[:3]
    chosen = st.multiselect("Systems", systems, default=first, max_selections=6, key="training systems")
    smooth = st.toggle("Smooth the loss", value=True)
    if chosen:
        curves(chosen, smooth)


@st.fragment(run_every="5s")
def curves(systems: list[str], smooth: bool) -> None:
    """Charts of some systems, and how far those are that are being trained."""
    project = session.project()
    for run in project.runs()[0]:
        if run.verb == "train" and run.state == "running" and run.names[0] in systems and run.progress:
            st.progress(run.progress.share or 0.0, look.plain(f"{run.names[0]}: {progress_text(run)}"))
    models = []
    for system in systems:
        try:
            models.append(artifacts.read_model(project.root, system))
        except DiffseError as error:
            st.warning(look.plain(error))
    names = [model.system for model in models]
    losses = {model.system: model.history for model in models if "loss" in model.history}
    if models:
        st.html(look.legend(names))
    if losses:
        st.subheader("Loss", anchor=False)
        st.vega_lite_chart(
            charts.curves(losses, "loss", names, smooth=smooth, log=charts.positive(losses, "loss"))
        )
    else:
        st.caption("No loss has been written yet.")
    _validation({model.system: model.validation for model in models if len(model.validation)}, names)


def _validation(tables: dict[str, pandas.DataFrame], names: list[str]) -> None:
    scores = [
        name for name in dict.fromkeys(name for table in tables.values() for name in table) if name != "step"
    ]
    scores = [name for name in scores if any(_has_numbers(table, name) for table in tables.values())]
    if not scores:
        return
    st.subheader("Validation", anchor=False)
    for place, column in zip(scores, [*st.columns(3)] * math.ceil(len(scores) / 3), strict=False):
        found = {system: table for system, table in tables.items() if place in table}
        with column:
            st.vega_lite_chart(charts.curves(found, place, names, points=True, height=240))


def _has_numbers(table: pandas.DataFrame, name: str) -> bool:
    return name in table and bool(table[name].notna().any())
