"""Kubeflow component of `diffse estimate`."""

from kfp import dsl

from components import component


@component
def estimate(
    workspace: str,
    corpus: str,
    settings: str,
    spectrograms: str,
    statistics: dsl.OutputPath(str),
    product: dsl.Output[dsl.Dataset],
    facts: dsl.Output[dsl.Metrics],
):
    """Measure the levels of a corpus that some objectives need.

    Args:
        workspace: project folder (with params.yaml), shared by all steps: on a volume, or s3://...
        corpus: name under `prepare` in params.yaml.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        spectrograms: reference of the corpus's cache, from its gate.
        statistics: reference of the levels.
        product: what it is, with its reference, for the page of the step.
        facts: its counts and levels, shown by Kubeflow.
    """
    from diffse import handover

    handover.run(
        ["estimate", corpus], workspace, settings, [spectrograms], statistics, product=product, numbers=facts
    )
