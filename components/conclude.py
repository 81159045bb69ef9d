"""Kubeflow component of `diffse conclude`, the exit handler of every pipeline."""

from kfp import dsl

from components import component


@component
def conclude(
    workspace: str, pipeline: str, status: dsl.PipelineTaskFinalStatus, outcome: dsl.Output[dsl.Markdown]
):
    """Record how a pipeline ended, also when it failed.

    Args:
        workspace: project folder (with params.yaml), shared by all steps: on a volume, or s3://...
        pipeline: name of the pipeline.
        status: how it ended, from Kubeflow.
        outcome: the same with what each failed step said, shown by Kubeflow.
    """
    from diffse import handover

    handover.conclude(workspace, pipeline, status.state, status.error_message or "", outcome)
