"""Kubeflow component of `diffse enhance` for external systems."""

from kfp import dsl

from components import component


@component
def enhance_external(
    workspace: str,
    system: str,
    corpus: str,
    settings: str,
    mixtures: str,
    enhanced: dsl.OutputPath(str),
    product: dsl.Output[dsl.Dataset],
    facts: dsl.Output[dsl.Metrics],
):
    """Take the files of an external system, or run its program in this image.

    Args:
        workspace: project folder (with params.yaml and sources/), shared by all steps: on a volume, or s3://...
        system: name under `external` in params.yaml.
        corpus: the corpus to enhance.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the corpus's pairs, from their gate.
        enhanced: reference of the enhanced audio.
        product: what it is, with its reference, for the page of the step.
        facts: its counts and levels, shown by Kubeflow.
    """
    from diffse import handover

    handover.run(
        ["enhance", system, corpus], workspace, settings, [mixtures], enhanced, product=product, numbers=facts
    )
