"""What each step of the chain reads and writes, in one table.

A step is a verb with its names, for example `train bridge_demo.demo`. The command line, the DVC stages, the
Kubeflow components and the run records all say the same about a step because they take it from here (tests
compare `dvc.yaml` and the pipeline with this table).
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from diffse import paths, settings, storage
from diffse.errors import DiffseError

HERE = Path()  # locations are relative to the project's folder
SELECTION = ("corpora", "train_corpora", "recipes", "externals", "sweeps", "swaps")
RESERVED = (
    paths.UNPROCESSED,
    "sweeps",
    "swaps",
    "listening",
)  # folders of results/ that are no external system's


@dataclass(frozen=True)
class Step:
    """One call of a verb."""

    verb: str
    names: tuple[str, ...]  # positional arguments
    settings: tuple[str, ...]  # keys of params.yaml that it reads
    writes: tuple[Path, ...]  # what it promises to write
    artifact: Path  # what it hands to the next step: its product or, for a gate, what passed

    @property
    def command(self) -> str:
        """The shell command."""
        return " ".join(("diffse", self.verb, *self.names))


def _prepare(corpus: str) -> Step:
    folder = paths.mixtures(HERE, corpus)
    return Step("prepare", (corpus,), (f"prepare.{corpus}",), (folder,), folder)


def _check(artifact: str, *names: str) -> Step:
    if artifact not in JUDGED:
        raise DiffseError(f"check: '{artifact}' has no gate (allowed: {', '.join(JUDGED)})")
    locate, wanted = JUDGED[artifact]
    if len(names) != len(wanted):
        raise DiffseError(f"check: write 'diffse check {artifact} {' '.join(wanted)}'")
    gate = paths.gate(HERE, artifact, *names)
    return Step("check", (artifact, *names), (f"check.{artifact}",), (gate,), locate(HERE, *names))


def _cache(corpus: str) -> Step:
    folder = paths.cache(HERE, corpus)
    return Step("cache", (corpus,), ("cache",), (folder,), folder)


def _estimate(corpus: str) -> Step:
    file = paths.statistics(HERE, corpus)
    return Step("estimate", (corpus,), ("cache",), (file,), file)


def _train(system: str) -> Step:
    recipe, _ = paths.split_system(system)
    folder = paths.model(HERE, system)
    return Step("train", (system,), (f"train.{recipe}",), (folder / "best", folder / "last"), folder)


def _enhance(system: str, corpus: str) -> Step:
    read = f"external.{system}" if is_external(system) else f"enhance.{paths.split_system(system)[0]}"
    folder = paths.enhanced(HERE, system, corpus)
    return Step("enhance", (system, corpus), (read,), (folder,), folder)


def _evaluate(system: str, corpus: str) -> Step:
    folder = paths.results(HERE, system, corpus)
    files = (folder / "per_file.csv", folder / "summary.json")
    return Step("evaluate", (system, corpus), ("evaluate",), files, folder)


def _sweep(name: str) -> Step:
    folder = paths.sweep(HERE, name)
    return Step("sweep", (name,), (f"sweeps.{name}", "enhance", "evaluate"), (folder,), folder)


def _swap(name: str) -> Step:
    folder = paths.swap(HERE, name)
    return Step("swap", (name,), (f"swaps.{name}", "enhance", "evaluate"), (folder,), folder)


def _report() -> Step:
    folder = paths.report(HERE)
    return Step("report", (), ("report", *SELECTION), (folder / "index.html", folder / "summary.csv"), folder)


JUDGED: dict[str, tuple[Callable[..., Path], tuple[str, ...]]] = {
    "mixtures": (paths.mixtures, ("CORPUS",)),
    "cache": (paths.cache, ("CORPUS",)),
    "checkpoint": (paths.model, ("SYSTEM",)),
    "enhanced": (paths.enhanced, ("SYSTEM", "CORPUS")),
    "metrics": (paths.results, ("SYSTEM", "CORPUS")),
}

NAMES = {
    "prepare": ("CORPUS",),
    "cache": ("CORPUS",),
    "estimate": ("CORPUS",),
    "train": ("SYSTEM",),
    "enhance": ("SYSTEM", "CORPUS"),
    "evaluate": ("SYSTEM", "CORPUS"),
    "sweep": ("SWEEP",),
    "swap": ("SWAP",),
    "report": (),
}

VERBS: dict[str, Callable[..., Step]] = {
    "prepare": _prepare,
    "check": _check,
    "cache": _cache,
    "estimate": _estimate,
    "train": _train,
    "enhance": _enhance,
    "evaluate": _evaluate,
    "sweep": _sweep,
    "swap": _swap,
    "report": _report,
}


def describe(verb: str, names: Iterable[str] = ()) -> Step:
    """The step of `diffse <verb> <names>`. Raises DiffseError for a name of the wrong form."""
    return VERBS[verb](*names)


def is_external(system: str) -> bool:
    """Whether a name can only be an external system's: a trained one is written `<recipe>.<corpus>`."""
    return "." not in system and system != paths.UNPROCESSED


