"""The pages and the way between them. Streamlit runs this file anew for every visit and every click."""

import streamlit as st

from diffse.dashboard import look
from diffse.dashboard.views import common, compare, data, enhance, listen, run, runs, training

PAGES = {
    "runs": st.Page(runs.show, title="Runs", icon=":material/list:", url_path="runs", default=True),
    "run": st.Page(run.show, title="Pipeline", icon=":material/account_tree:", url_path="run"),
    "training": st.Page(training.show, title="Training", icon=":material/show_chart:", url_path="training"),
    "compare": st.Page(compare.show, title="Compare", icon=":material/compare_arrows:", url_path="compare"),
    "listen": st.Page(listen.show, title="Listen", icon=":material/headphones:", url_path="listen"),
    "data": st.Page(data.show, title="Data", icon=":material/database:", url_path="data"),
    "enhance": st.Page(enhance.show, title="Enhance", icon=":material/graphic_eq:", url_path="enhance"),
}

st.set_page_config(page_title="diffse", page_icon=look.ICON, layout="wide")
st.session_state["pages"] = PAGES
st.html(look.style(common.theme()))
st.navigation(list(PAGES.values()), position="top").run()
