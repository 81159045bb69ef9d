"""The whole chain as a Kubeflow pipeline: the graph of `dvc.yaml`, built from the same `params.yaml`.

python pipelines/full.py --compile diffse.yaml      write the pipeline for upload
python pipelines/full.py --submit --host URL        compile and start it on a cluster
python pipelines/full.py --local                    run it here, without a cluster

params.yaml is read when the pipeline is built: its corpora and recipes shape the graph, and each step is
given the settings that it reads. The project folder (params.yaml and sources/) must be on the volume that
the steps share.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))  # so that `python pipelines/full.py` finds the components

from kfp import compiler, dsl, local  # noqa: E402

from components.cache import cache  # noqa: E402
from components.check import check  # noqa: E402
from components.enhance import enhance  # noqa: E402
from components.evaluate import evaluate  # noqa: E402
from components.prepare import prepare  # noqa: E402
from components.report import report  # noqa: E402
from components.train import train  # noqa: E402
from diffse import paths, settings, steps  # noqa: E402
from diffse.errors import DiffseError  # noqa: E402
from pipelines import placement as places  # noqa: E402

# Steps whose inputs are references and settings alone may be answered from Kubeflow's cache. Preparing reads
# recordings that no reference names, and what judges or reports is cheap and must be seen to have run.
CACHED = {"cache", "train", "enhance"}


class Chain:
    """The tasks of one pipeline while it is built."""

    def __init__(self, params: settings.Params, workspace: Any, placement: places.Placement | None):
        self.params, self.workspace, self.placement = params, workspace, placement

    def add(self, component: Callable, names: tuple[str, ...], /, **inputs: Any) -> dsl.PipelineTask:
        """Add the task of one step."""
        step = steps.describe(component.name, names)
        read = json.dumps(steps.settings_read(step, self.params), sort_keys=True)
        task = component(workspace=self.workspace, settings=read, **inputs)
        task.set_display_name(step.command.removeprefix("diffse "))
        task.set_caching_options(step.verb in CACHED)
        if self.placement is not None:
            places.apply(task, step.verb, self.placement)
        return task

    def gated(self, artifact: str, names: tuple[str, ...], task: dsl.PipelineTask, output: str) -> Any:
        """Add the gate behind a task; the reference of what passed."""
        judged = task.outputs[output]
        gate = self.add(check, (artifact, *names), artifact=artifact, names=list(names), judged=judged)
        return gate.outputs["passed"]

    def mixtures(self, corpus: str) -> Any:
        task = self.add(prepare, (corpus,), corpus=corpus)
        return self.gated("mixtures", (corpus,), task, "mixtures")

    def spectrograms(self, corpus: str, mixtures: Any) -> Any:
        task = self.add(cache, (corpus,), corpus=corpus, mixtures=mixtures)
        return self.gated("cache", (corpus,), task, "spectrograms")

    def checkpoint(self, system: str, mixtures: Any, spectrograms: Any) -> Any:
        task = self.add(train, (system,), system=system, mixtures=mixtures, spectrograms=spectrograms)
        return self.gated("checkpoint", (system,), task, "checkpoint")

    def enhanced(self, names: tuple[str, str], mixtures: Any, checkpoint: Any) -> Any:
        system, corpus = names
        task = self.add(enhance, names, system=system, corpus=corpus, mixtures=mixtures, checkpoint=checkpoint)
        return self.gated("enhanced", names, task, "enhanced")

    def results(self, names: tuple[str, str], mixtures: Any, scored: Any) -> Any:
        system, corpus = names
        task = self.add(evaluate, names, system=system, corpus=corpus, mixtures=mixtures, scored=scored)
        return self.gated("metrics", names, task, "results")


def build(params: settings.Params, workspace: str, placement: places.Placement | None = None) -> Callable:
    """The pipeline of `params`; `workspace` is the default of its one parameter."""

    @dsl.pipeline(name="diffse", description="From recordings to a report over all systems and corpora.")
    def diffse(workspace: str = workspace):
        chain = Chain(params, workspace, placement)
        mixtures = {corpus: chain.mixtures(corpus) for corpus in params.corpora}
        results = [
            chain.results((paths.UNPROCESSED, corpus), mixtures[corpus], mixtures[corpus])
            for corpus in params.corpora
        ]
        for trained_on in params.train_corpora:
            spectrograms = chain.spectrograms(trained_on, mixtures[trained_on])
            for recipe in params.recipes:
                system = f"{recipe}.{trained_on}"
                checkpoint = chain.checkpoint(system, mixtures[trained_on], spectrograms)
                for corpus in params.corpora:
                    names = (system, corpus)
                    audio = chain.enhanced(names, mixtures[corpus], checkpoint)
                    results.append(chain.results(names, mixtures[corpus], audio))
        chain.add(report, (), results=results)

    return diffse


# ------------------------------------------------------------------------------------------ command line


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pipelines/full.py", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--compile", type=Path, metavar="FILE", help="write the pipeline for upload")
    what.add_argument("--submit", action="store_true", help="start it on the cluster of --host")
    what.add_argument("--local", action="store_true", help="run it here, one step after the other")
    parser.add_argument("--params", type=Path, default=PROJECT / "params.yaml", metavar="FILE")
    parser.add_argument("--workspace", metavar="DIR", help="project folder as the steps see it")
    parser.add_argument("--placement", type=Path, metavar="FILE", help="changes to pipelines/placement.py")
    parser.add_argument("--host", metavar="URL", help="of the Kubeflow Pipelines API")
    parser.add_argument("--experiment", default="diffse", metavar="NAME")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Compile, submit or run; the return value is the exit code."""
    parser = _arguments()
    args = parser.parse_args(argv)
    if args.submit and not args.host:
        parser.error("--submit needs --host")
    try:
        params = settings.load(args.params)
        if args.local:
            return _run_here(params, Path(args.workspace or args.params.parent).resolve())
        placement = places.load(args.placement)
        pipeline = build(params, args.workspace or f"{placement.mount_path}/diffse", placement)
        return _submit(pipeline, args) if args.submit else _compile(pipeline, args.compile)
    except DiffseError as error:
        print(f"pipelines/full.py: {error}", file=sys.stderr)
        return error.exit_code


def _compile(pipeline: Callable, target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(target))
    print(f"pipeline written to {target}")
    return 0


def _submit(pipeline: Callable, args: argparse.Namespace) -> int:
    from kfp import Client

    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "diffse.yaml"
        compiler.Compiler().compile(pipeline, str(package))
        run = Client(host=args.host).create_run_from_pipeline_package(
            str(package), experiment_name=args.experiment
        )
    print(f"started run {run.run_id}")
    return 0


def _run_here(params: settings.Params, workspace: Path) -> int:
    """Run with kfp's local runner. What the steps hand over is small and goes when the run ends."""
    with tempfile.TemporaryDirectory(prefix="diffse-kfp-") as folder:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder, raise_on_error=True)
        try:
            build(params, str(workspace))()
        except RuntimeError as error:  # kfp's word for "a step failed"; the step has said why
            print(f"pipelines/full.py: {error}", file=sys.stderr)
            return 1
    print(f"report: {paths.report(workspace) / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
