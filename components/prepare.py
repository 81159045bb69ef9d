"""Kubeflow component of `diffse prepare`."""

from kfp import dsl

from components import component


@component
def prepare(
    workspace: str,
    corpus: str,
    settings: str,
    mixtures: dsl.OutputPath(str),
    product: dsl.Output[dsl.Dataset],
    facts: dsl.Output[dsl.Metrics],
):
    """Mix or collect the pairs of a corpus.

    Args:
        workspace: project folder (with params.yaml and sources/), shared by all steps: on a volume, or s3://...
        corpus: name under `prepare` in params.yaml.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the prepared pairs.
        product: what it is, with its reference, for the page of the step.
        facts: its counts and levels, shown by Kubeflow.
    """
    from diffse import handover

    handover.run(["prepare", corpus], workspace, settings, [], mixtures, product=product, numbers=facts)
