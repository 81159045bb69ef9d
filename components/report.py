"""Kubeflow component of `diffse report`."""

from kfp import dsl

from components import component


@component
def report(
    workspace: str, settings: str, results: list, page: dsl.Output[dsl.HTML], reference: dsl.OutputPath(str)
):
    """Write the report over all results.

    Args:
        workspace: project folder (with params.yaml) on a volume that all steps share.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        results: references of all scores, from their gates.
        page: the report, one self-contained page, shown by Kubeflow.
        reference: reference of the report.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "diffse", "report", "--page", page.path]
    command += ["--params", f"{workspace}/params.yaml", "--settings", settings]
    command += [part for each in results for part in ("--needs", each)]
    subprocess.run([*command, "--write-reference", reference], check=True)
