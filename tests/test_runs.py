"""Run records as they are written: while a run goes, wherever they are kept, without secrets."""

import datetime
import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import small_project

from diffse import cli, errors, progress, run_log, run_places, run_records, runs


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Beats that a test can wait for, and no runner around the tests."""
    monkeypatch.setattr(runs, "BEAT_SECONDS", 0.05)
    for name in ("DIFFSE_RUNS", "DIFFSE_RUNNER", "DIFFSE_PIPELINE_RUN", "DVC_STAGE", "DVC_EXP_NAME", "RANK"):
        monkeypatch.delenv(name, raising=False)


def run_once(root: Path, action=lambda record: None, verb: str = "prepare") -> None:
    with runs.recorded(root, verb, ("demo",), [verb, "demo"]) as record:
        action(record)


def until(condition, what: str):
    """Wait for what another thread does; what it returned."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"never happened: {what}")


def the_run(root: Path) -> run_records.Run:
    (run,), damaged = run_records.Records(run_places.location(root)).read()
    assert not damaged
    return run


def test_a_record_is_there_while_the_run_goes_on(tmp_path):
    def look(record):
        run = the_run(tmp_path)
        assert (run.state, run.title, run.runner, run.pipeline) == ("running", "prepare demo", "cli", "")
        assert run.record["pid"] == os.getpid()
        assert run.progress is None
        progress.begin("mix", 40, "file", 10)
        progress.report(20)
        record["settings"] = {"prepare.demo": {"seed": 3}}
        run = until(lambda: (found := the_run(tmp_path)).progress and found, "a refreshed record")
        assert (run.progress.done, run.progress.total, run.progress.share) == (20, 40, 0.5)
        assert run.progress.eta_seconds >= 0
        assert run.table("settings") == {"prepare.demo": {"seed": 3}}
        first = run.heartbeat
        until(lambda: the_run(tmp_path).heartbeat > first, "another heartbeat")

    run_once(tmp_path, look)
    run = the_run(tmp_path)
    assert run.state == "ok"
    assert run.seconds > 0


def test_nothing_writes_to_the_record_after_the_end(tmp_path):
    run_once(tmp_path)
    (file,) = (tmp_path / "runs").glob("*.json")
    before = file.stat().st_mtime_ns
    time.sleep(0.2)
    assert file.stat().st_mtime_ns == before


def test_a_slow_place_does_not_hold_the_run_up(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_START_SECONDS", 0.01)
    write, slow, began = run_places.write, {"is": True}, []

    def slowly(*arguments):
        while slow["is"]:
            time.sleep(0.01)
        write(*arguments)

    monkeypatch.setattr(run_places, "write", slowly)

    def action(record):
        began.append(not list((tmp_path / "runs").glob("*")))
        slow["is"] = False

    run_once(tmp_path, action)
    assert began == [True]
    assert the_run(tmp_path).state == "ok"


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (errors.DiffseError("a.wav: empty; remove it"), "failed", "a.wav: empty; remove it"),
        (KeyboardInterrupt(), "interrupted", ""),
        (ZeroDivisionError("0 / 0"), "failed", "raise error\nZeroDivisionError: 0 / 0"),
    ],
)
def test_the_log_ends_with_the_reason(tmp_path, error, state, said):
    def action(record):
        raise error

    with pytest.raises(type(error)):
        run_once(tmp_path, action)
    records = run_records.Records(tmp_path / "runs")
    ((run,), _) = records.read()
    assert run.state == state
    assert said in (records.log(run.id) or "")


def test_the_log_keeps_what_was_said_and_what_was_logged(tmp_path, capsys):
    def action(record):
        print("to standard output")
        print("10 %\r20 %\r30 %", file=sys.stderr)
        logging.getLogger("diffse.somewhere").info("for the log alone")
        logging.getLogger("diffse.somewhere").warning("for the user too")

    before = sys.stdout, sys.stderr, logging.getLogger("diffse").handlers[:]
    run_once(tmp_path, action)
    assert before == (sys.stdout, sys.stderr, logging.getLogger("diffse").handlers)
    records = run_records.Records(tmp_path / "runs")
    ((run,), _) = records.read()
    said = ["to standard output", "30 %", "for the log alone", "for the user too"]
    assert records.log(run.id).splitlines() == said
    out, err = capsys.readouterr()
    assert (out, err) == ("to standard output\n", "10 %\r20 %\r30 %\nfor the user too\n")


def test_a_log_stays_small():
    tail = run_log.Tail()
    for number in range(5000):
        tail.add(f"{number} " + "x" * 3000 + "\n")
    tail.add("no end " * 100_000)
    lines = tail.text().splitlines()
    assert len(lines) == run_log.LINES + 1
    assert lines[-2].startswith("4999 ")
    assert max(map(len, lines)) <= run_log.COLUMNS + 1


