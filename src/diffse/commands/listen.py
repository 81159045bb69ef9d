"""`diffse listen export` and `diffse listen import`: a MUSHRA test for webMUSHRA, and its ratings."""

import argparse
from pathlib import Path

from diffse.commands.project import add_params, recorded
from diffse.endings import user_errors

HELP = "export a listening test for webMUSHRA, or import its ratings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = actions.add_parser("export", help="write stimuli, configuration and key of a test")
    export.add_argument("folder", type=Path, help="new folder for the test")
    export.add_argument("--corpus", required=True, metavar="C", help="one of the corpora selected")
    export.add_argument("--name", default="mushra", metavar="N", help="name of the test (default: mushra)")
    export.add_argument("--systems", metavar="A,B", help="systems to hear (default: all that are selected)")
    export.add_argument("--files", type=int, default=10, metavar="N", help="files to rate (default: 10)")
    export.add_argument("--seconds", type=float, default=12.0, metavar="S", help="longest excerpt, at most 12")
    export.add_argument("--seed", type=int, default=0, metavar="S", help="of the selection (default: 0)")
    export.add_argument("--no-training", action="store_true", help="no trial for practice before the test")
    bring = actions.add_parser("import", help="read webMUSHRA's ratings into results/listening")
    bring.add_argument("results", type=Path, metavar="CSV", help="mushra.csv, as webMUSHRA wrote it")
    bring.add_argument("--test", type=Path, required=True, metavar="FOLDER", help="the folder of the export")
    for one in (export, bring):
        add_params(one)


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Export or import; the return value is the exit code."""
    from diffse import settings

    params, root = settings.load(args.params), args.params.parent
    name = args.name if args.action == "export" else args.test.name
    with recorded(args, name, argv) as record, user_errors():
        if args.action == "import":
            from diffse.listening_test import results

            record["result"] = summary = results.run(params, root, args.results, args.test)
            print(results.table(summary))
            return 0
        from diffse.listening_test import export

        wanted = export.Wanted(
            corpus=args.corpus,
            name=args.name,
            systems=tuple(filter(None, (args.systems or "").split(","))),
            files=args.files,
            seed=args.seed,
            seconds=args.seconds,
            training=not args.no_training,
        )
        record["result"] = key = export.run(params, root, args.folder, wanted)
    counts = f"{len(key['trials'])} trials, {len(key['conditions'])} conditions, reference and anchor"
    print(f"{args.folder}: test {key['test_id']}, {counts}")
    print(f"copy {args.folder}/webmushra over webMUSHRA and open ?config={args.name}.yaml; keep test.json")
    return 0
