"""Kubeflow component of `diffse sweep`."""

from kfp import dsl

from components import component


@component
def sweep(
    workspace: str,
    name: str,
    settings: str,
    mixtures: str,
    checkpoint: str,
    results: dsl.OutputPath(str),
    scores: dsl.Output[dsl.Metrics],
    table: dsl.Output[dsl.Markdown],
):
    """Score a system at several numbers of steps or lengths of its weights' average.

    Args:
        workspace: project folder (with params.yaml), shared by all steps: on a volume, or s3://...
        name: name under `sweeps` in params.yaml.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the corpus's pairs, from their gate.
        checkpoint: reference of the system, from its gate.
        results: reference of the scores.
        scores: the means, shown and compared by Kubeflow.
        table: the same as a table.
    """
    from diffse import handover

    handover.run(
        ["sweep", name], workspace, settings, [mixtures, checkpoint], results, numbers=scores, text=table
    )
