"""What the steps ask of a cluster, apart from the graph: image, volumes, processors, GPUs, secrets, deadlines.

The defaults suit a cluster with one GPU a node; a YAML file with the same keys (`--placement FILE`) changes
what it names. kfp's local runner needs none of this.
"""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path

from kfp import dsl, kubernetes

from diffse.errors import DiffseError
from diffse.handover import PROCESSES
from diffse.settings_reader import build, read_yaml

QUANTITY = re.compile(r"\d+(\.\d+)?([mkKMGTP]i?)?")
SECRET_NAME = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)
RUN_LABEL = "metadata.labels['pipeline/runid']"  # which Kubeflow puts on every pod of a run


@dataclass(frozen=True)
class Resources:
    """One kind of step."""

    cpu: str = "4"  # request and limit, as Kubernetes writes them
    memory: str = "16Gi"
    gpus: int = 0  # of one node; a training with several is divided among as many processes
    hours: float = 4.0  # the cluster ends the step after this long
    retries: int = 2  # for lost nodes; every step is safe to repeat
    shared_memory: str = ""  # /dev/shm, in which data loaders hand over batches; "": the node's 64 MB
    nodes: dict[str, str] = field(default_factory=dict)  # labels of the nodes for this kind of step alone


@dataclass(frozen=True)
class Toleration:
    """A taint that the step may ignore."""

    key: str
    operator: str = "Exists"
    effect: str = "NoSchedule"
    value: str = ""  # with operator Equal


@dataclass(frozen=True)
class Placement:
    """All steps."""

    image: str = ""  # "": the one named in components/__init__.py; a digest makes caching exact
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()  # names of secrets with the registry's password
    run_as_user: int = 1000  # the image's user; the cluster refuses root

    volume_claim: str = "diffse-workspace"  # an existing claim that all nodes can mount (ReadWriteMany)
    mount_path: str = "/workspace"
    scratch: str = "20Gi"  # /tmp of each step, on the node's disk; the image's own file system is read-only
    pipeline_root: str = ""  # s3://... for the artifacts that Kubeflow shows; "": the cluster's default

    s3_secret: str = ""  # name of a secret with credentials for sources and recordings on S3
    s3_keys: dict[str, str] = field(  # its keys -> the variables that they become
        default_factory=lambda: {
            "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
        }
    )
    environment: dict[str, str] = field(default_factory=dict)  # AWS_ENDPOINT_URL, DIFFSE_RUNS...; no secrets

    nodes: dict[str, str] = field(default_factory=dict)  # labels of the nodes of all steps
    tolerations: tuple[Toleration, ...] = ()
    accelerator: str = "nvidia.com/gpu"  # the resource that the device plugin offers
    gpu_nodes: dict[str, str] = field(default_factory=dict)  # labels of the nodes with GPUs
    gpu_tolerations: tuple[Toleration, ...] = (Toleration("nvidia.com/gpu"),)

    labels: dict[str, str] = field(default_factory=lambda: {"app.kubernetes.io/part-of": "diffse"})
    namespace: str = ""  # where runs are started; "": the cluster's default
    service_account: str = ""  # of the steps; "": the cluster's default

    retry_wait: str = "60s"  # before the first retry
    retry_factor: float = 2.0  # each further wait is this much longer,
    retry_longest: str = "900s"  # up to this

    prepare: Resources = Resources(cpu="8")
    check: Resources = Resources(cpu="2", hours=1.0, retries=0)  # a broken rule stays broken
    cache: Resources = Resources()
    estimate: Resources = Resources(cpu="2", hours=1.0)
    train: Resources = Resources(cpu="8", memory="64Gi", gpus=1, hours=168.0, retries=5, shared_memory="16Gi")
    enhance: Resources = Resources(cpu="8", memory="32Gi", gpus=1, hours=24.0)
    enhance_external: Resources = Resources(cpu="8", memory="32Gi", hours=24.0)  # files, or others' programs
    enhance_files: Resources = Resources(cpu="8", memory="32Gi", gpus=1, hours=24.0)
    evaluate: Resources = Resources(cpu="16", memory="32Gi")
    sweep: Resources = Resources(cpu="8", memory="32Gi", gpus=1, hours=24.0)
    swap: Resources = Resources(cpu="8", memory="32Gi", gpus=1, hours=24.0)
    report: Resources = Resources(cpu="2", hours=1.0)
    conclude: Resources = Resources(cpu="1", memory="1Gi", hours=0.5)


def load(path: Path | None) -> Placement:
    """The defaults, or those with the changes of a YAML file. Raises DiffseError with file, line and key."""
    placement = Placement() if path is None else build(Placement, read_yaml(path))
    for key, complaint in _complaints(placement):
        raise DiffseError(f"{path}: {key} {complaint}")
    return placement


