"""Train a system on several nodes, as a training job of Kubeflow (PyTorchJob).

python pipelines/training_job.py m5.vbd --nodes 4 --compile job.yaml     write it for kubectl
python pipelines/training_job.py m5.vbd --nodes 4 --submit --wait        start it and follow it to its end
python pipelines/training_job.py m5.vbd --nodes 4 --status               look at it

The corpus must be prepared and cached in the workspace, as `pipelines/data.py` and `train.py` do. The command
is `diffse train` under torchrun, whose first node the operator gives a name; a lost node joins again, and all
continue from the last state. The checkpoint is that of one process with the same batch.
"""

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script finds the packages beside it

import yaml
from kubeflow.training import ApiClient, models

from components import IMAGE
from diffse import objects, paths, settings, steps, storage
from diffse.endings import user_errors
from diffse.errors import DiffseError
from pipelines import placement as places
from pipelines import preflight, training_client
from pipelines.command_line import PROJECT

JOIN_SECONDS = 3600  # how long nodes wait for the others to be there
CONNECT_SECONDS = 600  # and for the first of them to answer
PORT = 29400  # of the first node, where the others report


def manifest(
    system: str, nodes: int, workspace: str, placement: places.Placement
) -> models.KubeflowOrgV1PyTorchJob:
    """The job of `diffse train <system>` on so many nodes, each with the GPUs of the placement's `train`.

    Its name depends on its content, so that the same job is not started twice.
    """
    wants = placement.train
    container = _container(system, nodes, workspace, placement)
    job = models.KubeflowOrgV1PyTorchJob(
        api_version="kubeflow.org/v1",
        kind="PyTorchJob",
        metadata=models.V1ObjectMeta(labels=dict(placement.labels)),
        spec=models.KubeflowOrgV1PyTorchJobSpec(
            run_policy=models.KubeflowOrgV1RunPolicy(
                active_deadline_seconds=round(wants.hours * 3600),
                backoff_limit=wants.retries,
                clean_pod_policy="Running",  # pods that have ended stay for their logs
            ),
            pytorch_replica_specs={
                "Worker": models.KubeflowOrgV1ReplicaSpec(
                    replicas=nodes, restart_policy="OnFailure", template=_template(container, placement)
                )
            },
        ),
    )
    job.metadata.name = name = _name(system, job)
    job.metadata.namespace = placement.namespace or None
    known = {"DIFFSE_PIPELINE_RUN": name, "PET_RDZV_ID": name, "PET_RDZV_ENDPOINT": f"{name}-worker-0:{PORT}"}
    container.env += [models.V1EnvVar(name=key, value=value) for key, value in known.items()]
    return job


def plain(job: models.KubeflowOrgV1PyTorchJob) -> dict:
    """The job as Kubernetes spells it."""
    return ApiClient().sanitize_for_serialization(job)


def _name(system: str, job: models.KubeflowOrgV1PyTorchJob) -> str:
    digest = hashlib.sha256(json.dumps(plain(job), sort_keys=True).encode()).hexdigest()[:8]
    slug = re.sub(r"[^a-z0-9]+", "-", system.lower()).strip("-")[:24].rstrip("-")
    return f"diffse-train-{slug}-{digest}"  # with '-worker-<number>' still a label of 63 characters


# ---------------------------------------------------------------------------------------------- one pod


def _container(system: str, nodes: int, workspace: str, placement: places.Placement) -> models.V1Container:
    return models.V1Container(
        name="pytorch",  # the operator looks for it
        image=placement.image or IMAGE,
        image_pull_policy=placement.image_pull_policy,
        command=_torchrun(nodes, placement.train),
        args=["train", system, "--params", f"{workspace}/params.yaml"],
        working_dir=workspace,
        env=_environment(placement),
        resources=_resources(placement),
        volume_mounts=_volumes(placement)[1],
        security_context=models.V1SecurityContext(
            allow_privilege_escalation=False, read_only_root_filesystem=bool(placement.scratch)
        ),
    )


