"""`diffse dashboard`: a web page of runs, results and audio of a project."""

import argparse
import importlib.util
import os

from diffse.commands.project import add_params
from diffse.errors import DiffseError

HELP = "show runs, results and audio of a project in a browser; it reads only"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8501, metavar="N", help="default: 8501; 0: any free one")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: this machine alone)"
    )
    parser.add_argument(
        "--token", metavar="TOKEN",
        help="what a visitor must know; made and printed where it is needed "
        "(better than an argument: the variable DIFFSE_DASHBOARD_TOKEN)",
    )  # fmt: skip
    parser.add_argument(
        "--kubeflow", default=os.environ.get("KFP_HOST", ""), metavar="URL",
        help="show the runs of this Kubeflow Pipelines server too (default: the variable KFP_HOST)",
    )  # fmt: skip
    add_params(parser)


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Serve until Ctrl-C; the return value is the exit code."""
    if not args.params.is_file():
        raise DiffseError(f"{args.params}: no such file; run it in a project, or name its --params")
    if not 0 <= args.port <= 65535:
        raise DiffseError(f"--port {args.port}: a port is a number from 0 to 65535")
    if importlib.util.find_spec("streamlit") is None:
        raise DiffseError("the dashboard needs Streamlit; pip install 'diffse[dashboard]'")
    from diffse.dashboard import server

    server.serve(args.params.parent, args.host, args.port, args.token, args.kubeflow)
    return 0
