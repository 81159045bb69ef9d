"""One list for runs of every kind."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from diffse.run_records import Run

KUBEFLOW, EXPERIMENT = "Kubeflow run", "DVC experiment"
KINDS = {"cli": "command line", "dvc": "DVC", "kfp-local": "kfp local", "kubeflow": "Kubeflow"}
_WORST_FIRST = ("failed", "lost", "running", "interrupted", "ok")


@dataclass(frozen=True)
class Entry:
    """One line of the list of runs: a run record, or a run that a server or git tells of."""

    key: str
    kind: str
    title: str
    state: str  # of run_records.STATES
    started: datetime.datetime
    seconds: float | None = None
    share: float | None = None  # done part, 0 to 1
    progress: str = ""
    data: str = ""
    code: str = ""
    pipeline: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    error: str = ""
    link: str = ""
    is_pipeline: bool = False
    steps: int = 1
    run: Run | None = None

    @property
    def text(self) -> str:
        """All that a search looks at, in small letters."""
        parts = [self.title, self.kind, self.state, self.data, self.code, self.pipeline, self.error, self.key]
        return " ".join([*parts, *(f"{name}={value}" for name, value in self.settings.items())]).lower()


def of_record(run: Run) -> Entry:
    """The line of a run record."""
    code = run.table("code")
    commit = str(code.get("commit") or code.get("package") or "")[:8]
    versions = run.table("data")
    return Entry(
        key=f"run:{run.id}",
        kind=KINDS.get(run.runner, run.runner),
        title=run.title,
        state=run.state,
        started=run.started,
        seconds=run.seconds,
        share=_share(run),
        progress=progress_text(run),
        data=", ".join(f"{name} {str(version)[:8]}" for name, version in versions.items()),
        code=commit + ("*" if code.get("dirty") else ""),
        pipeline=run.pipeline,
        settings=flat(run.table("settings")),
        error=run.error,
        run=run,
    )


def _share(run: Run) -> float | None:
    if run.state == "ok":
        return 1.0
    return run.progress.share if run.progress else None


def progress_text(run: Run) -> str:
    """'120 of 250 steps, 2 min left'; what is not known is left out."""
    found = run.progress
    if found is None:
        return ""
    unit = f" {found.unit}" if found.unit else ""
    text = f"{found.done:,}{unit}" if found.total is None else f"{found.done:,} of {found.total:,}{unit}"
    if run.state == "running" and found.eta_seconds is not None:
        text += f", {duration(found.eta_seconds)} left"
    return text


def of_pipeline(name: str, runs: list[Run]) -> Entry:
    """One line for all steps of a pipeline run; `runs` oldest first. The last attempt at a step counts."""
    latest = {run.title: run for run in runs}
    states = {run.state for run in latest.values()}
    state = next(state for state in _WORST_FIRST if state in states)
    ends = [run.started.timestamp() + (run.seconds or 0.0) for run in runs]
    lines = [of_record(run) for run in runs]
    return Entry(
        key=f"pipeline:{name}",
        kind=lines[0].kind,
        title=name,
        state=state,
        started=runs[0].started,
        seconds=max(ends) - runs[0].started.timestamp(),
        progress=f"{len(latest)} steps",
        data=", ".join(dict.fromkeys(line.data for line in lines if line.data)),
        code=", ".join(dict.fromkeys(line.code for line in lines)),
        pipeline=name,
        error="; ".join(run.error for run in latest.values() if run.error),
        is_pipeline=True,
        steps=len(latest),
    )


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as {"train.bridge.lr": "0.001"}."""
    if not isinstance(value, dict):
        return {prefix: str(value)}
    found: dict[str, str] = {}
    for key, item in value.items():
        found |= flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def duration(seconds: float | None) -> str:
    """'45 s', '12 min', '3 h 20 min', '2 d 4 h'."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def ago(moment: datetime.datetime, now: datetime.datetime) -> str:
    """'5 min ago'."""
    seconds = (now - moment).total_seconds()
    return "just now" if seconds < 5 else f"{duration(seconds)} ago"


def counts(entries: Iterable[Entry]) -> dict[str, int]:
    """How many there are in each state."""
    found: dict[str, int] = {}
    for entry in entries:
        found[entry.state] = found.get(entry.state, 0) + 1
    return found