def _torchrun(nodes: int, wants: places.Resources) -> list[str]:
    """The command before `train`. c10d is the rendezvous that a node may join again after it was lost."""
    return [
        *("python", "-m", "torch.distributed.run"),
        *(f"--nnodes={nodes}", f"--nproc-per-node={max(1, wants.gpus)}", f"--max-restarts={wants.retries}"),
        *("--rdzv-backend=c10d", f"--rdzv-conf=join_timeout={JOIN_SECONDS},read_timeout={CONNECT_SECONDS}"),
        *("--module", "diffse"),
    ]


def _template(container: models.V1Container, placement: places.Placement) -> models.V1PodTemplateSpec:
    taints = (*placement.tolerations, *(placement.gpu_tolerations if placement.train.gpus else ()))
    return models.V1PodTemplateSpec(
        metadata=models.V1ObjectMeta(labels=dict(placement.labels)),
        spec=models.V1PodSpec(
            containers=[container],
            volumes=_volumes(placement)[0],
            node_selector=_nodes(placement) or None,
            tolerations=[_toleration(taint) for taint in taints] or None,
            service_account_name=placement.service_account or None,
            image_pull_secrets=[models.V1LocalObjectReference(name=n) for n in placement.image_pull_secrets]
            or None,
            security_context=models.V1PodSecurityContext(
                run_as_non_root=True, run_as_user=placement.run_as_user
            ),
        ),
    )


def _nodes(placement: places.Placement) -> dict[str, str]:
    labels = dict(placement.nodes)
    if placement.train.gpus:
        labels |= placement.gpu_nodes
    return labels | placement.train.nodes


def _toleration(taint: places.Toleration) -> models.V1Toleration:
    return models.V1Toleration(
        key=taint.key, operator=taint.operator, effect=taint.effect, value=taint.value or None
    )


def _resources(placement: places.Placement) -> models.V1ResourceRequirements:
    wants = placement.train
    amounts = {"cpu": wants.cpu, "memory": wants.memory}
    if wants.gpus:
        amounts[placement.accelerator] = str(wants.gpus)
    return models.V1ResourceRequirements(requests=dict(amounts), limits=dict(amounts))


def _environment(placement: places.Placement) -> list[models.V1EnvVar]:
    address = models.V1ObjectFieldSelector(field_path="status.podIP")
    found = [
        models.V1EnvVar(name="DIFFSE_RUNNER", value="kubeflow"),
        # torchrun would give the others the pod's name, which not every cluster resolves.
        models.V1EnvVar(name="PET_LOCAL_ADDR", value_from=models.V1EnvVarSource(field_ref=address)),
        # A meeting place that is kept from one meeting to the next is not told to a node that joins later.
        models.V1EnvVar(name="TORCH_DISABLE_SHARE_RDZV_TCP_STORE", value="1"),
    ]
    found += [models.V1EnvVar(name=name, value=value) for name, value in placement.environment.items()]
    for key, name in placement.s3_keys.items() if placement.s3_secret else ():
        source = models.V1SecretKeySelector(name=placement.s3_secret, key=key)
        found.append(models.V1EnvVar(name=name, value_from=models.V1EnvVarSource(secret_key_ref=source)))
    return found


def _volumes(placement: places.Placement) -> tuple[list[models.V1Volume], list[models.V1VolumeMount]]:
    volumes, mounts = [], []
    if placement.volume_claim:
        claim = models.V1PersistentVolumeClaimVolumeSource(claim_name=placement.volume_claim)
        volumes.append(models.V1Volume(name="workspace", persistent_volume_claim=claim))
        mounts.append(models.V1VolumeMount(name="workspace", mount_path=placement.mount_path))
    shared = placement.train.shared_memory
    for name, path, size, medium in (
        ("scratch", "/tmp", placement.scratch, None),
        ("shared-memory", "/dev/shm", shared, "Memory"),
    ):
        if size:
            room = models.V1EmptyDirVolumeSource(size_limit=size, medium=medium)
            volumes.append(models.V1Volume(name=name, empty_dir=room))
            mounts.append(models.V1VolumeMount(name=name, mount_path=path))
    return volumes, mounts


