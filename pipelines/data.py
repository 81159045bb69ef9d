"""Data only, as a Kubeflow pipeline: mix, judge, and cache for training what params.yaml selects.

python pipelines/data.py --compile data.yaml      and --submit, --local as in full.py
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script finds the packages beside it

from pipelines import command_line
from pipelines.graph import Chain


def add_tasks(chain: Chain, _: argparse.Namespace) -> None:
    """All corpora; a cache for those that systems are trained on."""
    for corpus in dict.fromkeys((*chain.params.corpora, *chain.params.train_corpora)):
        chain.prepared(corpus)
    for corpus in chain.params.train_corpora:
        chain.cached(corpus)


PIPELINE = command_line.Pipeline(
    script="data.py",
    name="diffse-data",
    description="Mix and judge the corpora, and cache those for training.",
    add_tasks=add_tasks,
    product="data",
)

if __name__ == "__main__":
    sys.exit(command_line.main(PIPELINE))
