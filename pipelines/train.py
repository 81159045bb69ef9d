"""Train systems, as a Kubeflow pipeline: data, training and the gate of the checkpoint.

python pipelines/train.py --system m5.vbd --compile train.yaml      and --submit, --local as in full.py
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script finds the packages beside it

from diffse import paths
from pipelines import command_line
from pipelines.graph import Chain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which system."""
    command_line.add_systems(parser, "<recipe>.<corpus>")


def add_tasks(chain: Chain, args: argparse.Namespace) -> None:
    """The named systems and what they are trained on."""
    recipes: dict[str, list[str]] = {}
    for system in dict.fromkeys(args.system):
        recipe, corpus = paths.split_system(system)
        recipes.setdefault(corpus, []).append(recipe)
    for corpus, names in recipes.items():
        chain.prepared(corpus)
        chain.trained(tuple(names), corpus)


PIPELINE = command_line.Pipeline(
    script="train.py",
    name="diffse-train",
    description="Prepare a corpus and train systems on it.",
    add_tasks=add_tasks,
    add_arguments=add_arguments,
    product="models",
)

if __name__ == "__main__":
    sys.exit(command_line.main(PIPELINE))
