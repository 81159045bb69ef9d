"""Following a run: `--wait` and `--status`."""

import pytest
from http_stand_in import Answer, Fault
from kfp_server import Server
from submitting import BUSY, submit

from diffse.errors import DiffseError
from pipelines import command_line, full


def play(server: Server, *scenes: dict) -> None:
    """Let the run change at each look: states of steps by name, and of the run by ''."""
    scenes, look = list(scenes), server.handle

    def handle(request):
        if request.method == "GET" and request.path.rpartition("/")[2] in server.runs:
            run = server.runs[request.path.rpartition("/")[2]]
            scene = scenes.pop(0) if len(scenes) > 1 else scenes[0]
            run["state"] = scene.get("", "RUNNING")
            run["run_details"] = {"task_details": [task(*item) for item in scene.items() if item[0]]}
        return look(request)

    server.handle = handle


def task(name: str, state: str) -> dict:
    times = {"start_time": "2026-01-01T00:00:00+00:00", "end_time": "2026-01-01T00:01:05+00:00"}
    error = (
        {"error": {"code": 1, "message": "exit\ncode 1"}} if state == "FAILED" and "driver" not in name else {}
    )
    pods = {"child_tasks": [{"pod_name": f"diffse-{name}-1"}]}
    return {"task_id": name, "display_name": name, "state": state} | times | error | pods


def test_waiting_for_a_run_that_succeeds(server, folder, built, waits, capsys):
    first = {"root-driver": "SUCCEEDED", "prepare": "RUNNING", "executor": "RUNNING"}
    play(server, first, first, {"prepare": "SUCCEEDED", "": "SUCCEEDED"})
    assert submit(server, folder, built, "--wait") == 0
    out = capsys.readouterr().out
    assert out.count("running: prepare near") == 1
    assert "succeeded: prepare near" in out
    assert "driver" not in out
    assert waits == [15.0, 15.0]


def test_waiting_names_the_steps_that_failed(server, folder, built, capsys):
    play(server, {"prepare": "SUCCEEDED", "check": "FAILED", "check-driver": "SUCCEEDED", "": "FAILED"})
    assert submit(server, folder, built, "--wait") == 1
    err = capsys.readouterr().err
    assert "failed: check mixtures near (exit code 1, pod diffse-check-1)" in err
    assert "#/runs/details/" in err


def test_waiting_names_a_driver_where_nothing_else_failed(server, folder, built, capsys):
    play(server, {"prepare-driver": "FAILED", "": "FAILED"})
    assert submit(server, folder, built, "--wait") == 1
    assert "failed: prepare-driver" in capsys.readouterr().err


def test_waiting_outlasts_a_server_that_is_away(server, folder, built):
    play(server, {"": "RUNNING"}, {"": "SUCCEEDED"})
    server.faults = [Fault("answer", "GET", "/runs/run-", times=30, answer=BUSY[1])]
    assert submit(server, folder, built, "--wait") == 0


def test_a_login_that_ends_while_waiting_leaves_the_run(server, folder, built, capsys):
    server.faults = [Fault("answer", "GET", "/runs/run-", answer=Answer(401))]
    with pytest.raises(DiffseError, match="who you are is not accepted"):
        submit(server, folder, built, "--wait")
    (run,) = server.runs
    assert f"the run goes on; look at it with --status {run}" in capsys.readouterr().err


def test_status(server, folder, built, capsys):
    submit(server, folder, built)
    (run,) = server.runs
    play(server, {"prepare": "SUCCEEDED", "check": "RUNNING"}, {"check": "FAILED", "": "FAILED"})
    options = ["--status", run, "--host", server.url]
    assert command_line.main(full.PIPELINE, options) == 0
    out = capsys.readouterr().out
    assert "succeeded  prepare near after 0:01:05" in out
    assert "running    check mixtures near" in out
    assert command_line.main(full.PIPELINE, options) == 1
    assert "failed: check mixtures near" in capsys.readouterr().err
    assert command_line.main(full.PIPELINE, ["--status", "nothing", "--host", server.url]) == 2
    assert "answers 404 (nothing not found)" in capsys.readouterr().err


def test_a_run_that_was_started_before_is_followed(server, folder, built, capsys, waits):
    submit(server, folder, built)
    (run,) = server.runs
    capsys.readouterr()
    play(server, {"prepare": "RUNNING"}, {"prepare": "SUCCEEDED"}, {"prepare": "SUCCEEDED", "": "SUCCEEDED"})
    options = ["--status", run, "--host", server.url]
    assert command_line.main(full.PIPELINE, [*options, "--wait"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["running: prepare near", "succeeded: prepare near"]
    assert said[-1].endswith(": succeeded")
    assert command_line.main(full.PIPELINE, options) == 0  # and one look at it says so once
    assert capsys.readouterr().out.count(": succeeded") == 1
