"""Run records as they are read: whatever state they are in, and of runs that nobody ended."""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffse import run_places, run_process, run_records, runs

OLD = {
    "verb": "train", "names": ["bridge_demo.demo"], "arguments": ["train", "bridge_demo.demo"],
    "started": "2026-03-01T10:00:00+00:00", "state": "ok", "error": None, "seconds": 12.5,
    "code": {"package": "0.1.0", "commit": None, "dirty": None}, "host": {"python": "3.11", "cores": 2},
}  # fmt: skip


def the_run(root: Path) -> run_records.Run:
    (run,), damaged = run_records.Records(root / "runs").read()
    assert not damaged
    return run


def keep(folder: Path, name: str, record: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(record if isinstance(record, str) else json.dumps(record))


def test_records_written_at_the_end_only_are_read(tmp_path):
    keep(tmp_path, "20260301T100000.000000Z-train-bridge_demo.demo", OLD)
    ((run,), damaged) = run_records.Records(tmp_path).read()
    assert not damaged
    assert (run.id, run.state, run.seconds) == ("20260301T100000.000000Z-train-bridge_demo.demo", "ok", 12.5)
    assert (run.runner, run.pipeline, run.progress, run.heartbeat) == ("cli", "", None, None)


DAMAGED = {
    "cut": '{"verb": "train", "na',
    "empty": "",
    "list": [],
    "no verb": OLD | {"verb": None},
    "names": OLD | {"names": "demo"},
    "time": OLD | {"started": "yesterday"},
    "state": OLD | {"state": "fine"},
    "deep": "[" * 100_000,
    "not text": None,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_record_costs_one_line_and_no_other_record(tmp_path, name):
    keep(tmp_path, "good", OLD)
    keep(tmp_path, name, DAMAGED[name])
    if name == "not text":
        (tmp_path / f"{name}.json").write_bytes(b"\xff\xfe\x00")
    found, damaged = run_records.Records(tmp_path).read()
    assert [run.id for run in found] == ["good"]
    (line,) = damaged
    assert line.startswith(f"{tmp_path}/{name}.json: damaged (")
    assert "\n" not in line


def test_what_is_no_record_is_left_alone(tmp_path):
    keep(tmp_path, "good", OLD)
    (tmp_path / ".good.1.partial.json").write_text("{")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to("/etc/hostname")
    (tmp_path / "link.log").symlink_to("/etc/hostname")
    records = run_records.Records(tmp_path)
    found, damaged = records.read()
    assert ([run.id for run in found], damaged) == (["good"], [])
    assert records.log("link") is None
    assert records.log("../good") is None
    assert run_records.Records(tmp_path / "none").read() == ([], [])


def test_a_huge_record_is_not_read(tmp_path):
    keep(tmp_path, "huge", " " * 4_000_001)
    _, (line,) = run_records.Records(tmp_path).read()
    assert "4,000,001 bytes are no run record" in line


def test_changes_are_seen_and_the_rest_is_not_read_again(tmp_path, monkeypatch):
    keep(tmp_path, "a", OLD)
    keep(tmp_path, "b", OLD)
    records = run_records.Records(tmp_path)
    records.read()
    opened = []
    read = run_places.read
    monkeypatch.setattr(run_places, "read", lambda *all: opened.append(all[1]) or read(*all))
    keep(tmp_path, "b", OLD | {"state": "failed", "error": "x"})
    (tmp_path / "a.json").unlink()
    keep(tmp_path, "c", OLD)
    assert sorted((run.id, run.state) for run in records.read()[0]) == [("b", "failed"), ("c", "ok")]
    assert sorted(opened) == ["b.json", "c.json"]


def test_a_killed_run_is_lost(tmp_path, monkeypatch):
    monkeypatch.delenv("DIFFSE_RUNS", raising=False)
    code = "import time; from pathlib import Path; from diffse import runs\n"
    code += (
        f"with runs.recorded(Path({str(tmp_path)!r}), 'train', (), []): print('in', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(runs.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "in\n"
    assert the_run(tmp_path).state == "running"
    process.kill()
    process.communicate()
    run = the_run(tmp_path)
    assert (run.state, run.error) == ("lost", "lost: its process is gone; run the same command again")


def running(**changes) -> run_records.Run:
    now = datetime.datetime.now(datetime.UTC)
    record = OLD | {"state": "running", "started": (now - datetime.timedelta(hours=1)).isoformat()}
    record |= {"heartbeat": (now - datetime.timedelta(seconds=5)).isoformat(), "pid": os.getpid()}
    record |= {"process": run_process.identity(os.getpid())}
    return run_records.parse("x", record | changes)


def judge(run: run_records.Run) -> run_records.Run:
    return run_records.judged(run, datetime.datetime.now(datetime.UTC), run_process.space())


def test_a_run_is_lost_when_its_process_cannot_be_it():
    here = run_process.space()
    assert judge(running()).state == "running"
    assert judge(running()).seconds == pytest.approx(3600, abs=5)
    later = {"space": here, "began": run_process.identity(os.getpid())["began"] - 1}
    assert judge(running(process=later)).state == "lost"  # the number belongs to another process now
    elsewhere = {"space": "other-host 1 pid:[2]", "began": 1}
    assert judge(running(process=elsewhere)).state == "running"
    assert judge(running(process=None)).state == "running"  # of a system without /proc


def test_a_run_elsewhere_is_lost_when_it_falls_silent():
    old = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=10)
    run = judge(running(heartbeat=old.isoformat(), process=None))
    assert (run.state, run.error) == (
        "lost",
        "lost: no sign of life for 10 minutes; run the same command again",
    )
