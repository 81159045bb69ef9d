"""What the tests of submissions share: a small project, compiled once, and the options of the front end."""

import argparse
import functools
import tempfile
from pathlib import Path

import small_project
from http_stand_in import Answer
from kfp_server import Server

from pipelines import command_line, full, submission

FULL = str(small_project.PROJECT / "pipelines" / "full.py")
PARAMS = small_project.PARAMS | {"corpora": ["near"], "recipes": ["bridge"]}
VARIABLES = ("DIFFSE_KFP_TOKEN", "DIFFSE_KFP_COOKIE", "KF_PIPELINES_ENDPOINT", "DIFFSE_RUNS")
BUSY = [
    Answer(429, {"message": "slow down"}, {"Retry-After": "7"}),
    Answer(503, text="upstream connect error"),
    Answer(500, {"message": "database is locked"}),
]


@functools.cache
def built() -> submission.Built:
    """The pipeline of `PARAMS`; compiling it takes a second."""
    folder = Path(tempfile.mkdtemp(prefix="diffse-test-"))
    small_project.write_params(folder, PARAMS)
    parser = command_line._arguments(full.PIPELINE)
    file = str(folder / "params.yaml")
    return command_line._compiled(full.PIPELINE, parser.parse_args(["--check", "--params", file]), folder)


def arguments(what: str, host: str, folder: Path, *options: str) -> argparse.Namespace:
    """Options of `full.py --submit` or `--check`."""
    parser = command_line._arguments(full.PIPELINE)
    args = parser.parse_args([what, "--host", host, "--params", str(folder / "params.yaml"), *options])
    submission.check_arguments(parser, args)
    return args


def submit(server: Server, folder: Path, built: submission.Built, *options: str) -> int:
    """`--submit` of a pipeline that is compiled already."""
    args = arguments("--submit", server.url, folder, *options)
    return submission.submit(args, lambda _: built)
