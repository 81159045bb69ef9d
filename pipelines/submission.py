"""Start a compiled pipeline on a cluster."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from kfp import compiler


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `--submit`."""
    parser.add_argument("--host", metavar="URL", help="of the Kubeflow Pipelines API")
    parser.add_argument("--experiment", default="diffse", metavar="NAME")


def submit(pipeline: Callable, args: argparse.Namespace) -> int:
    """Compile a pipeline and start it; returns the exit code."""
    from kfp import Client

    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "diffse.yaml"
        compiler.Compiler().compile(pipeline, str(package))
        run = Client(host=args.host).create_run_from_pipeline_package(
            str(package), experiment_name=args.experiment
        )
    print(f"started run {run.run_id}")
    return 0
