"""The graph of a Kubeflow pipeline: the steps of `dvc.yaml`, built from the same `params.yaml`.

params.yaml is read when a pipeline is built: its corpora and recipes shape the graph, and each step is given
the settings that it reads. The project folder (params.yaml and sources/) must be on the volume that the steps
share.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import dsl

from components.cache import cache
from components.check import check
from components.conclude import conclude
from components.enhance import enhance
from components.enhance_external import enhance_external
from components.enhance_files import enhance_files
from components.estimate import estimate
from components.evaluate import evaluate
from components.prepare import prepare
from components.report import report
from components.swap import swap
from components.sweep import sweep
from components.train import train
from diffse import settings, steps
from diffse.errors import DiffseError
from pipelines import placement as places

# Components whose inputs are references and settings alone may be answered from Kubeflow's cache. Preparing and
# external systems read what no reference names; what judges or reports is cheap and must be seen to have run.
CACHED = {"cache", "estimate", "train", "enhance", "sweep", "swap"}


@dataclass(frozen=True)
class Project:
    """What a pipeline is built from."""

    params: settings.Params
    params_file: Path
    workspace: str  # project folder as the steps see it: the default of the pipeline's one parameter
    placement: places.Placement | None = None  # None: for kfp's local runner
    caching: bool = True  # whether Kubeflow may answer a step from its cache at all


class Chain:
    """The tasks of one pipeline while it is built."""

    def __init__(self, project: Project, workspace: Any):
        self.project, self.params, self.workspace = project, project.params, workspace
        self.pairs: dict[str, Any] = {}  # corpus -> reference from the gate
        self.checkpoints: dict[str, Any] = {}  # the same of each system
        self.scores: list[Any] = []  # all that the report reads

    def add(self, component: Callable, names: tuple[str, ...], /, **inputs: Any) -> dsl.PipelineTask:
        """Add the task of one step; the component's name begins with its verb."""
        step = steps.describe(component.name.partition("-")[0], names)
        steps.check_names(step, self.params, self.project.params_file)
        read = json.dumps(steps.settings_read(step, self.params), sort_keys=True)
        task = component(workspace=self.workspace, settings=read, **inputs)
        return self.placed(task, component, step.command)

    def placed(self, task: dsl.PipelineTask, component: Callable, command: str) -> dsl.PipelineTask:
        """What is the same for all tasks. kfp's local runner takes no part of it."""
        task.set_caching_options(component.name in CACHED and self.project.caching)
        if self.project.placement is not None:
            task.set_display_name(command.removeprefix("diffse "))
            places.apply(task, component.name.replace("-", "_"), self.project.placement)
        return task

    def gated(self, artifact: str, names: tuple[str, ...], task: dsl.PipelineTask, output: str) -> Any:
        """Add the gate behind a task; the reference of what passed."""
        judged = task.outputs[output]
        gate = self.add(check, (artifact, *names), artifact=artifact, names=list(names), judged=judged)
        return gate.outputs["passed"]

    def prepared(self, corpus: str) -> None:
        task = self.add(prepare, (corpus,), corpus=corpus)
        self.pairs[corpus] = self.gated("mixtures", (corpus,), task, "mixtures")

    def cached(self, corpus: str) -> dict[str, Any]:
        """Cache and levels of a corpus: all inputs of a training on it."""
        mixtures = self.pairs[corpus]
        task = self.add(cache, (corpus,), corpus=corpus, mixtures=mixtures)
        spectrograms = self.gated("cache", (corpus,), task, "spectrograms")
        levels = self.add(estimate, (corpus,), corpus=corpus, spectrograms=spectrograms).outputs["statistics"]
        return {"mixtures": mixtures, "spectrograms": spectrograms, "statistics": levels}

    def trained(self, recipes: tuple[str, ...], corpus: str) -> None:
        """Systems that are trained on a corpus."""
        inputs = self.cached(corpus)
        for recipe in recipes:
            system = f"{recipe}.{corpus}"
            task = self.add(train, (system,), system=system, **inputs)
            self.checkpoints[system] = self.gated("checkpoint", (system,), task, "checkpoint")

    def found(self, system: str) -> None:
        """A system that is in the workspace already. Its gate names the version: there is no reference yet."""
        names = ("checkpoint", system)
        gate = self.add(check, names, artifact="checkpoint", names=[system], judged="")
        self.checkpoints[system] = gate.outputs["passed"]

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

    def reported(self) -> None:
        self.add(report, (), results=self.scores)

    def enhanced_files(self, source: str, target: str, checkpoint: str, shard: str, options: list[str]) -> None:
        """Enhance one part of a folder or bucket: no step of the chain, and without settings."""
        inputs = {"source": source, "target": target, "checkpoint": checkpoint, "shard": shard}
        task = enhance_files(workspace=self.workspace, **inputs, options=options)
        self.placed(task, enhance_files, f"enhance {source} {shard}")


def build(name: str, description: str, add_tasks: Callable[[Chain], None], project: Project) -> Callable:
    """The pipeline of the tasks that `add_tasks` adds. However they end, a last task records it."""
    root = project.placement.pipeline_root if project.placement else ""

    @dsl.pipeline(name=name, description=description, pipeline_root=root or None)
    def pipeline(workspace: str = project.workspace):
        chain = Chain(project, workspace)
        ending = conclude(workspace=workspace, pipeline=name)
        chain.placed(ending, conclude, f"conclude {name}")
        with dsl.ExitHandler(ending, name="steps"):
            add_tasks(chain)

    return pipeline
