"""Read run records, running ones too; a damaged record costs one line and no other record."""

import contextlib
import datetime
import json
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffse import run_places, run_process
from diffse.errors import DiffseError

STATES = ("running", "ok", "failed", "interrupted", "lost")
LOST_SECONDS = 180.0  # without a sign of life after which a run counts as lost
_MAX_BYTES = 4_000_000  # of a record or a log
_READERS = 16  # records fetched at once


@dataclass(frozen=True)
class Progress:
    """How far a run is; what is not known is None."""

    what: str
    done: int
    total: int | None
    unit: str
    eta_seconds: float | None

    @property
    def share(self) -> float | None:
        """Done part of the whole, 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else None


@dataclass(frozen=True)
class Run:
    """One run record. What an older record lacks has its default."""

    id: str
    verb: str
    names: tuple[str, ...]
    state: str  # of STATES
    started: datetime.datetime  # UTC
    seconds: float | None
    error: str = ""
    runner: str = "cli"
    pipeline: str = ""
    progress: Progress | None = None
    heartbeat: datetime.datetime | None = None
    record: dict[str, Any] | None = None  # the whole, as it was written

    @property
    def title(self) -> str:
        """'train bridge_demo.demo'."""
        return " ".join((self.verb, *self.names))

    def table(self, key: str) -> dict[str, Any]:
        """A part of the record that is a table ("settings", "code", "gate", ...); {} if it is not there."""
        found = (self.record or {}).get(key)
        return found if isinstance(found, dict) else {}

    def text(self, key: str) -> str:
        """A part of the record that is text; "" if it is not there."""
        found = (self.record or {}).get(key)
        return found if isinstance(found, str) else ""


class Records:
    """The records of one place. What has not changed since it was last read is not read again."""

    def __init__(self, place: Path | str) -> None:
        self.place = place
        self._known: dict[str, tuple[object, Run | str]] = {}  # name -> (stamp, run or what is wrong with it)
        self._logs: set[str] = set()

    def read(self) -> tuple[list[Run], list[str]]:
        """(runs, the newest first; one line for each damaged record). DiffseError: the place is not there."""
        listed = run_places.listing(self.place)
        self._logs = {name.removesuffix(".log") for name in listed if name.endswith(".log")}
        files = {name: facts for name, facts in listed.items() if name.endswith(".json")}
        changed = [name for name, facts in files.items() if self._known.get(name, (None,))[0] != facts]
        fresh = self._fetch(changed, files)
        self._known = {name: fresh.get(name) or self._known[name] for name in files}
        found = [item for _, item in self._known.values()]
        now, here = datetime.datetime.now(datetime.UTC), run_process.space()
        runs = [judged(item, now, here) for item in found if isinstance(item, Run)]
        runs.sort(key=lambda run: (run.started, run.id), reverse=True)
        return runs, sorted(item for item in found if isinstance(item, str))

    def _fetch(self, names: list[str], files: dict[str, tuple]) -> dict[str, tuple[object, Run | str]]:
        if len(names) < 2 or isinstance(self.place, Path):
            return {name: (files[name], self._read_one(name, files[name][0])) for name in names}
        with ThreadPoolExecutor(_READERS) as pool:
            items = pool.map(lambda name: self._read_one(name, files[name][0]), names)
            return {name: (files[name], item) for name, item in zip(names, items, strict=True)}

    def _read_one(self, name: str, size: int) -> Run | str:
        if size > _MAX_BYTES:
            return f"{self.place}/{name}: {size:,} bytes are no run record; delete it"
        try:
            return parse(name.removesuffix(".json"), json.loads(run_places.read(self.place, name, _MAX_BYTES)))
        except (OSError, DiffseError) as error:
            return f"{self.place}/{name}: cannot be read ({error})"
        except (ValueError, RecursionError) as error:
            return f"{self.place}/{name}: damaged ({' '.join(str(error).split())}); delete it"

    def log(self, run: str) -> str | None:
        """The log of the run with this id, None when there is none. Only what `read` has found is opened."""
        if run not in self._logs:
            return None
        with contextlib.suppress(OSError, DiffseError):
            return run_places.read(self.place, f"{run}.log", _MAX_BYTES).decode("utf-8", errors="replace")
        return None


def parse(name: str, record: Any) -> Run:
    """The run of a record, whose file is called `name`. ValueError: it cannot be one."""
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    for key, kind in (("verb", str), ("names", list), ("started", str), ("state", str)):
        if not isinstance(record.get(key), kind):
            raise ValueError(f"lacks '{key}'")
    if record["state"] not in STATES:
        raise ValueError(f"unknown state '{record['state'][:30]}'")
    return Run(
        id=name,
        verb=record["verb"],
        names=tuple(map(str, record["names"])),
        state=record["state"],
        started=_time(record["started"]),
        seconds=_number(record.get("seconds")),
        error=str(record.get("error") or ""),
        runner=str(record.get("runner") or "cli"),
        pipeline=str(record.get("pipeline") or ""),
        progress=_progress(record.get("progress")),
        heartbeat=_time(record["heartbeat"]) if isinstance(record.get("heartbeat"), str) else None,
        record=record,
    )


def _time(text: str) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(text)
    return moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def _progress(value: Any) -> Progress | None:
    if not isinstance(value, dict) or _number(value.get("done")) is None:
        return None
    total = _number(value.get("total"))
    return Progress(
        what=str(value.get("what") or ""),
        done=int(value["done"]),
        total=None if total is None else int(total),
        unit=str(value.get("unit") or ""),
        eta_seconds=_number(value.get("eta_seconds")),
    )


def judged(run: Run, now: datetime.datetime, here: str | None) -> Run:
    """A running run as it is now; `here`: `run_process.space()` of the reader.

    It is lost when its process, if it can be seen from here, is gone, or when it gave no sign of life for
    LOST_SECONDS.
    """
    if run.state != "running":
        return run
    process = run.table("process")
    pid = _number((run.record or {}).get("pid"))
    if here and process.get("space") == here and pid and run_process.identity(int(pid)) != process:
        return _lost(run, "its process is gone")
    silent = (now - (run.heartbeat or run.started)).total_seconds()
    if silent > LOST_SECONDS:
        return _lost(run, f"no sign of life for {silent / 60:.0f} minutes")
    return replace(run, seconds=(now - run.started).total_seconds())


def _lost(run: Run, why: str) -> Run:
    return replace(run, state="lost", error=f"lost: {why}; run the same command again")


def pipelines(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Pipeline run -> its runs, oldest first; runs of no pipeline are left out."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.started, run.id)):
        if run.pipeline:
            groups.setdefault(run.pipeline, []).append(run)
    return groups
