"""Command line: one verb per step. DVC stages and Kubeflow components call exactly this.

What a user can mend ends with one line on standard error and a non-zero exit: 1 when a gate failed, 2 for
any other mistake, 130 after Ctrl-C, 143 when the system asked the process to end. A traceback means a defect
in diffse. Nothing heavy is imported before a verb needs it.
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from diffse import __version__, commands
from diffse.commands.project import add_params
from diffse.endings import stop_on_sigterm, user_errors
from diffse.errors import DiffseError, GateFailed

# ------------------------------------------------------------------------------------------------ verbs


def _prepare(args, params, root: Path) -> dict:
    from diffse.data import prepare

    return prepare.run(params, args.corpus, root)


def _check(args, params, root: Path) -> dict:
    from diffse.validation import gate

    return gate.run(params, args.artifact, tuple(args.names), root)


def _cache(args, params, root: Path) -> dict:
    from diffse.data import stft_cache

    return stft_cache.run(params, args.corpus, root)


def _estimate(args, params, root: Path) -> dict:
    from diffse.data import statistics

    return statistics.run(params, args.corpus, root)


def _train(args, params, root: Path) -> dict:
    from diffse import training

    return training.run(params, args.system, root)


def _enhance(args, params, root: Path) -> dict:
    if args.source in params.external:
        from diffse import external

        return external.run(params, args.source, args.target, root)
    from diffse import enhancer

    return enhancer.run(params, args.source, args.target, root)


def _enhance_files(args) -> dict:
    from diffse import enhancer

    return enhancer.enhance_paths(
        _place(args.source),
        _place(args.target),
        args.checkpoint,
        steps=args.steps,
        seed=args.seed,
        batch=args.batch,
        device=args.device,
        predictor=args.predictor,
        ema=args.ema,
        precision=args.precision,
        resample=not args.no_resample,
        overwrite=args.overwrite,
        shard=args.shard or "1/1",
    )


def _place(word: str) -> Path | str:
    """A local path, or the URL of objects as it is."""
    return word if word.startswith("s3://") else Path(word)


def _evaluate(args, params, root: Path) -> dict:
    from diffse.metrics import evaluate

    return evaluate.run(params, args.system, args.corpus, root)


def _sweep(args, params, root: Path) -> dict:
    from diffse import sweeping

    return sweeping.run(params, args.name, root)


def _swap(args, params, root: Path) -> dict:
    from diffse import swapping

    return swapping.run(params, args.name, root)


def _report(args, params, root: Path) -> dict:
    from diffse.report import build

    result = build.run(params, root)
    if args.page:
        from diffse import paths, storage

        with storage.atomic_file(args.page) as temporary:
            shutil.copyfile(paths.report(root) / "index.html", temporary)
    return result


# verb -> (function, help, positional arguments). Their order is the order of the chain.
VERBS = {
    "prepare": (_prepare, "mix or collect the pairs of a corpus", ("corpus",)),
    "check": (_check, "judge an artifact by the rules of its gate", ("artifact", "names+")),
    "cache": (_cache, "store a corpus as compressed spectrograms for training", ("corpus",)),
    "estimate": (_estimate, "measure the levels of a corpus that some objectives need", ("corpus",)),
    "train": (_train, "train a system, or continue where it stopped", ("system",)),
    "enhance": (_enhance, "enhance a corpus with a system, or files with a checkpoint", ("source", "target")),
    "evaluate": (_evaluate, "score an enhanced corpus ('unprocessed' scores the input)", ("system", "corpus")),
    "sweep": (_sweep, "score a system at several steps or lengths of its average", ("name",)),
    "swap": (_swap, "score a system with the predictor of another one", ("name",)),
    "report": (_report, "write the report over all results", ()),
}

HELP = {
    "corpus": "name of a corpus under 'prepare' in params.yaml",
    "artifact": "mixtures, cache, checkpoint, enhanced or metrics",
    "names": "what to judge: CORPUS, SYSTEM, or SYSTEM CORPUS",
    "system": "<recipe>.<corpus it is trained on>, for example bridge_demo.demo",
    "name": "an entry under 'sweeps' or 'swaps' in params.yaml",
    "source": "a system (<recipe>.<corpus>, or one of 'external'); with --checkpoint an audio file or folder",
    "target": "a corpus; with --checkpoint the file or folder to write",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffse",
        description="Diffusion-based speech enhancement: from recordings to trained systems and a report.",
        epilog="'dvc repro' runs all steps in order and only those that a change affects.",
    )
    parser.add_argument("--version", action="version", version=f"diffse {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, (_, text, names) in VERBS.items():
        sub = verbs.add_parser(verb, help=text, description=f"{text[0].upper()}{text[1:]}.")
        for name in names:
            plain = name.rstrip("+")
            sub.add_argument(plain, nargs="+" if plain != name else None, help=HELP[plain])
        _add_common(sub)
        if verb == "enhance":
            _add_enhance(sub)
        elif verb == "report":
            sub.add_argument("--page", type=Path, metavar="FILE", help="write the page there too")
            sub.add_argument("--show", action="store_true", help="print the table of the last report instead")
    for name, command in commands.COMMANDS.items():
        _add_command(verbs, name, command)
    return parser


def _add_command(verbs: argparse._SubParsersAction, name: str, command: ModuleType) -> None:
    text = command.HELP
    command.add_arguments(verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}."))


def _add_common(sub: argparse.ArgumentParser) -> None:
    add_params(sub)
    runner = sub.add_argument_group("for pipeline runners")
    runner.add_argument(
        "--needs", action="append", default=[], metavar="REFERENCE", help="an input, as a step named it"
    )
    runner.add_argument("--settings", metavar="JSON", help="stop unless params.yaml says the same")
    runner.add_argument("--write-reference", type=Path, metavar="FILE", help="name what was written there")
    runner.add_argument("--write-card", type=Path, metavar="FILE", help="describe it there (JSON)")


def _add_enhance(sub: argparse.ArgumentParser) -> None:
    files = sub.add_argument_group("for files and folders")
    files.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="for example models/<system>/best")
    files.add_argument("--steps", type=int, metavar="N", help="sampler steps (default: the checkpoint's)")
    files.add_argument("--seed", type=int, metavar="S", help="seed of the noise (default: the checkpoint's)")
    files.add_argument("--predictor", type=Path, metavar="FOLDER", help="StoRM: that of another checkpoint")
    files.add_argument("--ema", type=float, metavar="STD", help="average the weights over this relative length")
    files.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        help="of the networks (default: the checkpoint's)",
    )
    files.add_argument("--batch", type=int, metavar="B", help="pieces enhanced at once")
    files.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    files.add_argument("--no-resample", action="store_true", help="refuse files of another rate")
    files.add_argument("--overwrite", action="store_true", help="enhance again what is there already")
    files.add_argument("--shard", metavar="I/N", help="of N equal parts of a folder only the Ith")


# ------------------------------------------------------------------------------------------- one command


def main(argv: list[str] | None = None) -> int:
    """Run one command; the return value is the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        with user_errors(), stop_on_sigterm():
            if args.verb in commands.COMMANDS:
                return commands.COMMANDS[args.verb].run(args, argv)
            if args.verb == "enhance" and _is_for_files(args, parser):
                return _run_on_files(args, argv)
            if args.verb == "report" and args.show:
                return _show_report(args.params.parent)
            return _run_step(args, argv)
    except DiffseError as error:
        print(f"diffse: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print("diffse: stopped; the same command continues or starts again", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)


_OF_FILES = (
    "steps", "seed", "predictor", "ema", "precision", "batch", "device", "no_resample", "overwrite", "shard",
)  # fmt: skip


def _is_for_files(args: argparse.Namespace, parser: argparse.ArgumentParser) -> bool:
    if args.checkpoint is not None:
        return True
    for name in _OF_FILES:
        if getattr(args, name) not in (None, False):
            parser.error(f"--{name.replace('_', '-')} needs --checkpoint")
    if Path(args.source).exists() and not _is_external(args):
        parser.error(f"to enhance '{args.source}', add --checkpoint models/<system>/best")
    return False


def _is_external(args: argparse.Namespace) -> bool:
    """Whether the project has an external system of that name: files may be called like it."""
    from diffse import settings

    return args.params.is_file() and args.source in settings.load(args.params).external


def _show_report(root: Path) -> int:
    from diffse import paths
    from diffse.report import summary

    print(summary.terminal_table(root))
    print(f"\nreport: {(paths.report(root) / 'index.html').resolve()}")
    return 0


def _run_on_files(args: argparse.Namespace, argv: list[str]) -> int:
    """Enhance files."""
    with commands.recorded(args, "files", argv) as run, user_errors():
        run["result"] = result = _enhance_files(args)
        if args.write_card:
            from diffse import cards, storage

            storage.write_json(args.write_card, cards.card_of_files(result, args.target))
    speed = result["real_time_factor"]
    print(
        f"{result['enhanced']} enhanced, {result['kept']} already there: {result['output']}"
        + (f" ({speed:.2f} s per second of audio)" if speed else "")
    )
    return 0


def _run_step(args: argparse.Namespace, argv: list[str]) -> int:
    from diffse import runs, settings, steps

    step = steps.describe(args.verb, _names(args))
    root = args.params.parent
    if not args.params.is_file():  # no project here, so no place for a record either
        settings.load(args.params)
    began = time.monotonic()
    with runs.recorded(root, step.verb, step.names, argv) as run, user_errors():
        params = settings.load(args.params)
        steps.check_names(step, params, args.params)
        run["settings"] = steps.settings_read(step, params)
        run["inputs"], run["data"] = args.needs, _data_versions(step, params, root)
        _check_inputs(args, step, run["settings"], root)
        with _verdict(step, root, run):
            run["result"] = VERBS[step.verb][0](args, params, root)
        if os.environ.get("RANK", "0") != "0":  # of several processes the first one writes, and speaks for all
            return 0
        steps.check_written(root, step)
        run["output"] = steps.reference(root, step.artifact)
        run["data"] = _data_versions(step, params, root)
        _hand_over(args, step, run, root)
    print(f"{step.command}: done in {time.monotonic() - began:.1f} s, {root / step.writes[0]}")
    return 0


def _hand_over(args: argparse.Namespace, step, run: dict, root: Path) -> None:
    """Write what a pipeline runner asked for."""
    from diffse import cards, storage

    if args.write_card:
        storage.write_json(args.write_card, cards.card(root, step, run["result"], run["output"]))
    if args.write_reference:
        with storage.atomic_file(args.write_reference) as temporary:
            temporary.write_text(run["output"], encoding="utf-8")


@contextlib.contextmanager
def _verdict(step, root: Path, run: dict) -> Iterator[None]:
    """Put what a gate found into the run record, whether it passed or not."""
    from diffse import storage

    def keep() -> None:
        if step.verb == "check":
            with contextlib.suppress(DiffseError):
                run["gate"] = storage.read_json(root / step.writes[0])

    try:
        yield
    except GateFailed:
        keep()
        raise
    keep()


def _names(args: argparse.Namespace) -> list[str]:
    names = []
    for name in VERBS[args.verb][2]:
        value = getattr(args, name.rstrip("+"))
        names += value if isinstance(value, list) else [value]
    return names


def _check_inputs(args: argparse.Namespace, step, found: dict, root: Path) -> None:
    """Compare with what the pipeline was compiled for and what the steps before handed over."""
    import json

    from diffse import steps

    try:
        compiled = found if args.settings is None else json.loads(args.settings)
    except json.JSONDecodeError as error:
        raise DiffseError(f"--settings is not JSON: {error}") from None
    if compiled != found:
        keys = ", ".join(step.settings)
        raise DiffseError(f"{args.params}: {keys} changed since the pipeline was compiled; compile it again")
    for reference in args.needs:
        steps.check_reference(root, reference)


def _data_versions(step, params, root: Path) -> dict[str, str]:
    """Version of every corpus that the step's names speak of."""
    from diffse import runs

    entries = {"sweep": params.sweeps, "swap": params.swaps}.get(step.verb)
    named = step.names if entries is None else [entries[step.names[0]].corpus]
    corpora = {name.rpartition(".")[2] for name in named}
    versions = {corpus: runs.data_version(root, corpus) for corpus in sorted(corpora)}
    return {corpus: version for corpus, version in versions.items() if version}