def _complaints(placement: Placement) -> list[tuple[str, str]]:
    """(key, what is wrong) of values that no cluster takes, or that would show a secret."""
    found = []
    for entry in fields(placement):
        wants = getattr(placement, entry.name)
        if isinstance(wants, Resources):
            found += [(f"{entry.name}.{key}", text) for key, text in _wrong_resources(wants)]
    for name in ("retry_wait", "retry_longest"):
        if not re.fullmatch(r"\d+s", getattr(placement, name)):
            found.append((name, f"is '{getattr(placement, name)}'; write seconds, for example 60s"))
    for name in placement.environment:
        if SECRET_NAME.search(name):
            found.append((f"environment.{name}", "would stand in the pipeline for all to read; use s3_secret"))
    if placement.scratch and not QUANTITY.fullmatch(placement.scratch):
        found.append(("scratch", f"is '{placement.scratch}'; write it as Kubernetes does, for example 20Gi"))
    if placement.run_as_user == 0:
        found.append(("run_as_user", "is 0 (root); the image's user is 1000"))
    return found


def _wrong_resources(wants: Resources) -> list[tuple[str, str]]:
    found = []
    for key in ("cpu", "memory", "shared_memory"):
        value = getattr(wants, key)
        if not QUANTITY.fullmatch(value) and not (key == "shared_memory" and not value):
            found.append((key, f"is '{value}'; write it as Kubernetes does, for example 4 or 16Gi"))
    for key, least in (("gpus", 0), ("retries", 0), ("hours", 0.01)):
        if getattr(wants, key) < least:
            found.append((key, f"is {getattr(wants, key)}; the least is {least}"))
    return found


# ------------------------------------------------------------------------------------------- one task


def apply(task: dsl.PipelineTask, kind: str, placement: Placement) -> None:
    """Give a task the resources of its kind (a component's name) and the settings of all tasks."""
    wants: Resources = getattr(placement, kind)
    task.set_cpu_request(wants.cpu).set_cpu_limit(wants.cpu)
    task.set_memory_request(wants.memory).set_memory_limit(wants.memory)
    if wants.retries:
        task.set_retry(wants.retries, placement.retry_wait, placement.retry_factor, placement.retry_longest)
    kubernetes.set_timeout(task, round(wants.hours * 3600))
    _apply_image(task, placement)
    _apply_environment(task, placement)
    _apply_volumes(task, wants, placement)
    _apply_nodes(task, wants, placement)


def _apply_image(task: dsl.PipelineTask, placement: Placement) -> None:
    if placement.image:
        task.set_container_image(placement.image)
    kubernetes.set_image_pull_policy(task, placement.image_pull_policy)
    if placement.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(placement.image_pull_secrets))
    kubernetes.set_security_context(task, run_as_user=placement.run_as_user, run_as_non_root=True)
    for key, value in placement.labels.items():
        kubernetes.add_pod_label(task, key, value)


def _apply_environment(task: dsl.PipelineTask, placement: Placement) -> None:
    task.set_env_variable("DIFFSE_RUNNER", "kubeflow")
    kubernetes.use_field_path_as_env(task, "DIFFSE_PIPELINE_RUN", RUN_LABEL)
    for name, value in placement.environment.items():
        task.set_env_variable(name, value)
    if placement.s3_secret:
        kubernetes.use_secret_as_env(task, placement.s3_secret, dict(placement.s3_keys))


def _apply_volumes(task: dsl.PipelineTask, wants: Resources, placement: Placement) -> None:
    if placement.volume_claim:
        kubernetes.mount_pvc(task, pvc_name=placement.volume_claim, mount_path=placement.mount_path)
    if placement.scratch:
        kubernetes.empty_dir_mount(task, "scratch", "/tmp", size_limit=placement.scratch)
    if wants.shared_memory:
        size = wants.shared_memory
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=size)


def _apply_nodes(task: dsl.PipelineTask, wants: Resources, placement: Placement) -> None:
    labels, taints = placement.nodes | wants.nodes, placement.tolerations
    if wants.gpus:
        labels, taints = placement.nodes | placement.gpu_nodes | wants.nodes, taints + placement.gpu_tolerations
        task.set_accelerator_type(placement.accelerator).set_accelerator_limit(wants.gpus)
    if wants.gpus > 1:
        task.set_env_variable(PROCESSES, str(wants.gpus))
    for label, value in labels.items():
        kubernetes.add_node_selector(task, label, value)
    for taint in taints:
        kubernetes.add_toleration(task, taint.key, taint.operator, taint.value or None, taint.effect)
