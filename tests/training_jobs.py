"""What tests of training jobs share: the job of a tiny system on nodes without GPUs."""

import dataclasses

from pipelines import placement as places
from pipelines import training_job

CPU = dataclasses.replace(places.Placement(), train=places.Resources(cpu="2", memory="4Gi", retries=3))


def rendered(nodes: int, workspace: str = "/workspace/diffse", placement: places.Placement = CPU) -> dict:
    """The manifest of `bridge.toy` as plain values."""
    return training_job.plain(training_job.manifest("bridge.toy", nodes, workspace, placement))


def container(job: dict) -> dict:
    """The container of one node."""
    return job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