def check_names(step: Step, params: settings.Params, params_file: Path) -> None:
    """Refuse names that `params.yaml` does not describe (DiffseError)."""
    for kind, name in zip(_kinds(step), step.names, strict=True):
        if kind == "CORPUS":
            _expect_entry(params_file, "prepare", name, params.prepare)
        elif kind == "SYSTEM" and not (name == paths.UNPROCESSED and _takes_unprocessed(step)):
            if is_external(name) and _takes_external(step):
                _check_external(params_file, name, params)
            else:
                _check_trained(params_file, name, params)
        elif kind == "SWEEP":
            _expect_entry(params_file, "sweeps", name, params.sweeps)
            _check_trained(params_file, params.sweeps[name].system, params)
        elif kind == "SWAP":
            _expect_entry(params_file, "swaps", name, params.swaps)
            for system in (params.swaps[name].system, params.swaps[name].predictor):
                _check_trained(params_file, system, params)


def _check_trained(params_file: Path, system: str, params: settings.Params) -> None:
    recipe, corpus = paths.split_system(system)
    _expect_entry(params_file, "train", recipe, params.train)
    _expect_entry(params_file, "enhance", recipe, params.enhance)
    _expect_entry(params_file, "prepare", corpus, params.prepare)
    settings.check_recipe(recipe, params.train[recipe], params.enhance[recipe], params_file)


def _check_external(params_file: Path, name: str, params: settings.Params) -> None:
    if name not in params.external:
        raise DiffseError(
            f"'{name}' is not a system; write <recipe>.<corpus>, for example bridge_demo.demo, or a name "
            f"under 'external' in {params_file} (there: {', '.join(params.external) or 'none'})"
        )
    if name in RESERVED:
        raise DiffseError(
            f"{params_file}: external.{name}: this name has another use in results/; choose another"
        )


def _takes_unprocessed(step: Step) -> bool:
    """The noisy input itself is scored like a system, but nothing else is done with it."""
    return step.verb == "evaluate" or step.names[0] == "metrics"


def _takes_external(step: Step) -> bool:
    """An external system has no checkpoint: it cannot be trained, nor its training judged."""
    return step.verb in ("enhance", "evaluate") or step.names[0] in ("enhanced", "metrics")


def _kinds(step: Step) -> tuple[str, ...]:
    """What each positional argument names."""
    if step.verb == "check":
        return ("ARTIFACT", *JUDGED[step.names[0]][1])
    return NAMES[step.verb]


def _expect_entry(params_file: Path, block: str, name: str, table: dict) -> None:
    if name not in table:
        raise DiffseError(f"{params_file}: no '{name}' under '{block}' (there: {', '.join(table) or 'none'})")


def settings_read(step: Step, params: settings.Params) -> dict[str, object]:
    """The settings that the step reads, defaults filled in: {"train.bridge_demo": {...}}."""
    everything = dataclasses.asdict(params)
    found = {}
    for key in step.settings:
        value = everything
        for part in key.split("."):
            value = value[part]
        found[key] = value
    return json.loads(json.dumps(found))  # tuples become lists, as in any JSON they are compared with


# ------------------------------------------------------------------------------------------ references

DESCRIPTIONS = {".json", ".csv", ".parquet", ".html", ".md"}  # they hold the checksums of what is beside them


def reference(root: Path, location: Path) -> str:
    """Where an artifact is and which version of it: `data/demo/mixtures@sha256:<hexadecimal>`.

    The checksum covers the content of tables and JSON files, and the name and size of everything else: the
    manifests hold the checksums of audio, and `checkpoint.json` that of the weights, so that naming a version
    does not read terabytes. Hidden files and training curves do not count. DiffseError if it is not there.
    """
    place = root / location
    files = [place] if place.is_file() else sorted(item for item in place.rglob("*") if item.is_file())
    digest = hashlib.sha256()
    count = 0
    for file in files:
        inside = file.relative_to(place) if file != place else Path(file.name)
        if any(part.startswith(".") or part == "dvclive" for part in inside.parts):
            continue
        content = storage.sha256_file(file) if file.suffix in DESCRIPTIONS else str(file.stat().st_size)
        digest.update(f"{inside.as_posix()}\0{content}\n".encode())
        count += 1
    if not count:
        raise DiffseError(f"{place}: missing or empty; run the step that writes it")
    return f"{location.as_posix()}@sha256:{digest.hexdigest()}"


def check_reference(root: Path, wanted: str) -> None:
    """Refuse an input that is not there in the version that `wanted` names (DiffseError)."""
    location, separator, version = wanted.partition("@sha256:")
    if not (location and separator and version):
        raise DiffseError(f"'{wanted}' is not a reference (<location>@sha256:<checksum>)")
    found = reference(root, Path(location)).partition("@sha256:")[2]
    if found != version:
        raise DiffseError(
            f"{root / location}: is version {found[:12]}, but this step was given {version[:12]}; "
            "run the step that writes it again"
        )


def check_written(root: Path, step: Step) -> None:
    """Refuse a step that ended well but did not write what it promises (DiffseError)."""
    for location in step.writes:
        if not (root / location).exists():
            raise DiffseError(f"{root / location}: '{step.command}' did not write it; please report this")
