"""`diffse reproduce ROW`: run what one row of the papers' tables needs, and compare with the paper."""

import argparse
import subprocess
from pathlib import Path

from diffse.commands.project import add_params, recorded
from diffse.endings import user_errors
from diffse.errors import DiffseError

HELP = "run what one row of the papers' tables needs and compare with the paper"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("row", nargs="?", help="for example m5-vbd; without it the rows are listed")
    parser.add_argument("--dry-run", action="store_true", help="only say what would run and what is missing")
    parser.add_argument(
        "--quick", action="store_true",
        help="the small form, on the built-in corpus if need be; its scores cannot be compared",
    )  # fmt: skip
    add_params(parser)


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Show the plan, run it, compare; the return value is the exit code, 1 where a score is off."""
    from diffse import reproduction, settings
    from diffse.report import papers

    if args.row is None:
        print("\n".join(_listed(row) for row in papers.rows().values()))
        return 0
    row = papers.find(args.row)
    params, root = settings.load(args.params), args.params.parent
    found = reproduction.plan(row, params, root, args.quick)
    commands = reproduction.commands(found, args.params)
    print("\n".join(_described(found, commands)))
    if args.dry_run:
        return 0
    if found.missing:
        raise DiffseError(f"{row.name}: {len(found.missing)} missing, see above; nothing was run")
    with recorded(args, row.name, argv) as record, user_errors():
        for command in commands:
            if subprocess.run(command, cwd=root or Path()).returncode:
                raise DiffseError(
                    f"'{' '.join(command[2:])}' failed, see above; run the same command to continue"
                )
        lines = reproduction.outcome(found, params, root)
        record["result"] = {line.metric: line.verdict for line in lines}
    print("\n".join(_compared(line) for line in lines))
    return 1 if any(line.verdict == "off" for line in lines) else 0


def _listed(row) -> str:
    values = ", ".join(f"{name} {value}" for name, value in row.values.items())
    return f"{row.name:<38} {row.label}: {values} ({row.corpus.title})"


def _described(found, commands: list[list[str]]) -> list[str]:
    """The plan as text."""
    row = found.row
    lines = [
        f"row      {row.name}: {row.label}, {row.corpus.title}",
        f"source   {row.source}",
        *(f"paper    {name} {value}" for name, value in row.values.items()),
        f"system   {found.system}" + (", the small form: its scores are not comparable" if found.quick else ""),
        f"corpus   {found.corpus}" + (f", trained on {found.trained_on}" if found.recipe else ""),
        f"time     {found.time}",
    ]
    lines += [f"missing  {line}" for line in found.missing]
    return lines + [f"run      {_text(command)}" for command in commands]


def _text(command: list[str]) -> str:
    """A command without the interpreter."""
    return " ".join(command[2:] if command[1] == "-m" else command[1:])


def _compared(line) -> str:
    """One metric: paper, ours, difference and verdict."""
    from diffse.report.compare import metric, number, signed

    how, ours = metric(line.metric), line.ours
    mean = number(ours.mean if ours else None, how.digits)
    text = f"{how.label:<12} paper {line.paper!s:<12} ours {mean}"
    if ours is not None and ours.low is not None:
        text += f" [{number(ours.low, how.digits)}, {number(ours.high, how.digits)}]"
    if line.difference is None:
        return f"{text}  not comparable: {line.reason}"
    notes = f" ({'; '.join(line.notes)})" if line.notes else ""
    difference, tolerance = signed(line.difference, how.digits), number(line.tolerance, how.digits)
    return f"{text}  difference {difference}, tolerance {tolerance}: {line.verdict}{notes}"
