"""Kubeflow component of `diffse cache`."""

from kfp import dsl

from components import component


@component
def cache(
    workspace: str,
    corpus: str,
    settings: str,
    mixtures: str,
    spectrograms: dsl.OutputPath(str),
    product: dsl.Output[dsl.Dataset],
    facts: dsl.Output[dsl.Metrics],
):
    """Store a corpus as compressed spectrograms for training.

    Args:
        workspace: project folder (with params.yaml), shared by all steps: on a volume, or s3://...
        corpus: name under `prepare` in params.yaml.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the corpus's pairs, from their gate.
        spectrograms: reference of the cache.
        product: what it is, with its reference, for the page of the step.
        facts: its counts and levels, shown by Kubeflow.
    """
    from diffse import handover

    handover.run(
        ["cache", corpus], workspace, settings, [mixtures], spectrograms, product=product, numbers=facts
    )
