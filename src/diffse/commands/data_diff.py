"""`diffse data diff`: what changed in a corpus between two versions."""

import argparse
from pathlib import Path

HELP = "say in utterances, speakers, hours, SNR and level what changed between two git revisions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two revisions, and which corpus."""
    parser.add_argument(
        "before", metavar="REV1", help="a git revision, or 'workspace' for the files as they are"
    )
    parser.add_argument("after", metavar="REV2", help="the same for the later version")
    parser.add_argument("corpus", nargs="*", metavar="CORPUS", help="default: all of 'corpora' in params.yaml")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the comparison, with every id, as JSON"
    )


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Print a table for each corpus. Reads the two manifests, from DVC's cache or its remote, and no audio."""
    from diffse import settings, storage

    root = args.params.parent
    corpora = args.corpus or settings.load(args.params).corpora
    found = {corpus: _compare(root, args.before, args.after, corpus) for corpus in corpora}
    if args.json:
        storage.write_json(args.json, found)
    return 0


def _compare(root: Path, before: str, after: str, corpus: str) -> dict:
    from diffse.data import differences

    manifests = [_manifest(root, revision, corpus) for revision in (before, after)]
    difference = differences.compare(*manifests)
    print(f"{corpus}\n{differences.table(difference, (before, after))}")
    return difference.as_json()


def _manifest(root: Path, revision: str, corpus: str):
    """A corpus's manifest at a revision."""
    import tempfile

    from diffse import paths, versions
    from diffse.data import manifest

    path = paths.mixtures(Path(), corpus) / manifest.FILE
    with tempfile.TemporaryDirectory() as folder:
        versions.copy(root, revision, path.as_posix(), Path(folder) / manifest.FILE)
        return manifest.read(folder)
