"""Kubeflow component of `diffse check`."""

from kfp import dsl

from components import component


@component
def check(
    workspace: str,
    artifact: str,
    names: list,
    settings: str,
    judged: str,
    passed: dsl.OutputPath(str),
    verdict: dsl.Output[dsl.Markdown],
):
    """Judge an artifact by the rules of its gate; a broken rule fails the step.

    Args:
        workspace: project folder (with params.yaml), shared by all steps: on a volume, or s3://...
        artifact: mixtures, cache, checkpoint, enhanced or metrics.
        names: corpus, system, or system and corpus.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        judged: reference of the artifact.
        passed: the same reference, once the artifact has passed.
        verdict: every rule, what was observed and its limit, shown by Kubeflow.
    """
    from diffse import handover

    handover.run(["check", artifact, *names], workspace, settings, [judged], passed, text=verdict)
