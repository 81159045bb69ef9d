"""What each kind of step asks of a cluster: image, volume, processors, memory, GPUs, deadline, retries.

The defaults suit a cluster with one GPU a node; a YAML file with the same keys (`--placement FILE`) changes
what it names. kfp's local runner needs none of this.
"""

from dataclasses import dataclass, field
from pathlib import Path

from kfp import dsl, kubernetes

from diffse.settings_reader import build, read_yaml


@dataclass(frozen=True)
class Resources:
    """One kind of step."""

    cpu: str = "4"  # request and limit, as Kubernetes writes them
    memory: str = "16Gi"
    gpus: int = 0
    hours: float = 4.0  # the cluster ends the step after this long
    retries: int = 2  # for lost nodes; every step is safe to repeat
    shared_memory: str = ""  # /dev/shm, in which data loaders hand over batches; "": the node's 64 MB


@dataclass(frozen=True)
class Toleration:
    """A taint that the step may ignore."""

    key: str
    operator: str = "Exists"
    effect: str = "NoSchedule"


@dataclass(frozen=True)
class Placement:
    """All steps."""

    image: str = ""  # "": the one named in components/__init__.py; a digest makes caching exact
    image_pull_policy: str = "IfNotPresent"
    volume_claim: str = "diffse-workspace"  # an existing claim that all nodes can mount (ReadWriteMany)
    mount_path: str = "/workspace"
    accelerator: str = "nvidia.com/gpu"
    gpu_nodes: dict[str, str] = field(default_factory=dict)  # labels of the nodes with GPUs
    gpu_tolerations: tuple[Toleration, ...] = (Toleration("nvidia.com/gpu"),)
    retry_wait: str = "60s"
    prepare: Resources = Resources(cpu="8")
    check: Resources = Resources(cpu="2", hours=1.0, retries=0)  # a broken rule stays broken
    cache: Resources = Resources()
    estimate: Resources = Resources(cpu="2", hours=1.0)
    train: Resources = Resources(cpu="8", memory="64Gi", gpus=1, hours=168.0, retries=5, shared_memory="16Gi")
    enhance: Resources = Resources(cpu="8", memory="32Gi", gpus=1, hours=24.0)
    evaluate: Resources = Resources(cpu="16", memory="32Gi")
    sweep: Resources = Resources(cpu="8", memory="32Gi", gpus=1, hours=24.0)
    swap: Resources = Resources(cpu="8", memory="32Gi", gpus=1, hours=24.0)
    report: Resources = Resources(cpu="2", hours=1.0)


def load(path: Path | None) -> Placement:
    """The defaults, or those with the changes of a YAML file. Raises DiffseError with file, line and key."""
    return Placement() if path is None else build(Placement, read_yaml(path))


def apply(task: dsl.PipelineTask, verb: str, placement: Placement) -> None:
    """Give a task the resources of its verb."""
    wants: Resources = getattr(placement, verb)
    task.set_cpu_request(wants.cpu).set_cpu_limit(wants.cpu)
    task.set_memory_request(wants.memory).set_memory_limit(wants.memory)
    if placement.image:
        task.set_container_image(placement.image)
    if wants.retries:
        task.set_retry(wants.retries, backoff_duration=placement.retry_wait)
    kubernetes.set_image_pull_policy(task, placement.image_pull_policy)
    kubernetes.set_timeout(task, round(wants.hours * 3600))
    if placement.volume_claim:
        kubernetes.mount_pvc(task, pvc_name=placement.volume_claim, mount_path=placement.mount_path)
    if wants.shared_memory:
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=wants.shared_memory
        )
    if wants.gpus:
        _apply_gpus(task, wants.gpus, placement)


def _apply_gpus(task: dsl.PipelineTask, count: int, placement: Placement) -> None:
    task.set_accelerator_type(placement.accelerator).set_accelerator_limit(count)
    for label, value in placement.gpu_nodes.items():
        kubernetes.add_node_selector(task, label, value)
    for taint in placement.gpu_tolerations:
        kubernetes.add_toleration(task, taint.key, taint.operator, effect=taint.effect)
