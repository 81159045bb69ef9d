"""Kubeflow component of `diffse estimate`."""

from kfp import dsl

from components import component


@component
def estimate(workspace: str, corpus: str, settings: str, spectrograms: str, statistics: dsl.OutputPath(str)):
    """Measure the levels of a corpus that some objectives need.

    Args:
        workspace: project folder (with params.yaml) on a volume that all steps share.
        corpus: name under `prepare` in params.yaml.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        spectrograms: reference of the corpus's cache, from its gate.
        statistics: reference of the levels.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "diffse", "estimate", corpus]
    command += ["--params", f"{workspace}/params.yaml", "--settings", settings, "--needs", spectrograms]
    subprocess.run([*command, "--write-reference", statistics], check=True)
