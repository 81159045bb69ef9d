"""`diffse conclude`: the run record of a whole pipeline, written by its exit handler."""

import argparse
import contextlib
import os
from pathlib import Path

from diffse.commands.project import add_params

HELP = "record how a pipeline of a cluster ended"
STATES = {"SUCCEEDED": "ok", "FAILED": "failed", "CANCELLED": "interrupted"}  # Kubeflow's word -> ours


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Name and ending of the pipeline."""
    parser.add_argument("pipeline", help="its name")
    parser.add_argument("--state", required=True, choices=STATES, help="how it ended")
    parser.add_argument("--message", default="", metavar="TEXT", help="what the cluster says about a failure")
    parser.add_argument("--write-text", type=Path, metavar="FILE", help="the same as Markdown")
    add_params(parser)


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Write the record; the command succeeds also for a pipeline that failed."""
    from diffse import runs, storage
    from diffse.errors import DiffseError

    root = args.params.parent
    failed = _failed_steps(root)
    text = "\n".join(_lines(args, failed))
    ending = contextlib.suppress(DiffseError, KeyboardInterrupt)
    with ending, runs.recorded(root, "pipeline", (args.pipeline,), argv) as record:
        record["result"] = {"state": args.state, "failed_steps": failed}
        if STATES[args.state] == "failed":
            reasons = [f"{step}: {reason}" for step, reason in failed.items()]
            raise DiffseError("; ".join(reasons) or args.message or "no step says why")
        if STATES[args.state] == "interrupted":
            raise KeyboardInterrupt
    if args.write_text:
        with storage.atomic_file(args.write_text) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def _lines(args: argparse.Namespace, failed: dict[str, str]) -> list[str]:
    lines = [f"**Pipeline {args.pipeline}: {STATES[args.state]}**", ""]
    lines += [f"- `diffse {step}`: {reason}" for step, reason in failed.items()]
    return lines if failed or not args.message else [*lines, args.message]


def _failed_steps(root: Path) -> dict[str, str]:
    """Step -> its last error, of the steps of this pipeline run that did not end well at last."""
    from diffse import run_places
    from diffse.run_records import Records

    pipeline = os.environ.get("DIFFSE_PIPELINE_RUN", "")
    found, _ = Records(run_places.location(root)).read()
    last = {run.title: run for run in reversed(found) if run.pipeline == pipeline != ""}
    return {title: run.error for title, run in last.items() if run.state in ("failed", "lost")}
