"""Kubeflow component of `diffse check`."""

from kfp import dsl

from components import component


@component
def check(workspace: str, artifact: str, names: list, settings: str, judged: str, passed: dsl.OutputPath(str)):
    """Judge an artifact by the rules of its gate; a broken rule fails the step.

    Args:
        workspace: project folder (with params.yaml) on a volume that all steps share.
        artifact: mixtures, cache, checkpoint, enhanced or metrics.
        names: corpus, system, or system and corpus.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        judged: reference of the artifact.
        passed: the same reference, once the artifact has passed.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "diffse", "check", artifact, *names]
    command += ["--params", f"{workspace}/params.yaml", "--settings", settings, "--needs", judged]
    subprocess.run([*command, "--write-reference", passed], check=True)
