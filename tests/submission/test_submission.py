"""Starting runs on Kubeflow Pipelines: versions, and runs that start once whatever goes wrong."""

import argparse
import datetime
import email.utils
import json
import subprocess
import sys

import pytest
import small_project
import submitting
from http_stand_in import Answer, Fault
from kfp_server import Server
from submitting import BUSY, FULL, PARAMS, submit

from diffse.errors import DiffseError
from pipelines import api, command_line, full, package, submission


def versions(server: Server) -> list[str]:
    return [one["name"] for one in server.versions.values()]


def impatient(monkeypatch, answer: float) -> None:
    old = submission.PATIENCE
    monkeypatch.setattr(submission, "PATIENCE", api.Patience(answer=answer, settle=old.settle, sleep=old.sleep))


# ---------------------------------------------------------------------------------------- what is sent


def test_a_run_is_started_once_with_the_compiled_pipeline(server, folder, built, capsys):
    assert submit(server, folder, built, "--experiment", "night") == 0
    (run,) = server.runs.values()
    (version,) = server.versions.values()
    assert version["pipeline_spec"]["pipeline_spec"] == built.package.documents[0]
    assert server.files == [built.package.path.read_bytes()]
    assert version["name"] == built.package.version
    assert built.package.sha256 in version["description"]
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert server.experiments[run["experiment_id"]]["display_name"] == "night"
    out = capsys.readouterr().out
    assert f"{server.url}/#/runs/details/{run['run_id']}" in out
    assert f"version {version['name']}: uploaded" in out
    assert not list((folder / "runs/.submissions").glob("*.json"))


def test_an_unchanged_pipeline_uploads_nothing(server, folder, built, capsys):
    for name in ("aaa", "bbb", "ccc"):  # so that lists have several pages
        server._new(server.pipelines, "pipeline_id", {"name": name, "display_name": name, "namespace": ""})
    submit(server, folder, built)
    submit(server, folder, built)
    assert len(server.files) == 1
    assert len(server.runs) == 2  # a second start is a second run
    assert "is there already" in capsys.readouterr().out


def test_a_changed_setting_is_a_new_version_of_the_same_pipeline(server, folder, tmp_path):
    """Through the front end, as its user calls it."""
    options = ["--submit", "--host", server.url, "--params", str(folder / "params.yaml")]
    assert command_line.main(full.PIPELINE, options) == 0
    changed = json.loads(json.dumps(PARAMS))
    changed["train"]["bridge"]["steps"] = 11
    small_project.write_params(folder, changed)
    assert command_line.main(full.PIPELINE, options) == 0
    assert len(server.pipelines) == 1
    assert len(set(versions(server))) == len(server.versions) == 2
    used = [run["pipeline_version_reference"]["pipeline_version_id"] for run in server.runs.values()]
    assert used == list(server.versions)


