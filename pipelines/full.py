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
from components.enhance_external import enhance_external  # noqa: E402
from components.estimate import estimate  # noqa: E402
from components.evaluate import evaluate  # noqa: E402
from components.prepare import prepare  # noqa: E402
from components.report import report  # noqa: E402
from components.swap import swap  # noqa: E402
from components.sweep import sweep  # noqa: E402
from components.train import train  # noqa: E402
from diffse import paths, settings, steps  # noqa: E402
from diffse.errors import DiffseError  # noqa: E402
from pipelines import placement as places  # noqa: E402

# Components whose inputs are references and settings alone may be answered from Kubeflow's cache. Preparing and
# external systems read what no reference names; what judges or reports is cheap and must be seen to have run.
CACHED = {"cache", "estimate", "train", "enhance", "sweep", "swap"}


class Chain:
    """The tasks of one pipeline while it is built."""

    def __init__(self, params: settings.Params, workspace: Any, placement: places.Placement | None):
        self.params, self.workspace, self.placement = params, workspace, placement
        self.pairs: dict[str, Any] = {}  # corpus -> reference from the gate
        self.checkpoints: dict[str, Any] = {}  # the same of each system
        self.scores: list[Any] = []  # all that the report reads

    def add(self, component: Callable, names: tuple[str, ...], /, **inputs: Any) -> dsl.PipelineTask:
        """Add the task of one step; the component's name begins with its verb."""
        step = steps.describe(component.name.partition("-")[0], names)
        read = json.dumps(steps.settings_read(step, self.params), sort_keys=True)
        task = component(workspace=self.workspace, settings=read, **inputs)
        task.set_display_name(step.command.removeprefix("diffse "))
        task.set_caching_options(component.name in CACHED)
        if self.placement is not None:
            places.apply(task, step.verb, self.placement)
        return task

    def gated(self, artifact: str, names: tuple[str, ...], task: dsl.PipelineTask, output: str) -> Any:
        """Add the gate behind a task; the reference of what passed."""
        judged = task.outputs[output]
        gate = self.add(check, (artifact, *names), artifact=artifact, names=list(names), judged=judged)
        return gate.outputs["passed"]

    def prepared(self, corpus: str) -> None:
        task = self.add(prepare, (corpus,), corpus=corpus)
        self.pairs[corpus] = self.gated("mixtures", (corpus,), task, "mixtures")

    def trained(self, recipes: tuple[str, ...], corpus: str) -> None:
        """Cache, levels and all systems that are trained on a corpus."""
        mixtures = self.pairs[corpus]
        task = self.add(cache, (corpus,), corpus=corpus, mixtures=mixtures)
        spectrograms = self.gated("cache", (corpus,), task, "spectrograms")
        levels = self.add(estimate, (corpus,), corpus=corpus, spectrograms=spectrograms).outputs["statistics"]
        inputs = {"mixtures": mixtures, "spectrograms": spectrograms, "statistics": levels}
        for recipe in recipes:
            system = f"{recipe}.{corpus}"
            task = self.add(train, (system,), system=system, **inputs)
            self.checkpoints[system] = self.gated("checkpoint", (system,), task, "checkpoint")

    def enhanced(self, system: str, corpus: str) -> Any:
        inputs = {"system": system, "corpus": corpus, "mixtures": self.pairs[corpus]}
        if system in self.checkpoints:
            task = self.add(enhance, (system, corpus), **inputs, checkpoint=self.checkpoints[system])
        else:
            task = self.add(enhance_external, (system, corpus), **inputs)
        return self.gated("enhanced", (system, corpus), task, "enhanced")

    def evaluated(self, system: str, corpus: str, scored: Any) -> None:
        inputs = {"system": system, "corpus": corpus, "mixtures": self.pairs[corpus], "scored": scored}
        task = self.add(evaluate, (system, corpus), **inputs)
        self.scores.append(self.gated("metrics", (system, corpus), task, "results"))

    def swept(self, name: str, entry: settings.Sweep) -> None:
        inputs = {"mixtures": self.pairs[entry.corpus]}
        inputs["checkpoint"] = self.checkpoint(entry.system, f"sweeps.{name}.system")
        self.scores.append(self.add(sweep, (name,), name=name, **inputs).outputs["results"])

    def swapped(self, name: str, entry: settings.Swap) -> None:
        inputs = {"mixtures": self.pairs[entry.corpus]}
        inputs["checkpoint"] = self.checkpoint(entry.system, f"swaps.{name}.system")
        inputs["predictor"] = self.checkpoint(entry.predictor, f"swaps.{name}.predictor")
        self.scores.append(self.add(swap, (name,), name=name, **inputs).outputs["results"])

    def checkpoint(self, system: str, where: str) -> Any:
        if system not in self.checkpoints:
            raise DiffseError(
                f"{where}: '{system}' is not trained here (recipes and train_corpora give: "
                f"{', '.join(self.checkpoints) or 'none'}); select it, or leave the entry out"
            )
        return self.checkpoints[system]


def build(params: settings.Params, workspace: str, placement: places.Placement | None = None) -> Callable:
    """The pipeline of `params`; `workspace` is the default of its one parameter."""

    @dsl.pipeline(name="diffse", description="From recordings to a report over all systems and corpora.")
    def diffse(workspace: str = workspace):
        chain = Chain(params, workspace, placement)
        for corpus in params.corpora:
            chain.prepared(corpus)
            chain.evaluated(paths.UNPROCESSED, corpus, chain.pairs[corpus])
        for trained_on in params.train_corpora:
            chain.trained(params.recipes, trained_on)
        for system in (*chain.checkpoints, *params.externals):
            for corpus in params.corpora:
                chain.evaluated(system, corpus, chain.enhanced(system, corpus))
        for name, entry in params.sweeps.items():
            chain.swept(name, entry)
        for name, entry in params.swaps.items():
            chain.swapped(name, entry)
        chain.add(report, (), results=chain.scores)

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
