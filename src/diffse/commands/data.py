"""`diffse data`: recordings and their versions.

Each sub-command is a pair of functions, its arguments and what it does; those of versions are in modules.
"""

import argparse

from diffse.commands import data_diff, data_get
from diffse.commands.project import add_params, recorded

HELP = "fetch the recordings of a corpus, say where they come from, or compare versions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (text, arguments, _) in ACTIONS.items():
        sub = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        arguments(sub)
        add_params(sub)


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Run one action; the return value is the exit code."""
    return ACTIONS[args.action][2](args, argv)


def _corpus(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", help="name of a corpus under 'prepare' in params.yaml")


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    _corpus(parser)
    parser.add_argument("--keep", action="store_true", help="keep the archives beside what was unpacked")


def _fetch(args: argparse.Namespace, argv: list[str]) -> int:
    from diffse.data import sources
    from diffse.endings import user_errors
    from diffse.settings import load

    params = load(args.params)
    with recorded(args, args.corpus, argv) as run, user_errors():
        run["result"] = found = sources.fetch(params, args.corpus, args.params.parent, args.keep)
    print(f"{args.corpus}: {found['files']} files fetched; {found['folder']} is complete")
    return 0


def _about(args: argparse.Namespace, argv: list[str]) -> int:
    from diffse import paths
    from diffse.data.corpora import registry
    from diffse.errors import DiffseError
    from diffse.settings import load

    settings = load(args.params).prepare.get(args.corpus)
    if settings is None:
        raise DiffseError(f"'{args.corpus}' has no entry under 'prepare' in {args.params}")
    print(registry.about(settings, paths.source(args.params.parent, args.corpus)))
    return 0


# action -> (help, its arguments, what it does)
ACTIONS = {
    "fetch": ("download a corpus into sources/<corpus>, or copy it from a store", _fetch_arguments, _fetch),
    "about": ("say where a corpus comes from, how it is laid out, and what is missing", _corpus, _about),
    "diff": (data_diff.HELP, data_diff.add_arguments, data_diff.run),
    "get": (data_get.HELP, data_get.add_arguments, data_get.run),
}
