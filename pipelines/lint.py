"""What must hold for a compiled pipeline beyond being well-formed: checked whenever one is compiled.

The document is read back as a cluster would read it, so that a mistake in the graph, in the placement or in
kfp itself is found here rather than hours into a run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffse.errors import DiffseError
from pipelines.placement import SECRET_NAME

DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{16}|://[^/\s@]+:[^/\s@]+@|-----BEGIN")
ON_GPU = {"train", "enhance", "enhance-external", "enhance-files", "sweep", "swap"}  # they run networks
SEEN = {"prepare", "check", "enhance-external", "enhance-files", "evaluate", "report", "conclude"}  # not cached
ONCE = {"check"}  # a broken rule stays broken


@dataclass(frozen=True)
class Task:
    """One task of the compiled pipeline, with what the three parts of the document say about it."""

    name: str
    component: str  # train, enhance-external, ...
    spec: dict[str, Any]
    container: dict[str, Any]
    platform: dict[str, Any]


def check(file: Path, name: Path, *, release: bool = False) -> None:
    """Refuse a compiled pipeline with findings (DiffseError, one line each); `name` is what to call it."""
    found = findings(list(yaml.load_all(file.read_text(encoding="utf-8"), yaml.CSafeLoader)), release=release)
    if found:
        raise DiffseError("\n".join(f"{name}: {finding}" for finding in found))


def findings(documents: list[dict[str, Any]], *, release: bool = False) -> list[str]:
    """Every broken rule as a line that names the task. `release`: images must be named by their digest."""
    found = list(_malformed(documents))
    if found:
        return found
    for rule in (_gpu, _limits, _deadline, _secrets, _shared_memory, _retries, _caching, _inputs, _user):
        found += [f"{task.name}: {text}" for task in tasks(documents) for text in rule(task)]
    return found + list(_images(tasks(documents), release)) + list(_graph(documents[0]))


def tasks(documents: list[dict[str, Any]]) -> list[Task]:
    """All tasks that run a container, wherever in the graph they are."""
    spec = documents[0]
    platform = documents[1] if len(documents) > 1 else {}
    more = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    found = []
    for name, task in all_tasks(spec):
        label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
        if label:
            container = spec["deploymentSpec"]["executors"][label]["container"]
            component = re.sub(r"-\d+$", "", label.removeprefix("exec-"))
            found.append(Task(name, component, task, container, more.get(label, {})))
    return found


def all_tasks(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, task) of the whole graph, groups of tasks too."""
    for dag in (spec["root"], *spec["components"].values()):
        yield from dag.get("dag", {}).get("tasks", {}).items()


# ------------------------------------------------------------------------------------------------ rules


def _malformed(documents: list[dict[str, Any]]) -> Iterator[str]:
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())  # unknown fields are errors
        for task in tasks(documents):
            config = kubernetes_executor_config_pb2.KubernetesExecutorConfig()
            json_format.ParseDict(task.platform, config)
    except (json_format.ParseError, KeyError, IndexError) as error:
        yield f"not a pipeline that Kubeflow reads: {' '.join(str(error).split())}"


def _gpu(task: Task) -> Iterator[str]:
    accelerator = task.container.get("resources", {}).get("accelerator")
    if accelerator and task.component not in ON_GPU:
        yield "asks for a GPU, but runs no network"
    if accelerator and not int(accelerator.get("resourceCount", accelerator.get("count", 0))) > 0:
        yield "names an accelerator, but asks for none"


def _limits(task: Task) -> Iterator[str]:
    resources = task.container.get("resources", {})
    for name in ("Cpu", "Memory"):
        if not resources.get(f"resource{name}Limit") or not resources.get(f"resource{name}Request"):
            yield f"has no {name.lower()} request and limit"


def _deadline(task: Task) -> Iterator[str]:
    if int(task.platform.get("activeDeadlineSeconds", 0)) <= 0:
        yield "has no deadline"


def _secrets(task: Task) -> Iterator[str]:
    for variable in task.container.get("env", []):
        if SECRET_NAME.search(variable["name"]) or SECRET_VALUE.search(str(variable.get("value", ""))):
            yield f"carries {variable['name']} in plain sight; take it from a secret"
    for name, value in _constants(task):
        if SECRET_VALUE.search(str(value)):
            yield f"carries a secret in its input '{name}'; take it from a secret"


def _shared_memory(task: Task) -> Iterator[str]:
    mounts = {mount["mountPath"]: mount for mount in task.platform.get("emptyDirMounts", [])}
    memory = mounts.get("/dev/shm", {})
    if task.component == "train" and (memory.get("medium") != "Memory" or not memory.get("sizeLimit")):
        yield "has no shared memory of a stated size; its data loaders would die with a bus error"


def _retries(task: Task) -> Iterator[str]:
    count = int(task.spec.get("retryPolicy", {}).get("maxRetryCount", 0))
    if count and task.component in ONCE:
        yield "is repeated, although a broken rule stays broken"
    if not count and task.component not in ONCE:
        yield "is not repeated after a lost node"


def _caching(task: Task) -> Iterator[str]:
    if task.spec.get("cachingOptions", {}).get("enableCache") and task.component in SEEN:
        yield "may be answered from Kubeflow's cache, which cannot know all that it reads"


def _inputs(task: Task) -> Iterator[str]:
    for name, value in _constants(task):
        numbers = [v for v in _leaves(value) if isinstance(v, int | float) and not isinstance(v, bool)]
        if isinstance(value, list | dict) and numbers:
            yield f"has numbers in its input '{name}', whose integers would arrive as fractions; pass JSON text"


def _user(task: Task) -> Iterator[str]:
    context = task.platform.get("securityContext", {})
    if not context.get("runAsNonRoot") or not int(context.get("runAsUser", 0)):
        yield "may run as root"


def _images(found: list[Task], release: bool) -> Iterator[str]:
    for image in dict.fromkeys(task.container["image"] for task in found):
        tag = image.rpartition("/")[2].partition(":")[2]
        if release and not DIGEST.fullmatch(image):
            yield f"the content of the image '{image}' can change; name it by its digest (...@sha256:...)"
        elif not DIGEST.fullmatch(image) and tag in ("", "latest"):
            yield f"the image '{image}' is another one tomorrow; give it a version"


def _graph(spec: dict[str, Any]) -> Iterator[str]:
    for name, task in all_tasks(spec):
        if "parameterIterator" in task or "artifactIterator" in task:
            yield f"{name}: is a loop, which runs two at a time in kfp's local runner; add a task for each item"
        if task.get("triggerPolicy", {}).get("condition"):
            yield f"{name}: hangs on a condition, which a quote in a text turns false; let a gate fail"
    endings = [task.get("triggerPolicy", {}).get("strategy") for task in spec["root"]["dag"]["tasks"].values()]
    if "ALL_UPSTREAM_TASKS_COMPLETED" not in endings:
        yield "nothing records how the pipeline ends"


def _constants(task: Task) -> Iterator[tuple[str, Any]]:
    for name, given in task.spec.get("inputs", {}).get("parameters", {}).items():
        if "constant" in given.get("runtimeValue", {}):
            yield name, given["runtimeValue"]["constant"]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    else:
        yield value
