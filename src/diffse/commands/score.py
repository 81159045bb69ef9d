"""`diffse score`: score a folder of enhanced files, whoever has made them."""

import argparse
from pathlib import Path

from diffse.commands.project import RECORD, add_params, recorded
from diffse.endings import user_errors
from diffse.errors import DiffseError

HELP = "score a folder of enhanced files against a folder of clean ones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clean", type=Path, help="folder of clean files (wav, flac, ogg)")
    parser.add_argument("enhanced", type=Path, help="folder of enhanced files of the same names")
    parser.add_argument("--noisy", type=Path, metavar="FOLDER", help="noisy files, for SI-SIR and SI-SAR")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write per_file.csv and summary.json there")
    parser.add_argument(
        "--metrics", nargs="+", metavar="M", help="metrics (default: those of the settings; docs/metrics.md)"
    )
    parser.add_argument("--trim", action="store_true", help="cut the signals of a pair to the shortest of them")
    parser.add_argument(
        "--texts", metavar="FILE", help="lines of '<name> <transcript>', for the word error rate"
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="weights of nisqa, wvmos, squim, ...",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--no-cache", action="store_true", help="score again what was scored before")
    add_params(parser, RECORD)


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Score; the return value is the exit code."""
    from diffse.metrics import folders

    with recorded(args, args.enhanced.name, argv) as record, user_errors():
        chosen = folders.Folders(args.clean, args.enhanced, args.noisy, args.trim)
        options = _settings(args)
        found = folders.run(chosen, options, args.out, args.params.parent)
        means = {name: entry["mean"] for name, entry in found["metrics"].items()}
        record["result"] = {"files": found["files"], "means": means, "warnings": found["warnings"]}
    print(_table(found, options.confidence))
    if args.out is not None:
        print(f"\nper file: {args.out / 'per_file.csv'}")
    return 0


def _settings(args: argparse.Namespace):
    """Block `evaluate` of the project, if there is one, with what the command line changes."""
    import dataclasses

    from diffse import settings

    base = settings.load(args.params).evaluate if args.params.is_file() else settings.Evaluate()
    changes = {"weights": base.weights | dict(map(_weights, args.weights))}
    if args.metrics:
        changes["metrics"] = tuple(name for text in args.metrics for name in text.split(","))
    elif args.noisy is None:
        changes["metrics"] = tuple(name for name in base.metrics if name not in ("si_sir", "si_sar"))
    if args.texts is not None:
        changes["texts"] = str(Path(args.texts).absolute())
    if args.processes is not None:
        if args.processes < 0:
            raise DiffseError(f"--processes is {args.processes}; give how many, or 0 for one per core")
        changes["processes"] = args.processes
    return dataclasses.replace(base, **changes, cache=base.cache and not args.no_cache)


def _weights(text: str):
    from diffse import settings

    name, separator, file = text.partition("=")
    if not (separator and file):
        raise DiffseError(f"--weights {text}: write NAME=FILE, for example nisqa=nisqa.tar")
    return name, settings.Weights(file=str(Path(file).absolute()))


def _table(found: dict, confidence: float) -> str:
    """Mean, interval and number of files of every metric, as lines of text."""
    title = f"{confidence:.0%} interval"
    lines = [f"{'metric':<14} {'mean':>9}  {title:<19} {'files':>6}  version"]
    for name, entry in found["metrics"].items():
        numbers = [f"{entry[part]:.3f}" if entry[part] is not None else "-" for part in ("mean", "low", "high")]
        interval = f"{numbers[1]} to {numbers[2]}"
        count = f"{entry['n']}" + (f" (-{entry['missing']})" if entry["missing"] else "")
        lines.append(f"{name:<14} {numbers[0]:>9}  {interval:<19} {count:>6}  {entry['version']}")
    return "\n".join(lines)
