"""Drop in a recording and enhance it with any checkpoint of the project."""

import streamlit as st

from diffse.dashboard import look, player, session
from diffse.dashboard.entries import duration
from diffse.dashboard.jobs import MAX_SECONDS, Job
from diffse.dashboard.views import common
from diffse.errors import DiffseError


def show() -> None:
    """A recording, a checkpoint, and how both sound."""
    project = session.project()
    common.heading(
        "Enhance",
        f"Your recording is enhanced on this machine, at most {MAX_SECONDS:.0f} s of it, and not kept.",
    )
    checkpoints = project.checkpoints()
    if not checkpoints:
        common.empty("No checkpoints yet", "`diffse train SYSTEM` or `diffse import` makes one.")
        return
    name = st.selectbox("Checkpoint", list(checkpoints))
    upload = st.file_uploader("Recording", type=["wav", "flac", "ogg"])
    if st.button("Enhance", type="primary", disabled=upload is None or _busy()):
        _begin(upload, checkpoints[name])
    _outcome()


def _busy() -> bool:
    job = st.session_state.get("job")
    return job is not None and job.running


def _begin(upload, checkpoint) -> None:
    before = st.session_state.pop("job", None)
    if before is not None:
        before.close()
    try:
        st.session_state["job"] = Job(upload.name, upload.getvalue(), checkpoint)
    except DiffseError as error:
        st.error(look.plain(error))


@st.fragment(run_every="1s")
def _outcome() -> None:
    """The job as it stands; the page stays usable meanwhile."""
    import time

    job: Job | None = st.session_state.get("job")
    if job is None:
        return
    if job.running:
        st.session_state["job shown"] = None
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f":blue[:material/hourglass_top:] Enhancing, {duration(time.monotonic() - job.began)} …"
            )
            if st.button("Stop"):
                st.session_state.pop("job").close()
                st.rerun()
        return
    if st.session_state.get("job shown") != id(job):
        st.session_state["job shown"] = id(job)
        st.rerun()  # the button above may be pressed again
    if job.error:
        st.error(look.plain(job.error))
        return
    _result(job)


def _result(job: Job) -> None:
    try:
        before, after, rate = job.waves()
    except DiffseError as error:
        st.error(look.plain(error))
        return
    signals = [player.Signal("recording", before), player.Signal("enhanced", after)]
    cut = f"Cut to its first {MAX_SECONDS:.0f} s. " if job.cut else ""
    heard = (
        f"The first {player.MAX_SECONDS:g} s can be heard here; the file has all."
        if len(before) > player.MAX_SECONDS * rate
        else ""
    )
    page, height = player.page(signals, rate, common.theme(), cut + heard)
    st.iframe(player.sandboxed(page, height), height=height)
    st.download_button("Download", job.result(), f"enhanced_{job.name.rpartition('.')[0]}.wav", "audio/wav")
