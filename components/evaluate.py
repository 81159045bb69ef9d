"""Kubeflow component of `diffse evaluate`."""

from kfp import dsl

from components import component


@component
def evaluate(
    workspace: str,
    system: str,
    corpus: str,
    settings: str,
    mixtures: str,
    scored: str,
    results: dsl.OutputPath(str),
    scores: dsl.Output[dsl.Metrics],
):
    """Score the test split of a corpus against its clean speech.

    Args:
        workspace: project folder (with params.yaml), shared by all steps: on a volume, or s3://...
        system: <recipe>.<corpus it is trained on>, a name under `external`, or 'unprocessed' for the input.
        corpus: the corpus that was enhanced.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the corpus's pairs, from their gate.
        scored: reference of the audio to score, from its gate: the enhanced, or the pairs for 'unprocessed'.
        results: reference of the scores.
        scores: the means, shown and compared by Kubeflow.
    """
    from diffse import handover

    handover.run(["evaluate", system, corpus], workspace, settings, [mixtures, scored], results, numbers=scores)
