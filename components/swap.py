"""Kubeflow component of `diffse swap`."""

from kfp import dsl

from components import component


@component
def swap(
    workspace: str,
    name: str,
    settings: str,
    mixtures: str,
    checkpoint: str,
    predictor: str,
    results: dsl.OutputPath(str),
    scores: dsl.Output[dsl.Metrics],
    table: dsl.Output[dsl.Markdown],
):
    """Score a StoRM system with the predictor of another system.

    Args:
        workspace: project folder (with params.yaml), shared by all steps: on a volume, or s3://...
        name: name under `swaps` in params.yaml.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the corpus's pairs, from their gate.
        checkpoint: reference of the StoRM system, from its gate.
        predictor: reference of the other system, from its gate.
        results: reference of the scores.
        scores: the means, shown and compared by Kubeflow.
        table: the same as a table.
    """
    from diffse import handover

    handover.run(
        ["swap", name],
        workspace,
        settings,
        [mixtures, checkpoint, predictor],
        results,
        numbers=scores,
        text=table,
    )
