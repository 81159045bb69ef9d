"""Enhance a folder or bucket, as a Kubeflow pipeline: its files are divided among pods.

python pipelines/enhance.py recordings enhanced --checkpoint models/m5.vbd/best --shards 8 --submit --host URL
python pipelines/enhance.py s3://bucket/in s3://bucket/out --checkpoint models/m5.vbd/best --compile FILE
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script finds the packages beside it

from diffse.errors import DiffseError
from pipelines import command_line
from pipelines.graph import Chain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to enhance, and with what. Places that are not absolute are in the workspace."""
    parser.add_argument("source", help="folder of recordings, or s3://...")
    parser.add_argument("target", help="where they go, under the same names")
    parser.add_argument("--checkpoint", required=True, metavar="FOLDER", help="models/<system>/best")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="pods that share the files")
    parser.add_argument("--steps", type=int, metavar="N", help="sampler steps (default: the checkpoint's)")
    parser.add_argument("--seed", type=int, metavar="S", help="seed of the noise (default: the checkpoint's)")


def add_tasks(chain: Chain, args: argparse.Namespace) -> None:
    """One task per shard."""
    if args.shards < 1:
        raise DiffseError(f"--shards is {args.shards}; the least is 1")
    given = {"--steps": args.steps, "--seed": args.seed}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    for part in range(1, args.shards + 1):
        shard = f"{part}/{args.shards}"
        chain.enhanced_files(args.source, args.target, args.checkpoint, shard, options)


PIPELINE = command_line.Pipeline(
    script="enhance.py",
    name="diffse-enhance",
    description="Enhance a folder or bucket of recordings.",
    add_tasks=add_tasks,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(command_line.main(PIPELINE))