# ------------------------------------------------------------------------------------------ command line


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipelines/training_job.py", description="Train a system on several nodes."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--compile", type=Path, metavar="FILE", help="write the job for 'kubectl create'")
    what.add_argument("--submit", action="store_true", help="start it, unless it is there already")
    what.add_argument("--status", action="store_true", help="show what it is doing")
    parser.add_argument("system", help="<recipe>.<corpus it is trained on>")
    parser.add_argument("--nodes", type=int, required=True, metavar="N", help="each with the GPUs of 'train'")
    parser.add_argument("--params", type=Path, default=PROJECT / "params.yaml", metavar="FILE")
    parser.add_argument("--workspace", metavar="DIR", help="project folder as the nodes see it")
    parser.add_argument("--placement", type=Path, metavar="FILE", help="changes to pipelines/placement.py")
    parser.add_argument("--namespace", metavar="NS", help="default: the placement's, or that of the context")
    parser.add_argument("--context", metavar="NAME", help="of the kube config (default: the current one)")
    parser.add_argument("--wait", action="store_true", help="follow the job; exit with 1 if it fails")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Do what the options ask for; the return value is the exit code."""
    parser = _arguments()
    args = parser.parse_args(argv)
    if args.wait and not args.submit:
        parser.error("--wait goes with --submit")
    try:
        placement = places.load(args.placement)
        job = _checked(args, placement)
        if args.compile:
            with user_errors(), storage.atomic_file(args.compile) as temporary:
                temporary.write_text(yaml.safe_dump(plain(job), sort_keys=False), encoding="utf-8")
            print(f"job {job.metadata.name} written to {args.compile}")
            return 0
        jobs = training_client.Jobs(args.namespace or placement.namespace, args.context)
        if args.status:
            return jobs.show(job.metadata.name)
        _check_image(job)
        jobs.start(job)
        return jobs.follow(job.metadata.name) if args.wait else 0
    except DiffseError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return error.exit_code


def _checked(args: argparse.Namespace, placement: places.Placement) -> models.KubeflowOrgV1PyTorchJob:
    """The job, if it can be trained as the settings say. Raises DiffseError."""
    params = settings.load(args.params)
    steps.check_names(steps.describe("train", (args.system,)), params, args.params)
    recipe, _ = paths.split_system(args.system)
    if args.nodes < 1:
        raise DiffseError(f"--nodes is {args.nodes}; the least is 1")
    processes, batch = args.nodes * max(1, placement.train.gpus), params.train[recipe].batch
    if batch % processes:
        raise DiffseError(
            f"{args.params}: train.{recipe}.batch is {batch}, which {processes} processes ({args.nodes} nodes, "
            f"{placement.train.gpus} GPUs each) cannot share equally"
        )
    workspace = args.workspace or f"{placement.mount_path}/diffse"
    if objects.is_url(workspace):
        raise DiffseError(
            f"--workspace {workspace}: the nodes of a training share one state, which needs a shared volume; "
            "pipelines/train.py trains on the GPUs of one node with a workspace on S3"
        )
    return manifest(args.system, args.nodes, workspace, placement)


def _check_image(job: models.KubeflowOrgV1PyTorchJob) -> None:
    container = job.spec.pytorch_replica_specs["Worker"].template.spec.containers[0]
    for outcome in preflight.run([preflight.images([container.image])]):
        if outcome.state == "failed":
            raise DiffseError(f"nothing was started: {outcome.text}")
        print(outcome)


if __name__ == "__main__":
    sys.exit(main())
