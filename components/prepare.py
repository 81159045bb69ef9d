"""Kubeflow component of `diffse prepare`."""

from kfp import dsl

from components import component


@component
def prepare(workspace: str, corpus: str, settings: str, mixtures: dsl.OutputPath(str)):
    """Mix or collect the pairs of a corpus.

    Args:
        workspace: project folder (with params.yaml and sources/) on a volume that all steps share.
        corpus: name under `prepare` in params.yaml.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the prepared pairs.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "diffse", "prepare", corpus]
    command += ["--params", f"{workspace}/params.yaml", "--settings", settings]
    subprocess.run([*command, "--write-reference", mixtures], check=True)
