"""Kubeflow component of `diffse enhance` for external systems."""

from kfp import dsl

from components import component


@component
def enhance_external(
    workspace: str, system: str, corpus: str, settings: str, mixtures: str, enhanced: dsl.OutputPath(str)
):
    """Take the files of an external system, or run its program in this image.

    Args:
        workspace: project folder (with params.yaml and sources/) on a volume that all steps share.
        system: name under `external` in params.yaml.
        corpus: the corpus to enhance.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the corpus's pairs, from their gate.
        enhanced: reference of the enhanced audio.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "diffse", "enhance", system, corpus]
    command += ["--params", f"{workspace}/params.yaml", "--settings", settings, "--needs", mixtures]
    subprocess.run([*command, "--write-reference", enhanced], check=True)
