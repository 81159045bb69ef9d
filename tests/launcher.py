"""Containers of a compiled pipeline as Kubeflow's launcher starts them: their own command, with its inputs."""

import json
from pathlib import Path
from typing import Any

from pipelines import lint


def interface(documents: list[dict], task: lint.Task) -> dict[str, dict]:
    """{"parameters", "artifacts"}: what a task promises to write."""
    found = documents[0]["components"][task.spec["componentRef"]["name"]]["outputDefinitions"]
    return {kind: found.get(kind, {}) for kind in ("parameters", "artifacts")}


def command(documents: list[dict], task: lint.Task, folder: str | Path, **inputs: Any) -> list[str]:
    """The words of a task's container whose outputs go to `folder`; constants of the pipeline are filled in."""
    parameters = task.spec["inputs"]["parameters"].items()
    constants = {
        name: value["runtimeValue"]["constant"] for name, value in parameters if "runtimeValue" in value
    }
    outputs = interface(documents, task)
    handed_in = {
        "inputs": {"parameterValues": constants | inputs},
        "outputs": {
            "parameters": {name: {"outputFile": f"{folder}/{name}"} for name in outputs["parameters"]},
            "artifacts": {
                name: {"artifacts": [_artifact(name, kind, folder)]}
                for name, kind in outputs["artifacts"].items()
            },
            "outputFile": f"{folder}/executor_output.json",
        },
    }
    words = [*task.container["command"], *task.container["args"]]
    return [json.dumps(handed_in) if word == "{{$}}" else word for word in words]


def _artifact(name: str, kind: dict, folder: str | Path) -> dict[str, Any]:
    return {"name": name, "type": kind["artifactType"], "uri": f"{folder}/{name}", "metadata": {}}
