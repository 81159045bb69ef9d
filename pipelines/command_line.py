"""The command line that all pipelines share: compile, submit, or run here."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kfp import compiler, local

from diffse import paths, settings
from diffse.errors import DiffseError
from pipelines import graph, submission
from pipelines import placement as places

PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Pipeline:
    """What is different from one pipeline to the next."""

    script: str  # the file beside this one
    name: str  # on the cluster
    description: str
    add_tasks: Callable[[graph.Chain], None]


def _arguments(pipeline: Pipeline) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"pipelines/{pipeline.script}", description=pipeline.description)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--compile", type=Path, metavar="FILE", help="write the pipeline for upload")
    what.add_argument("--submit", action="store_true", help="start it on the cluster of --host")
    what.add_argument("--local", action="store_true", help="run it here, one step after the other")
    parser.add_argument("--params", type=Path, default=PROJECT / "params.yaml", metavar="FILE")
    parser.add_argument("--workspace", metavar="DIR", help="project folder as the steps see it")
    parser.add_argument("--placement", type=Path, metavar="FILE", help="changes to pipelines/placement.py")
    submission.add_arguments(parser)
    return parser


def main(pipeline: Pipeline, argv: list[str] | None = None) -> int:
    """Compile, submit or run; the return value is the exit code."""
    parser = _arguments(pipeline)
    args = parser.parse_args(argv)
    if args.submit and not args.host:
        parser.error("--submit needs --host")
    try:
        params = settings.load(args.params)
        if args.local:
            return _run_here(pipeline, params, Path(args.workspace or args.params.parent).resolve())
        placement = places.load(args.placement)
        built = _build(pipeline, params, args.workspace or f"{placement.mount_path}/diffse", placement)
        return submission.submit(built, args) if args.submit else _compile(built, args.compile)
    except DiffseError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return error.exit_code


def _build(
    pipeline: Pipeline, params: settings.Params, workspace: str, placement: places.Placement | None = None
) -> Callable:
    return graph.build(pipeline.name, pipeline.description, pipeline.add_tasks, params, workspace, placement)


def _compile(built: Callable, target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(built, str(target))
    print(f"pipeline written to {target}")
    return 0


def _run_here(pipeline: Pipeline, params: settings.Params, workspace: Path) -> int:
    """Run with kfp's local runner. What the steps hand over is small and goes when the run ends."""
    os.environ["DIFFSE_RUNNER"] = "kfp-local"
    with tempfile.TemporaryDirectory(prefix="diffse-kfp-") as folder:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder, raise_on_error=True)
        try:
            _build(pipeline, params, str(workspace))()
        except RuntimeError as error:  # kfp's word for "a step failed"; the step has said why
            print(f"pipelines/{pipeline.script}: {error}", file=sys.stderr)
            return 1
    print(f"report: {paths.report(workspace) / 'index.html'}")
    return 0
