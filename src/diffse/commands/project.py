"""What commands share: the project that they may be called in."""

import argparse
import contextlib
from pathlib import Path

PROJECT = "settings; the project is the folder they are in (default: params.yaml)"
RECORD = "settings of a project to keep a run record in, if there is one"


def add_params(parser: argparse.ArgumentParser, text: str = PROJECT) -> None:
    """`--params`: the settings, and with them the project; RECORD for commands that need neither."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help=text)


def recorded(args: argparse.Namespace, name: str, argv: list[str]) -> contextlib.AbstractContextManager:
    """A run record, but only inside a project: nobody wants one beside their audio."""
    from diffse import runs

    if not args.params.is_file():
        return contextlib.nullcontext({})
    return runs.recorded(args.params.parent, args.verb, (name,), argv)
