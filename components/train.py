"""Kubeflow component of `diffse train`."""

from kfp import dsl

from components import component


@component
def train(
    workspace: str,
    system: str,
    settings: str,
    mixtures: str,
    spectrograms: str,
    statistics: str,
    checkpoint: dsl.OutputPath(str),
):
    """Train a system. After a lost node a retry continues where the last state was written.

    Args:
        workspace: project folder (with params.yaml) on a volume that all steps share.
        system: <recipe>.<corpus it is trained on>.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the corpus's pairs, from their gate.
        spectrograms: reference of the corpus's cache, from its gate.
        statistics: reference of the corpus's levels.
        checkpoint: reference of the trained system.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "diffse", "train", system]
    command += ["--params", f"{workspace}/params.yaml", "--settings", settings]
    command += ["--needs", mixtures, "--needs", spectrograms, "--needs", statistics]
    subprocess.run([*command, "--write-reference", checkpoint], check=True)
