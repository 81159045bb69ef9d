"""What a run on the cluster is doing: one look, or followed to its end."""

import dataclasses
import re
import sys
from typing import Any

from diffse.errors import DiffseError
from pipelines.api import Api
from pipelines.package import task_names

FINISHED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
ATTEMPTS = 70  # of one look while a run is followed: an hour without an answer is no reason to give up
# What Kubeflow itself adds around the steps: graphs, drivers, and the container of a step (once per attempt).
_OWN = re.compile(r"root|.*-driver|executor(\(\d+\))?|iteration-\d+|.*\(\d+\)")


def show(api: Api, run_id: str) -> int:
    """Print the state of a run and of its steps; 1 if it failed, else 0."""
    run = api.read(api.runs.run_service_get_run, run_id)
    names = _names(api, run)
    print(f"{run.display_name}: {_state(run)}{_duration(run.created_at, run.finished_at)}")
    for task in _steps(run, names):
        state, took = task.state or "PENDING", _duration(task.start_time, task.end_time)
        print(f"  {state.lower():<10} {_name(task, names)}{took}")
    return _conclude(api, run, names) if run.state in ("FAILED", "CANCELED") else 0


def follow(api: Api, run_id: str) -> int:
    """Print what changes until a run has ended; 1 if it failed, else 0."""
    api.patience = dataclasses.replace(api.patience, attempts=ATTEMPTS)
    known: dict[str, str] = {}
    names: dict[str, str] = {}
    try:
        while True:
            run = api.read(api.runs.run_service_get_run, run_id)
            names = names or _names(api, run)
            for task in _steps(run, names):
                if task.state and known.get(task.task_id) != task.state:
                    known[task.task_id] = task.state
                    print(f"{task.state.lower()}: {_name(task, names)}", flush=True)
            if run.state in FINISHED:
                return _conclude(api, run, names)
            api.patience.sleep(api.patience.poll)
    except (DiffseError, KeyboardInterrupt) as error:
        print(f"the run goes on; look at it with --status {run_id}", file=sys.stderr)
        if isinstance(error, DiffseError):
            raise
        return 130


def page(host: str, run_id: str) -> str:
    """Address of a run's page."""
    return f"{host}/#/runs/details/{run_id}"


def _names(api: Api, run: Any) -> dict[str, str]:
    """Task -> display name. A run of an uploaded pipeline does not hold its graph, but its version does."""
    spec, version = run.pipeline_spec, run.pipeline_version_reference
    if not spec and version is not None:
        request = api.pipelines.pipeline_service_get_pipeline_version
        try:
            spec = api.read(request, version.pipeline_id, version.pipeline_version_id).pipeline_spec
        except DiffseError:  # deleted since; the run is still worth showing
            return {}
    spec = spec or {}
    return task_names(spec.get("pipeline_spec", spec))


def _steps(run: Any, names: dict[str, str]) -> list[Any]:
    """The tasks of a run that are its author's, in the order of their start."""
    tasks = (run.run_details.task_details if run.run_details else None) or []
    if names:
        return [task for task in tasks if task.display_name in names]
    return [task for task in tasks if not _OWN.fullmatch(task.display_name or "")]


def _name(task: Any, names: dict[str, str]) -> str:
    return names.get(task.display_name, task.display_name)


def _state(run: Any) -> str:
    return (run.state or "PENDING").lower()


def _duration(began: Any, ended: Any) -> str:
    """' after 1:02:03', or nothing while it is not known."""
    if began is None or ended is None or ended < began:
        return ""
    return f" after {str(ended - began).partition('.')[0]}"


def _conclude(api: Api, run: Any, names: dict[str, str]) -> int:
    """The last line about a run, which names what failed; the exit code."""
    if run.state in ("SUCCEEDED", "SKIPPED"):
        print(f"{run.display_name}: {_state(run)}")
        return 0
    tasks = (run.run_details.task_details if run.run_details else None) or []
    failed = [task for task in _steps(run, names) if task.state == "FAILED"]
    failed = failed or [task for task in tasks if task.state == "FAILED"]  # a driver, for example
    lines = [_failure(task, names) for task in failed] or [_reason(run.error) or "no step says why"]
    print(f"{run.display_name}: {_state(run)}: {'; '.join(lines)}", file=sys.stderr)
    print(f"logs: {page(api.page_host, run.run_id)}", file=sys.stderr)
    return 1


def _failure(task: Any, names: dict[str, str]) -> str:
    reason = _reason(task.error)
    pods = [child.pod_name for child in task.child_tasks or () if child.pod_name]
    pod = task.pod_name or (pods[-1] if pods else "")
    details = ", ".join(part for part in (reason, f"pod {pod}" if pod else "") if part)
    return _name(task, names) + (f" ({details})" if details else "")


def _reason(error: Any) -> str:
    """Kubeflow's words on one line. They are often missing: its API does not fill them in."""
    text = " ".join((error.message or "").split()) if error else ""
    return text if len(text) <= 200 else f"{text[:200]}..."
