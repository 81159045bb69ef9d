"""Kubeflow component of `diffse conclude`, the exit handler of every pipeline."""

from kfp import dsl

from components import component


@component
def conclude(
    workspace: str, pipeline: str, status: dsl.PipelineTaskFinalStatus, outcome: dsl.Output[dsl.Markdown]
):
    """Record how a pipeline ended, also when it failed.

    Args:
        workspace: project folder (with params.yaml) on a volume that all steps share.
        pipeline: name of the pipeline.
        status: how it ended, from Kubeflow.
        outcome: the same with what each failed step said, shown by Kubeflow.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "diffse", "conclude", pipeline, "--params", f"{workspace}/params.yaml"]
    command += ["--state", status.state, f"--message={status.error_message or ''}"]
    subprocess.run([*command, "--write-text", outcome.path], check=True)
