"""The command line that all pipelines share: compile, check, submit, look at a run, or run here."""

import argparse
import dataclasses
import datetime
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kfp import local

from diffse import objects, settings, storage
from diffse.errors import DiffseError
from pipelines import graph, lint, package, submission
from pipelines import placement as places

PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Pipeline:
    """What is different from one pipeline to the next."""

    script: str  # the file beside this one
    name: str  # on the cluster
    description: str
    add_tasks: Callable[[graph.Chain, argparse.Namespace], None]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    product: str = "."  # what a local run ends with, in the project folder


def _arguments(pipeline: Pipeline) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"pipelines/{pipeline.script}", description=pipeline.description)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--compile", type=Path, metavar="FILE", help="write the pipeline for upload")
    what.add_argument("--submit", action="store_true", help="start it on the cluster of --host")
    what.add_argument("--check", action="store_true", help="say what would fail there, and start nothing")
    what.add_argument("--status", metavar="RUN", help="show what a run on the cluster is doing")
    what.add_argument("--local", action="store_true", help="run it here, one step after the other")
    pipeline.add_arguments(parser)
    parser.add_argument("--params", type=Path, default=PROJECT / "params.yaml", metavar="FILE")
    parser.add_argument("--workspace", metavar="DIR", help="project folder as the steps see it, or s3://...")
    parser.add_argument("--placement", type=Path, metavar="FILE", help="changes to pipelines/placement.py")
    parser.add_argument(
        "--release", action="store_true", help="refuse an image that is not named by its digest"
    )
    parser.add_argument("--no-cache", action="store_true", help="run every step, whatever Kubeflow remembers")
    submission.add_arguments(parser)
    return parser


def add_systems(parser: argparse.ArgumentParser, text: str) -> None:
    """`--system NAME`, which can be repeated."""
    parser.add_argument(
        "--system", action="append", required=True, metavar="NAME", help=f"{text}; can be repeated"
    )


def main(pipeline: Pipeline, argv: list[str] | None = None) -> int:
    """Do what the options ask for; the return value is the exit code."""
    parser = _arguments(pipeline)
    args = parser.parse_args(argv)
    submission.check_arguments(parser, args)
    try:
        if args.local:
            return _run_here(pipeline, args)
        if args.status:
            return submission.status(args)
        if args.submit or args.check:
            return submission.submit(args, functools.partial(_compiled, pipeline, args))
        return _compile(pipeline, args)
    except DiffseError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return error.exit_code


def build(pipeline: Pipeline, args: argparse.Namespace) -> Callable:
    """The pipeline as kfp takes it: for a cluster, or with --local for kfp's local runner."""
    return _graph(pipeline, args, _project(args))


def _project(args: argparse.Namespace) -> graph.Project:
    params, placement = settings.load(args.params), None if args.local else places.load(args.placement)
    workspace = _workspace(args, placement)
    if placement is not None and objects.is_url(workspace):
        placement = dataclasses.replace(placement, volume_claim="")  # nothing of it is on a volume
    elif placement is not None and not placement.volume_claim:
        raise DiffseError(
            f"{args.placement}: volume_claim is empty, so that steps share no folder; give --workspace s3://..."
        )
    return graph.Project(params, args.params, workspace, placement, caching=not args.no_cache)


def _workspace(args: argparse.Namespace, placement: places.Placement | None) -> str:
    """The project folder as the steps see it."""
    if args.workspace and objects.is_url(args.workspace):
        return args.workspace.rstrip("/")
    if placement is None:
        return str(Path(args.workspace or args.params.parent).resolve())
    return args.workspace or f"{placement.mount_path}/diffse"


def _graph(pipeline: Pipeline, args: argparse.Namespace, project: graph.Project) -> Callable:
    tasks = lambda chain: pipeline.add_tasks(chain, args)  # noqa: E731
    return graph.build(pipeline.name, pipeline.description, tasks, project)


def _compiled(pipeline: Pipeline, args: argparse.Namespace, folder: Path) -> submission.Built:
    """The pipeline in a file in `folder`, if the lint finds nothing."""
    project = _project(args)
    found = package.compiled(_graph(pipeline, args, project), pipeline.name, folder)
    lint.check(found.path, args.compile or Path(f"{pipeline.name}.yaml"), release=args.release)
    return submission.Built(project, found)


def _compile(pipeline: Pipeline, args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="diffse-") as folder:
        built = _compiled(pipeline, args, Path(folder))
        with storage.atomic_file(args.compile) as temporary:
            shutil.copyfile(built.package.path, temporary)
    print(f"pipeline written to {args.compile}")
    return 0


def _run_here(pipeline: Pipeline, args: argparse.Namespace) -> int:
    """Run with kfp's local runner. What the steps hand over is small and goes when the run ends.

    kfp's own local cache stays off: its key knows nothing of what a folder holds, and it would answer with
    results of other data.
    """
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    os.environ.update(DIFFSE_RUNNER="kfp-local", DIFFSE_PIPELINE_RUN=f"{pipeline.name}-{now}")
    runner = local.SubprocessRunner(use_venv=False)
    with tempfile.TemporaryDirectory(prefix="diffse-kfp-") as folder:
        local.init(runner, pipeline_root=folder, raise_on_error=True, enable_caching=False)
        try:
            build(pipeline, args)()
        except RuntimeError as error:  # kfp's word for "a step failed"; the step has said why
            print(f"pipelines/{pipeline.script}: {error}", file=sys.stderr)
            return 1
    print(f"{pipeline.name}: {_workspace(args, None)}/{pipeline.product}")
    return 0
