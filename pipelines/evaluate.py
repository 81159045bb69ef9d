"""Evaluate systems that are there already, as a Kubeflow pipeline: trained before, imported, or external.

python pipelines/evaluate.py --system m5.vbd --compile evaluate.yaml      and --submit, --local as in full.py
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script finds the packages beside it

from diffse import paths, steps
from pipelines import command_line
from pipelines.graph import Chain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which systems on which corpora."""
    command_line.add_systems(parser, "a system whose checkpoint is in models/, or one of 'external'")
    text = "a corpus to score it on (default: all of params.yaml); can be repeated"
    parser.add_argument("--corpus", action="append", metavar="NAME", help=text)


def add_tasks(chain: Chain, args: argparse.Namespace) -> None:
    """Gate of the checkpoints, then enhancement and scores beside those of the unprocessed input."""
    corpora = tuple(dict.fromkeys(args.corpus or chain.params.corpora))
    systems = tuple(dict.fromkeys(args.system))
    for corpus in corpora:
        chain.prepared(corpus)
        chain.evaluated(paths.UNPROCESSED, corpus, chain.pairs[corpus])
    for system in systems:
        if not steps.is_external(system):
            chain.found(system)
    for system in systems:
        for corpus in corpora:
            chain.evaluated(system, corpus, chain.enhanced(system, corpus))
    chain.reported()


PIPELINE = command_line.Pipeline(
    script="evaluate.py",
    name="diffse-evaluate",
    description="Score systems that are there already.",
    add_tasks=add_tasks,
    add_arguments=add_arguments,
    product="report/index.html",
)

if __name__ == "__main__":
    sys.exit(command_line.main(PIPELINE))
