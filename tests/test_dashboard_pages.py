"""Every page of the dashboard in every state of a project, run by Streamlit itself without a browser."""

import shutil
import sys

import dashboard_project
import pytest
import report_project
from dashboard_project import NASTY, PIPELINE
from streamlit.testing.v1 import AppTest

from diffse import paths
from diffse.dashboard import session
from diffse.dashboard.project import Project

PAGES = ("runs", "run", "training", "compare", "listen", "data", "enhance")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("DIFFSE_RUNS", raising=False)
    # Streamlit puts the page in its place, and worker processes of later tests would try to import that
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(project, ids of its runs); tests must not change it."""
    return dashboard_project.make(tmp_path_factory.mktemp("project"))


@pytest.fixture
def copied(made, tmp_path) -> Project:
    """The same project, free to be damaged."""
    shutil.copytree(made[0].root, tmp_path / "copy")
    return Project(tmp_path / "copy")


@pytest.fixture
def empty(tmp_path) -> Project:
    (tmp_path / "params.yaml").write_text(report_project.PARAMS)
    return Project(tmp_path)


def page(name: str, project: Project, **query: str) -> AppTest:
    """The page as a visitor gets it; nothing on it may fail."""
    session.open_project(project)
    test = AppTest.from_string(f"from diffse.dashboard.views import {name}\n{name}.show()", default_timeout=120)
    for key, value in query.items():
        test.query_params[key] = value
    return checked(test.run())


def checked(test: AppTest) -> AppTest:
    assert not test.exception, [item.message for item in test.exception]
    return test


def words(test: AppTest) -> str:
    """Everything the page says in its own elements."""
    parts = [*test.title, *test.header, *test.subheader, *test.markdown, *test.caption, *test.text, *test.code]
    parts += [*test.error, *test.warning, *test.info, *test.success]
    said = [str(part.value) for part in parts]
    said += [element.proto.body for element in test.get("html")]
    return "\n".join(said + [element.label for element in test.expander])


def plain(text: str) -> str:
    return text.replace("\\", "").replace("\u2060", "")


# ----------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_an_empty_project_says_what_to_do(empty, name):
    said = words(page(name, empty))
    assert "yet" in said or name == "run"
    if name == "run":  # the graph of what the settings select, with nothing in it that ran
        assert "What ran, what waits for what" in plain(said)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_a_full_project_works(made, name):
    test = page(name, made[0])
    assert len(test.title) == 1
    assert len(words(test)) > 50


@pytest.mark.parametrize("name", PAGES)
def test_a_page_survives_damaged_files(copied, name):
    root = copied.root
    damaged = [paths.runs(root) / "20261125T070000.000000Z-broken.json"]
    damaged += [paths.results(root, report_project.GOOD, "demo") / "summary.json"]
    damaged += [paths.results(root, report_project.BAD, "demo") / "per_file.csv"]
    damaged += [paths.model(root, report_project.BAD) / "history.csv", root / "params.yaml"]
    damaged += [paths.mixtures(root, "pairs") / "manifest.parquet"]
    damaged += [paths.enhanced(root, report_project.BAD, "demo") / "manifest.parquet"]
    for file in damaged:
        file.write_bytes(b'\xff{"x": [\x00')
    said = plain(words(page(name, copied)))
    expected = {
        "runs": "3 run records are damaged",
        "run": "3 run records are damaged",
        "training": "history.csv",
        "compare": "summary.json",
        "data": "pairs/mixtures/manifest.parquet: damaged",
    }
    assert expected.get(name, "") in said


def test_500_runs_are_listed(empty):
    dashboard_project.make_many(empty.root)
    test = page("runs", empty)
    assert len(test.dataframe[0].value) == 500
    assert "<b>500</b><span>all</span>" in words(test)
    test.segmented_control(key="grouping").set_value("pipelines").run()
    assert len(checked(test).dataframe[0].value) == 50


# ------------------------------------------------------------------------------------------------ runs


def test_the_list_tells_running_failed_and_lost_runs(made):
    frame = page("runs", made[0]).dataframe[0].value
    assert len(frame) == 11
    states = [cell[0] for cell in frame["state"]]
    assert {name: states.count(name) for name in set(states)} == {
        "running": 1, "failed": 1, "lost": 1, "done": 7, "stopped": 1,
    }  # fmt: skip
    running = frame[frame["started"] == frame["started"].max()].iloc[0]
    assert running["run"] == f"train {report_project.BAD}"
    assert running["progress"] == pytest.approx(100 * 420 / 900)
    assert running["detail"] == "420 of 900 step, 8 min left"
    assert "lost: no sign of life" in frame[[state == "lost" for state in states]].iloc[0]["detail"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("check", 2), ("lr=0.002", 1), ("SNR: FAIL", 1), ("bridge train", 2), ("nothing of that kind", 0)],
)
def test_search_looks_at_names_settings_and_errors(made, text, found):
    test = page("runs", made[0])
    test.text_input(key="search").set_value(text).run()
    checked(test)
    assert sum(len(table.value) for table in test.dataframe) == found
    assert found or "Nothing matches" in words(test)


def test_states_and_kinds_filter(made):
    test = page("runs", made[0])
    test.button_group(key="states").set_value(["failed", "lost"]).run()
    assert len(checked(test).dataframe[0].value) == 2
    test.button_group(key="kinds").set_value(["command line"]).run()
    assert not checked(test).dataframe


def test_damaged_records_are_named(made):
    said = words(page("runs", made[0]))
    assert "2 run records are damaged" in said
    assert "20261125T000000.000000Z-cut.json: damaged (" in said


def test_the_graph_shows_a_pipeline_run(made):
    test = page("run", made[0], pipeline=PIPELINE)
    assert len(test.dataframe[0].value) == 9
    (frame,) = test.get("iframe")
    assert "check mixtures pairs: failed" in frame.proto.srcdoc
    assert "<b>failed</b><span>state</span>" in words(test)


def test_a_run_shows_its_log_settings_and_verdict(made):
    project, ids = made
    said = words(page("run", project, run=ids["train"]))
    assert NASTY in said  # in the log, as it is: code is not interpreted
    assert "train.bridge_small.network.nf</th><td>32<" in said
    failed = words(page("run", project, run=ids["failed"]))
    assert "1 fail (found 0.7, allowed 0.5)" in plain(failed)
    assert "To do: Prepare the corpus again." in plain(failed)
    assert "The gate has passed: 1 rules hold." in words(page("run", project, run=ids["gate"]))


@pytest.mark.parametrize("name", ["none", "../../etc/passwd", ""])
def test_a_run_that_is_not_there(made, name):
    said = words(page("run", made[0], run=name, pipeline=name))
    assert "There is no" in said or not name


def test_texts_from_outside_stay_text(made):
    project, ids = made
    for name, query in (
        ("runs", {}),
        ("run", {"run": ids["failed"]}),
        ("compare", {"runs": f"run:{ids['running']}"}),
    ):
        test = page(name, project, **query)
        assert all("<img" not in element.proto.body for element in test.get("html"))
        for item in [*test.markdown, *test.error, *test.warning, *test.caption]:
            assert "<img" not in item.value.replace("\\<", "")
            assert "http://" not in item.value


# ----------------------------------------------------------------------------------------------- others


def test_runs_are_compared_by_what_differs(made):
    project, ids = made
    test = page("compare", project, runs=f"run:{ids['train']},run:{ids['running']},run:unknown")
    said = words(test)
    assert "train.sgmse_small.lr</th><td>–</td><td>0.002</td>" in said
    assert "<tr class='different'><th scope='row'>kind" in said
    assert "<tr><th scope='row'>data" in said


def test_systems_are_compared_file_by_file(made):
    said = words(page("compare", made[0]))
    good, bad = report_project.GOOD, report_project.BAD
    row = "<th scope='row'>{}</th><td>{}</td><td>{}</td><td>0.008</td><td>{}</td><td>9</td>"
    assert row.format(good, "11.53", "+7.97", "higher") in said
    assert row.format(bad, "−1.06", "−4.62", "lower") in said


def test_training_curves_and_progress(made):
    test = page("training", made[0])
    assert test.multiselect(key="training systems").value == [report_project.BAD]  # the one that runs
    assert len(test.get("vega_lite_chart")) == 4
    test.multiselect(key="training systems").set_value([]).run()
    assert not checked(test).get("vega_lite_chart")


def test_utterances_can_be_ordered_by_improvement(made):
    test = page("listen", made[0])
    names = [box.label for box in test.selectbox]
    assert names == ["Corpus", "Order", "Utterance"]
    assert len(test.selectbox[2].options) == report_project.FILES
    assert any(report_project.NASTY in option for option in test.selectbox[2].options)
    test.selectbox[1].set_value(f"worst of {report_project.GOOD}").run()
    (frame,) = checked(test).get("iframe")
    assert "sandbox=" in frame.proto.srcdoc


def test_data_pages_tell_versions_and_drift(made):
    test = page("data", made[0])
    said = words(test)
    assert "stability index" in said
    versions = test.dataframe[0].value
    assert list(versions["corpus"]) == ["demo"]
    assert list(versions["runs"]) == [8]
    assert list(versions["here now"]) == [True]


def test_a_cluster_that_is_not_there_is_said_and_the_rest_is_shown(made):
    project = Project(made[0].root, "http://127.0.0.1:9")
    project.elsewhere()
    project._kubeflow._busy and project._kubeflow._busy.join(30)
    test = page("runs", project)
    assert "Kubeflow: http://127.0.0.1:9: cannot be reached" in plain(words(test))
    assert len(test.dataframe[0].value) == 11
