"""Kubeflow component of `diffse cache`."""

from kfp import dsl

from components import component


@component
def cache(workspace: str, corpus: str, settings: str, mixtures: str, spectrograms: dsl.OutputPath(str)):
    """Store a corpus as compressed spectrograms for training.

    Args:
        workspace: project folder (with params.yaml) on a volume that all steps share.
        corpus: name under `prepare` in params.yaml.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the corpus's pairs, from their gate.
        spectrograms: reference of the cache.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "diffse", "cache", corpus]
    command += ["--params", f"{workspace}/params.yaml", "--settings", settings, "--needs", mixtures]
    subprocess.run([*command, "--write-reference", spectrograms], check=True)
