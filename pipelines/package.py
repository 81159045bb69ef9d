"""A compiled pipeline: its documents, the name of its version, its images and parameters."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler

from diffse.errors import DiffseError

# Type of a parameter in a compiled pipeline -> (how Python sees it in JSON, how a message calls it).
TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "STRING": ((str,), "text"),
    "NUMBER_INTEGER": ((int,), "a whole number"),
    "NUMBER_DOUBLE": ((int, float), "a number"),
    "BOOLEAN": ((bool,), "true or false"),
    "LIST": ((list,), "a list in JSON"),
    "STRUCT": ((dict,), "an object in JSON"),
}


@dataclass(frozen=True)
class Package:
    """One compiled pipeline in a file."""

    path: Path
    name: str

    @functools.cached_property
    def documents(self) -> list[dict]:
        """The pipeline and, if there is one, its Kubernetes part."""
        return list(yaml.load_all(self.path.read_text(encoding="utf-8"), yaml.CSafeLoader))

    @functools.cached_property
    def sha256(self) -> str:
        """Checksum of the documents. Compiling is deterministic: the same graph has the same one."""
        text = json.dumps(self.documents, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def version(self) -> str:
        """Name of the version: it depends on the content alone, and is a valid name in Kubernetes."""
        return f"{self.name}-{self.sha256[:16]}"

    @property
    def images(self) -> list[str]:
        """The images of its steps."""
        executors = self.documents[0]["deploymentSpec"]["executors"].values()
        return sorted({executor["container"]["image"] for executor in executors if "container" in executor})

    @property
    def corpora(self) -> list[str]:
        """The corpora that it prepares, by the names of its tasks."""
        words = [name.split() for name in task_names(self.documents[0]).values()]
        return sorted({word[1] for word in words if word[0] == "prepare"})


def compiled(pipeline: Callable, name: str, folder: Path) -> Package:
    """Compile a pipeline into a folder."""
    path = folder / f"{name}.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return Package(path, name)


def task_names(spec: dict) -> dict[str, str]:
    """Step of a compiled pipeline -> what it is called, over all nested graphs."""
    return {key: task.get("taskInfo", {}).get("name", key) for key, task in _tasks(spec)}


def _tasks(spec: dict) -> Iterator[tuple[str, dict]]:
    """The tasks that run a container."""
    components = spec.get("components", {})
    for part in (spec.get("root", {}), *components.values()):
        for key, task in part.get("dag", {}).get("tasks", {}).items():
            if "executorLabel" in components.get(task["componentRef"]["name"], {}):
                yield key, task


def parameters(package: Package, given: list[str]) -> dict[str, Any]:
    """`name=value` texts as parameters of the pipeline.

    Raises DiffseError that names all mistakes: unknown names, values of another type, missing ones.
    """
    inputs = package.documents[0].get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    values: dict[str, Any] = {}
    wrong = []
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in inputs:
            wrong.append(
                f"'{text}' names no parameter (there: {', '.join(inputs) or 'none'}; write name=value)"
            )
            continue
        try:
            values[name] = _typed(value, inputs[name]["parameterType"])
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    for name, entry in inputs.items():
        optional = entry.get("isOptional") or "defaultValue" in entry
        if not optional and name not in values and not any(text.startswith(f"{name}=") for text in given):
            wrong.append(f"'{name}' is missing: --parameter {name}=...")
    if wrong:
        raise DiffseError("; ".join(wrong))
    return values


def _typed(text: str, kind: str) -> Any:
    allowed, plain = TYPES[kind]
    if str in allowed:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ValueError(f"is '{text}'; {plain} is needed")
    return value
