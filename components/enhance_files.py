"""Kubeflow component of `diffse enhance` for files."""

from kfp import dsl

from components import component


@component
def enhance_files(
    workspace: str,
    source: str,
    target: str,
    checkpoint: str,
    shard: str,
    options: list,
    facts: dsl.Output[dsl.Metrics],
):
    """Enhance one part of a folder or bucket. What is there already is kept, so that a retry continues.

    Args:
        workspace: project folder of all steps, on a volume or s3://...; relative places are inside it.
        source: folder of recordings, or s3://...
        target: where they go under the same names.
        checkpoint: folder of a checkpoint, for example models/<system>/best.
        shard: i/n, which of n equal parts.
        options: further words of the command, for example --steps 8.
        facts: counts and speed, shown by Kubeflow.
    """
    from diffse import handover

    command = ["enhance", source, target, "--checkpoint", checkpoint, "--shard", shard, *options]
    handover.run(command, workspace, numbers=facts)