SECRETS = [
    ("s3://key:hunter2secret@host/bucket", "s3://***@host/bucket"),
    ("Authorization: Bearer hunter2secret", "Authorization: Bearer ***"),
    ("https://h/x?X-Amz-Signature=hunter2secret&b=1", "https://h/x?X-Amz-Signature=***&b=1"),
    ("password=hunter2secret.", "password=***"),
    ("got hunter2secret from the environment", "got *** from the environment"),
]


@pytest.mark.parametrize(("text", "kept"), SECRETS)
def test_no_secret_is_kept(tmp_path, monkeypatch, text, kept):
    monkeypatch.setenv("SOME_SECRET_KEY", "hunter2secret")

    def action(record):
        print(text)
        record["settings"] = {"x": [{"y": text}]}

    run_once(tmp_path, action)
    for file in (tmp_path / "runs").iterdir():
        assert "hunter2" not in file.read_text()
    assert the_run(tmp_path).table("settings") == {"x": [{"y": kept}]}


def test_the_runner_and_its_pipeline_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFSE_RUNNER", "kubeflow")
    monkeypatch.setenv("DIFFSE_PIPELINE_RUN", "run-7")
    run_once(tmp_path)
    run = the_run(tmp_path)
    assert (run.runner, run.pipeline) == ("kubeflow", "run-7")
    assert run_records.pipelines([run]) == {"run-7": [run]}


def test_a_stage_of_dvc_names_the_dvc_that_runs_it(tmp_path):
    """A program called `dvc` that starts two stages: both records name it, and the same one."""
    code = "import sys; from pathlib import Path; from diffse import runs\n"
    code += f"with runs.recorded(Path({str(tmp_path)!r}), sys.argv[1], (), []): pass"
    program = tmp_path / "dvc"
    program.write_text(f'#!/bin/sh\nfor verb in one two; do "{sys.executable}" -c "$CODE" $verb; done\n')
    program.chmod(0o755)
    source = str(Path(runs.__file__).parents[1])
    environment = os.environ | {"CODE": code, "DVC_STAGE": "prepare@demo", "PYTHONPATH": source}
    subprocess.run(["sh", program], env=environment, check=True)
    found, _ = run_records.Records(tmp_path / "runs").read()
    assert [run.runner for run in found] == ["dvc", "dvc"]
    ((name, grouped),) = run_records.pipelines(found).items()
    assert name.startswith(f"dvc-{datetime.datetime.now(datetime.UTC):%Y}")
    assert [run.verb for run in grouped] == ["one", "two"]


def test_records_of_an_experiment_outlive_its_copy_of_the_project(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "prepare@demo")
    monkeypatch.setenv("DVC_EXP_NAME", "brave-try")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "one"
    run_once(copy)
    assert not copy.exists()
    assert the_run(tmp_path).pipeline == "brave-try"


def test_records_may_be_kept_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFSE_RUNS", "../elsewhere")
    run_once(tmp_path / "project")
    assert len(list((tmp_path / "elsewhere").glob("*-prepare-demo.json"))) == 1
    assert not (tmp_path / "project" / "runs").exists()


def test_records_in_a_store(tmp_path, monkeypatch, store):
    monkeypatch.setenv("DIFFSE_RUNS", f"{store}/team/runs/")
    records = run_records.Records(run_places.location(tmp_path))

    def look(record):
        print("hello")
        ((run,), damaged) = records.read()
        assert (run.state, damaged) == ("running", [])
        progress.begin("mix", 4, "file")
        assert until(lambda: records.read()[0][0].progress, "a refreshed record").total == 4

    run_once(tmp_path, look)
    run_once(tmp_path, verb="cache")
    run_places.write(f"{store}/team/runs", "20260101T000000.0Z-x.json", "{")
    found, (damaged,) = records.read()
    assert [(run.verb, run.state) for run in found] == [("cache", "ok"), ("prepare", "ok")]
    assert records.log(found[1].id) == "hello\n"
    assert damaged.startswith(f"{store}/team/runs/20260101T000000.0Z-x.json: damaged (")


def test_a_store_that_refuses_is_a_warning(tmp_path, monkeypatch, store):
    monkeypatch.setenv("DIFFSE_RUNS", f"{store}-that-is-not-there/runs")
    with pytest.warns(UserWarning, match="run record s3://.* could not be written: .* there is no bucket"):
        run_once(tmp_path)


def test_no_warning_of_a_written_record(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_once(tmp_path)


def test_a_gate_puts_its_verdict_into_the_record(tmp_path, monkeypatch):
    monkeypatch.chdir(small_project.create(tmp_path / "project"))
    assert cli.main(["check", "mixtures", "near"]) == 1  # there are none
    run = the_run(Path())
    assert run.state == "failed"
    assert run.table("gate")["success"] is False
    assert run.table("gate")["rules"][0]["rule"] == "can be read"
