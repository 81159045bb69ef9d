"""A project in small for the tests of the dashboard: artifacts of the report's project, and run records."""

import datetime
import json
import os
from pathlib import Path

import report_project

from diffse import paths, run_process, storage
from diffse.dashboard.project import Project
from diffse.data import manifest

NASTY = '<img src=x onerror=alert(1)>![x](http://evil.example/x) :red[x] $x$ "&'
PIPELINE = "dvc-20261125T080000Z-77"
_BEGIN = datetime.datetime(2026, 11, 25, 8, 0, tzinfo=datetime.UTC)


def record(verb: str, *names: str, minutes: float = 0.0, **changes) -> dict:
    """One run record as `diffse.runs` writes it."""
    started = changes.pop("started", _BEGIN + datetime.timedelta(minutes=minutes))
    made = {
        "format": 2, "id": f"{started:%Y%m%dT%H%M%S.%fZ}-{'-'.join((verb, *names))}".replace("/", "_"),
        "verb": verb, "names": list(names), "arguments": [verb, *names], "project": "/project",
        "runner": "dvc", "pipeline": PIPELINE, "started": started.isoformat(), "state": "ok", "error": None,
        "pid": 4242, "process": {"space": "worker-1 boot pid:[1]", "began": 7}, "seconds": 42.5,
        "heartbeat": started.isoformat(), "progress": None,
        "code": {"package": "0.1.0", "commit": "c0ffee" * 6, "dirty": True},
        "host": {"name": "worker-1", "python": "3.11.7", "cores": 2},
    }  # fmt: skip
    return made | changes


def keep(root: Path, made: dict, log: str = "") -> str:
    """Write a record, and a log if there is one; returns its id."""
    storage.write_json(paths.runs(root) / f"{made['id']}.json", made)
    if log:
        (paths.runs(root) / f"{made['id']}.log").write_text(log)
    return made["id"]


def alive(done: int = 420, **changes) -> dict:
    """Changes that make a record one of a training that runs now, in this process."""
    now = datetime.datetime.now(datetime.UTC)
    last = now + datetime.timedelta(hours=1)  # nobody writes the next sign of life while slow tests wait
    facts = {"state": "running", "pid": os.getpid(), "process": run_process.identity(os.getpid())}
    facts |= {"started": now - datetime.timedelta(minutes=7), "heartbeat": last.isoformat()}
    progress = {"what": "train", "done": done, "total": 900, "unit": "step", "eta_seconds": 480.0}
    return facts | {"progress": progress} | changes


def make_records(root: Path) -> dict[str, str]:
    """Records of one DVC run, of a running, a failed, a lost and an old run, and damaged ones; name -> id."""
    good, bad = report_project.GOOD, report_project.BAD
    version = storage.sha256_file(paths.mixtures(root, "demo") / manifest.FILE)
    data = {"demo": version}
    lr = {"train.bridge_small": {"lr": 0.001, "steps": 900, "network": {"nf": 32}}}
    gate = json.loads(paths.gate(root, "mixtures", "pairs").read_text())
    passed = json.loads(paths.gate(root, "mixtures", "demo").read_text())
    made = {
        "prepare": record("prepare", "demo", data=data, result={"utterances": {"test": 9}, "hours": 0.1}),
        "gate": record("check", "mixtures", "demo", minutes=1, data=data, gate=passed),
        "cache": record("cache", "demo", minutes=2, data=data),
        "estimate": record("estimate", "demo", minutes=3, data=data),
        "train": record(
            "train", good, minutes=4, data=data, settings=lr, result={"steps": 900, "best_step": 800}
        ),
        "enhance": record("enhance", good, "demo", minutes=6, data=data, inputs=[f"data@sha256:{version}"]),
        "evaluate": record("evaluate", good, "demo", minutes=7, data=data, result={"means": {"pesq": 1.9}}),
    }
    made["failed"] = record(
        "check", "mixtures", "pairs", minutes=8, state="failed", gate=gate,
        error=f"mixtures pairs: snr: 1 of 9 fail ({NASTY})",
    )  # fmt: skip
    made["lost"] = record("train", bad, minutes=9, state="running", settings=lr)
    other = {"train.sgmse_small": {"lr": 0.002, "steps": 900, "network": {"nf": 32}, "note": NASTY}}
    made["running"] = record("train", bad, runner="cli", pipeline=None, settings=other, data=data, **alive())
    ids = {name: keep(root, item) for name, item in made.items()}
    log = '{"event": "train", "step": 900}\n' + NASTY + "\nstep 900: validation si_sdr 8.0\n"
    (paths.runs(root) / f"{ids['train']}.log").write_text(log)
    old = {"verb": "report", "names": [], "arguments": ["report"], "started": "2026-11-01T10:00:00+00:00"}
    old |= {"state": "interrupted", "error": "stopped by the user or the system", "seconds": 3.0}
    storage.write_json(paths.runs(root) / "20261101T100000.000000Z-report.json", old)
    (paths.runs(root) / "20261125T000000.000000Z-cut.json").write_text('{"verb": "tra')
    (paths.runs(root) / "20261125T000001.000000Z-<b>x<b>.json").write_text("[]")
    return ids


def make(root: Path) -> tuple[Project, dict[str, str]]:
    """(the project, ids of its runs)."""
    report_project.make_project(root)
    return Project(root), make_records(root)


def make_many(root: Path, count: int = 500) -> None:
    """Records of `count` runs."""
    for number in range(count):
        state = ("ok", "ok", "ok", "failed", "interrupted")[number % 5]
        verb, names = (("train", "bridge_small.demo"), ("enhance", "bridge_small.demo"))[number % 2]
        keep(
            root,
            record(
                verb, names, minutes=number, state=state, error="loss nan" if state == "failed" else None,
                pipeline=f"dvc-{number // 10}", settings={f"{verb}.bridge_small": {"lr": number / 1000}},
            ),
        )  # fmt: skip
