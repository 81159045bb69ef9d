"""Kubeflow component of `diffse enhance`."""

from kfp import dsl

from components import component


@component
def enhance(
    workspace: str,
    system: str,
    corpus: str,
    settings: str,
    mixtures: str,
    checkpoint: str,
    enhanced: dsl.OutputPath(str),
    product: dsl.Output[dsl.Dataset],
    facts: dsl.Output[dsl.Metrics],
):
    """Enhance the test split of a corpus with a system.

    Args:
        workspace: project folder (with params.yaml), shared by all steps: on a volume, or s3://...
        system: <recipe>.<corpus it is trained on>.
        corpus: the corpus to enhance.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the corpus's pairs, from their gate.
        checkpoint: reference of the system, from its gate.
        enhanced: reference of the enhanced audio.
        product: what it is, with its reference, for the page of the step.
        facts: its counts and levels, shown by Kubeflow.
    """
    from diffse import handover

    handover.run(
        ["enhance", system, corpus],
        workspace,
        settings,
        [mixtures, checkpoint],
        enhanced,
        product=product,
        numbers=facts,
    )
