"""Kubeflow component of `diffse report`."""

from kfp import dsl

from components import component


@component
def report(
    workspace: str,
    settings: str,
    results: list,
    page: dsl.Output[dsl.HTML],
    reference: dsl.OutputPath(str),
):
    """Write the report over all results.

    Args:
        workspace: project folder (with params.yaml), shared by all steps: on a volume, or s3://...
        settings: the settings that the step reads, as JSON; the step stops if params.yaml differs.
        results: references of all scores, from their gates.
        page: the report, one self-contained page, shown by Kubeflow.
        reference: reference of the report.
    """
    from diffse import handover

    handover.run(["report"], workspace, settings, results, reference, page=page)
