"""`diffse import`: make a checkpoint of diffse from a published one."""

import argparse
import sys
from pathlib import Path

from diffse.commands.project import RECORD, add_params, recorded
from diffse.endings import user_errors

HELP = "make a checkpoint of diffse from a published one, without running what is in it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the published checkpoint")
    parser.add_argument(
        "folder", type=Path, help="checkpoint folder to write, for example models/<system>/best"
    )
    parser.add_argument(
        "--kind", metavar="K", help="sgmse, storm, edm2se or udiffse (default: what it looks like)"
    )
    parser.add_argument("--name", metavar="RECIPE", help="name of the recipe (default: the file's name)")
    add_params(parser, RECORD)


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Import; the return value is the exit code."""
    from diffse import importers

    with recorded(args, args.name or args.file.stem, argv) as run, user_errors():
        run["result"] = found = importers.run(args.file, args.folder, args.kind, args.name)
    for warning in found["warnings"]:
        print(f"diffse: {args.file}: {warning}", file=sys.stderr)
    print(f"{found['kind']} as {found['folder']}: {found['parameters']:,} parameters; {found['settings']}")
    return 0
