"""`diffse data get`: one tracked file as it was at a git revision, straight from the remote."""

import argparse
from pathlib import Path

HELP = "write one tracked file as it was at a git revision, read straight from the remote if need be"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which file, and where to."""
    parser.add_argument("revision", metavar="REV", help="a git revision: commit, tag or branch")
    parser.add_argument(
        "path", metavar="PATH", help="the file, for example data/demo/mixtures/manifest.parquet"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write")


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Write the file."""
    from diffse import versions

    size = versions.copy(args.params.parent, args.revision, args.path, args.out)
    print(f"{args.out}: {args.path} at {args.revision}, {size:,} bytes")
    return 0
