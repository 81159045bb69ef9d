"""Kubeflow component of `diffse train`."""

from kfp import dsl

from components import component


@component
def train(
    workspace: str,
    system: str,
    settings: str,
    mixtures: str,
    spectrograms: str,
    statistics: str,
    checkpoint: dsl.OutputPath(str),
    model: dsl.Output[dsl.Model],
    progress: dsl.Output[dsl.Metrics],
):
    """Train a system. After a lost node a retry continues where the last state was written.

    Args:
        workspace: project folder (with params.yaml), shared by all steps: on a volume, or s3://...
        system: <recipe>.<corpus it is trained on>.
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        mixtures: reference of the corpus's pairs, from their gate.
        spectrograms: reference of the corpus's cache, from its gate.
        statistics: reference of the corpus's levels.
        checkpoint: reference of the trained system.
        model: what it is, with its reference, for the page of the step.
        progress: steps and best validation scores, shown and compared by Kubeflow.
    """
    from diffse import handover

    handover.run(
        ["train", system],
        workspace,
        settings,
        [mixtures, spectrograms, statistics],
        checkpoint,
        product=model,
        numbers=progress,
    )
