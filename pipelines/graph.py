"""The graph of a Kubeflow pipeline: the steps of `dvc.yaml`, built from the same `params.yaml`.

params.yaml is read when a pipeline is built: its corpora and recipes shape the graph, and each step is given
the settings that it reads. The project folder (params.yaml and sources/) must be on the volume that the steps
share.
"""

import json
from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.cache import cache
from components.check import check
from components.enhance import enhance
from components.enhance_external import enhance_external
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

    def reported(self) -> None:
        self.add(report, (), results=self.scores)


def build(
    name: str,
    description: str,
    add_tasks: Callable[[Chain], None],
    params: settings.Params,
    workspace: str,
    placement: places.Placement | None = None,
) -> Callable:
    """The pipeline of the tasks that `add_tasks` adds; `workspace` is the default of its one parameter."""

    @dsl.pipeline(name=name, description=description)
    def pipeline(workspace: str = workspace):
        add_tasks(Chain(params, workspace, placement))

    return pipeline
