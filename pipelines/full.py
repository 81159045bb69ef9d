"""The whole chain as a Kubeflow pipeline: from recordings to a report over all systems and corpora.

python pipelines/full.py --compile diffse.yaml      write the pipeline for upload
python pipelines/full.py --submit --host URL        compile and start it on a cluster
python pipelines/full.py --local                    run it here, without a cluster
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script finds the packages beside it

from diffse import paths
from pipelines import command_line
from pipelines.graph import Chain


def add_tasks(chain: Chain, _: argparse.Namespace) -> None:
    """Every stage of dvc.yaml."""
    params = chain.params
    for corpus in params.corpora:
        chain.prepared(corpus)
        chain.evaluated(paths.UNPROCESSED, corpus, chain.pairs[corpus])
    for trained_on in params.train_corpora:
        chain.trained(params.recipes, trained_on)
    for system in (*chain.checkpoints, *params.externals):
        for corpus in params.corpora:
            chain.evaluated(system, corpus, chain.enhanced(system, corpus))
    for name, entry in params.sweeps.items():
        chain.swept(name, entry)
    for name, entry in params.swaps.items():
        chain.swapped(name, entry)
    chain.reported()


PIPELINE = command_line.Pipeline(
    script="full.py",
    name="diffse",
    description="From recordings to a report over all systems and corpora.",
    add_tasks=add_tasks,
    product="report/index.html",
)

if __name__ == "__main__":
    sys.exit(command_line.main(PIPELINE))