def test_the_script_submits(server, folder):
    done = subprocess.run(
        [sys.executable, FULL, "--submit", "--host", server.url, "--params", folder / "params.yaml"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(server.runs) == 1


def test_parameters_reach_the_run_with_their_types(server, folder, built):
    submit(server, folder, built, "--parameter", "workspace=/data/7")
    (run,) = server.runs.values()
    assert run["runtime_config"]["parameters"] == {"workspace": "/data/7"}


@pytest.mark.parametrize(
    ("given", "message"),
    [("where=/data", "'where=/data' names no parameter"), ("workspace", "'workspace' names no parameter")],
)
def test_wrong_parameters_upload_nothing(server, folder, built, given, message, capsys):
    with pytest.raises(DiffseError, match="nothing was uploaded"):
        submit(server, folder, built, "--parameter", given)
    assert message in capsys.readouterr().err
    assert not server.requests("POST")


def test_types_of_parameters():
    kinds = {
        "count": "NUMBER_INTEGER",
        "rate": "NUMBER_DOUBLE",
        "on": "BOOLEAN",
        "names": "LIST",
        "all": "STRUCT",
    }
    inputs = {name: {"parameterType": kind} for name, kind in kinds.items()}
    fake = argparse.Namespace(documents=[{"root": {"inputDefinitions": {"parameters": inputs}}}])
    good = ["count=3", "rate=0.5", "on=true", 'names=["a"]', 'all={"a": 1}']
    values = {"count": 3, "rate": 0.5, "on": True, "names": ["a"], "all": {"a": 1}}
    assert package.parameters(fake, good) == values
    with pytest.raises(DiffseError) as error:
        package.parameters(fake, ["count=1.5", "rate=true", "on=1", "names=a"])
    for text in ("count: is '1.5'", "rate: is 'true'", "on: is '1'", "names: is 'a'", "'all' is missing"):
        assert text in str(error.value)


# ------------------------------------------------------------------------------------ what goes wrong

REQUESTS = [
    *(("GET", path) for path in ("/experiments$", "/pipelines$", "/versions$", "/runs$")),
    *(("POST", path) for path in ("/experiments$", "/pipelines$", "upload_version$", "/runs$")),
]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
@pytest.mark.parametrize("answer", BUSY, ids=["429", "503", "500"])
def test_a_busy_server_is_asked_again(server, folder, built, method, path, answer, waits):
    server.faults = [Fault("answer", method, path, times=2, answer=answer)]
    assert submit(server, folder, built, "--skip", "rights") == 0  # the checks have little patience, on purpose
    assert len(server.runs) == len(server.files) == len(server.experiments) == len(server.pipelines) == 1
    if answer.status == 429:
        assert waits.count(7.0) == 2  # as the server asks, not the 1 and 2 seconds of our own


@pytest.mark.parametrize("path", ["/experiments$", "/pipelines$", "upload_version$", "/runs$"])
@pytest.mark.parametrize("kind", ["lost before", "lost after"])
def test_a_lost_connection_makes_nothing_twice(server, folder, built, kind, path, capsys):
    server.faults = [Fault(kind, "POST", path)]
    assert submit(server, folder, built) == 0
    assert len(server.runs) == len(server.files) == len(server.experiments) == len(server.pipelines) == 1
    sent = len(server.requests("POST", path))
    assert sent == (2 if kind == "lost before" else 1)  # what was done is found, not done again
    assert "the connection was lost; trying again" in capsys.readouterr().err


def test_a_lost_connection_between_upload_and_run(server, folder, built):
    server.faults = [Fault("lost before", "GET", "/runs$", times=2)]
    assert submit(server, folder, built, "--skip", "rights") == 0
    assert len(server.files) == len(server.runs) == 1


def test_no_answer_in_time(server, folder, built, monkeypatch):
    impatient(monkeypatch, 2.0)
    server.faults = [Fault("silent", "POST", "/runs$")]
    assert submit(server, folder, built) == 0
    assert len(server.runs) == 1


def test_a_run_that_is_made_long_after_the_client_gave_up_is_ended(server, folder, built, monkeypatch, capsys):
    """The first request is at work until after the second one: the younger run goes."""
    impatient(monkeypatch, 2.0)
    server.faults = [Fault("late", "POST", "/runs$", after=5)]
    assert submit(server, folder, built) == 0
    states = [run["state"] for run in server.runs.values()]
    assert states == ["PENDING", "CANCELED"]
    kept, ended = server.runs
    assert server.terminated == [ended]
    out = capsys.readouterr().out
    assert f"run {ended} was a second one" in out
    assert f"run {kept}: {server.url}" in out


def test_a_start_that_was_cut_off_is_found_by_the_next_one(server, folder, built, capsys):
    """Killed after the request for the run was sent, and before its answer came."""
    args = submitting.arguments("--submit", server.url, folder)
    server.faults = [Fault("lost after", "POST", "/runs$")]

    class Killed(BaseException):
        pass

    def die(_: float) -> None:
        raise Killed

    patience = api.Patience(sleep=die)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submission, "PATIENCE", patience)
        with pytest.raises(Killed):
            submission.submit(args, lambda _: built)
    assert len(server.runs) == 1
    assert submit(server, folder, built) == 0
    assert len(server.runs) == 1
    (run,) = server.runs.values()
    out = capsys.readouterr().out
    assert "had been started before" in out
    assert run["run_id"] in out
    assert submit(server, folder, built) == 0  # and then a start is a new one again
    assert len(server.runs) == 2


def test_an_id_of_the_user_starts_once(server, folder, built, tmp_path, capsys):
    """A continuous integration that repeats a job, each time in a fresh folder."""
    for number in range(2):
        fresh = tmp_path / str(number)
        fresh.mkdir()
        (fresh / "params.yaml").write_bytes((folder / "params.yaml").read_bytes())
        assert submit(server, fresh, built, "--submission-id", "job-17") == 0
    assert len(server.runs) == 1
    assert "had been started before: diffse job-17" in capsys.readouterr().out


def test_an_id_of_the_user_is_not_given_to_another_version(server, folder, built):
    submit(server, folder, built, "--submission-id", "job-17")
    (run,) = server.runs.values()
    run["pipeline_version_reference"] = run["pipeline_version_reference"] | {"pipeline_version_id": "other"}
    with pytest.raises(DiffseError, match=r"job-17 is that of run .* of another version"):
        submit(server, folder, built, "--submission-id", "job-17")


def test_two_at_the_same_time(server, folder, built):
    """Another client makes the same between our look and our request: 409, and theirs is taken."""
    submit(server, folder, built)
    theirs = dict(server.pipelines), dict(server.versions), dict(server.experiments)
    server.pipelines, server.versions, server.experiments = {}, {}, {}
    handle = server.handle

    def overtaken(request):
        for path, name, table in zip(
            ("/pipelines$", "upload_version$", "/experiments$"),
            ("pipelines", "versions", "experiments"), theirs, strict=True,
        ):  # fmt: skip
            if request in server.requests("POST", path):
                setattr(server, name, table)
        return handle(request)

    server.handle = overtaken
    assert submit(server, folder, built) == 0
    assert [len(table) for table in theirs] == [1, 1, 1]
    assert len(server.runs) == 2


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "answers 401 .*who you are is not accepted"),
        (403, "answers 403 .*no rights in"),
        (404, "answers 404"),
        (409, "made by another client at the same time; gave up"),
        (503, "answers 503 .*gave up after 7 attempts"),
    ],
)
def test_an_error_that_stays_is_one_line(server, folder, built, status, message):
    answer = Answer(status, {"message": "as\nit is"})
    server.faults = [Fault("answer", "POST", "/runs$", times=99, answer=answer)]
    with pytest.raises(DiffseError, match=message) as error:
        submit(server, folder, built)
    assert "\n" not in str(error.value)
    assert not server.runs
    assert len(server.requests("POST", "/runs$")) == (1 if status < 409 else 7)
    server.faults = []
    assert submit(server, folder, built) == 0  # the cause is mended
    assert len(server.runs) == len(server.files) == 1


def test_a_date_in_retry_after():
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=2)
    assert 100 < api._seconds(email.utils.format_datetime(then)) <= 120
    assert api._seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert api._seconds("soon") == 0


def test_options_that_do_not_go_together(capsys):
    cases = {
        ("--submit",): "--submit needs --host",
        ("--check",): "--check needs --host",
        ("--status", "r"): "--status needs --host",
        ("--compile", "x.yaml", "--wait"): "--wait goes with --submit or --status",
        ("--submit", "--host", "http://h", "--wait", "--recurring", "@daily"): "--recurring goes with --submit",
        ("--submit", "--host", "http://h", "--submission-id", "a b"): "--submission-id: letters",
    }
    for options, message in cases.items():
        with pytest.raises(SystemExit) as end:
            command_line.main(full.PIPELINE, list(options))
        assert end.value.code == 2
        assert message in capsys.readouterr().err
