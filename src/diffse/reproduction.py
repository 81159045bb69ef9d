"""What it takes to reproduce one row of the papers' tables: corpus, system, steps, time, what is missing."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffse import paths, presets, settings, settings_reader, steps
from diffse.data.corpora import registry
from diffse.errors import DiffseError
from diffse.report import against, artifacts, papers
from diffse.report.against import Line
from diffse.report.papers import Row
from diffse.settings import Params
from diffse.steps import Step

# The published networks on two CPU cores: one training example, and one network evaluation for 1 s of audio.
EXAMPLE_SECONDS, EVALUATION_SECONDS = 28.0, 3.5
DIFFSE = (sys.executable, "-m", "diffse")
_KEEP = {"prepare", "cache", "estimate"}  # not run again by this command where their output is there


@dataclass(frozen=True)
class Plan:
    """How a row is reproduced. `missing`: what stands in the way, a sentence each; `dvc`: targets, or empty."""

    row: Row
    quick: bool
    system: str
    corpus: str
    trained_on: str
    steps: tuple[Step, ...]
    missing: tuple[str, ...]
    dvc: tuple[str, ...]
    time: str

    @property
    def recipe(self) -> str:
        """The recipe of the system, "" for the unprocessed input."""
        return "" if self.system == paths.UNPROCESSED else paths.split_system(self.system)[0]


def plan(row: Row, params: Params, root: Path, quick: bool) -> Plan:
    """Resolve a row. DiffseError for one that diffse cannot reproduce at all."""
    _check(row, quick)
    missing: list[str] = []
    corpus = _corpus(row.corpus, params, root, quick, missing)
    trained_on = corpus
    if row.recipe != papers.UNPROCESSED and row.trained_on != row.corpus:
        trained_on = _corpus(row.trained_on, params, root, quick, missing)
    system = paths.UNPROCESSED
    if row.recipe != papers.UNPROCESSED:
        recipe = _recipe(row, params, quick, missing)
        system = f"{recipe}.{trained_on}"
    chain = tuple(_chain(system, trained_on, corpus))
    return Plan(
        row=row,
        quick=quick,
        system=system,
        corpus=corpus,
        trained_on=trained_on,
        steps=chain,
        missing=tuple(missing),
        dvc=_targets(system, corpus) if _selected(system, trained_on, corpus, params, root) else (),
        time=_time(row, system, corpus, params, quick),
    )


def _check(row: Row, quick: bool) -> None:
    if not row.recipe:
        raise DiffseError(
            f"{row.name}: diffse has no system '{row.label}'; run it as an external system (docs/systems.md)"
        )
    if row.predictor:
        raise DiffseError(
            f"{row.name}: a system with another predictor is a swap; add an entry under 'swaps' with system "
            f"{row.recipe}.<corpus> and predictor {row.predictor}.<corpus>, and run 'diffse swap'"
        )
    if row.refuse and not quick:
        raise DiffseError(f"{row.name}: cannot be reproduced, its test files are {row.refuse}")


def _corpus(wanted: papers.Corpus, params: Params, root: Path, quick: bool, missing: list[str]) -> str:
    """Name of the corpus in params.yaml; of the built-in one for a quick look without the recordings."""
    found = [name for name in params.prepare if wanted.name in against.stands_for(name, params)]
    problem = ""
    if not found:
        problem = _not_described(wanted)
    elif not (paths.mixtures(root, found[0]) / "manifest.parquet").is_file():
        try:
            registry.check(params.prepare[found[0]], paths.source(root, found[0]))
        except DiffseError as error:
            problem = str(error)
    if not problem:
        return found[0]
    demo = [name for name, one in params.prepare.items() if isinstance(one, settings.DemoCorpus)]
    if quick and demo:
        return demo[0]
    missing.append(problem)
    return found[0] if found else wanted.name


def _not_described(wanted: papers.Corpus) -> str:
    """What to add to params.yaml, and where the recordings come from."""
    if wanted.name not in presets.corpora():
        return f"{wanted.title} is not a corpus of diffse: {wanted.home}"
    node = presets.corpora()[wanted.name]
    parts = registry.facts(settings_reader.build(settings.Corpus, node)).parts
    places = "; ".join(f"{part.title}: {part.home} ({part.licence})" for part in parts)
    entry = f"{wanted.name}: {{preset: {wanted.name}}}"
    return (
        f"params.yaml describes no corpus that is {wanted.title}: add '{entry}' to prepare; its recordings "
        f"belong into sources/{wanted.name} (docs/corpora.md): {places}"
    )


def _recipe(row: Row, params: Params, quick: bool, missing: list[str]) -> str:
    name = f"{row.recipe}_small" if quick else row.recipe
    if name not in params.train or name not in params.enhance:
        missing.append(
            f"params.yaml has no recipe {name}: add '{name}: {{preset: {name}}}' to train and enhance"
        )
    return name


# --------------------------------------------------------------------------------------------- steps


def _chain(system: str, trained_on: str, corpus: str) -> list[Step]:
    """Every step, in order."""
    found = []
    for name in dict.fromkeys((trained_on, corpus)):
        found += [steps.describe("prepare", [name]), steps.describe("check", ["mixtures", name])]
    if system != paths.UNPROCESSED:
        found += [steps.describe("cache", [trained_on]), steps.describe("check", ["cache", trained_on])]
        found += [steps.describe("estimate", [trained_on]), steps.describe("train", [system])]
        found += [steps.describe("check", ["checkpoint", system]), steps.describe("enhance", [system, corpus])]
        found.append(steps.describe("check", ["enhanced", system, corpus]))
    for one in dict.fromkeys((paths.UNPROCESSED, system)):
        found += [steps.describe("evaluate", [one, corpus]), steps.describe("check", ["metrics", one, corpus])]
    return found


def _selected(system: str, trained_on: str, corpus: str, params: Params, root: Path) -> bool:
    """Whether `dvc repro` knows these steps: DVC makes stages of what params.yaml selects only."""
    if not (root / "dvc.yaml").is_file() or corpus not in params.corpora:
        return False
    if system == paths.UNPROCESSED:
        return True
    return trained_on in params.train_corpora and paths.split_system(system)[0] in params.recipes


def _targets(system: str, corpus: str) -> tuple[str, ...]:
    unprocessed = f"check-metrics-unprocessed@{corpus}"
    if system == paths.UNPROCESSED:
        return (unprocessed,)
    recipe, trained_on = paths.split_system(system)
    return (unprocessed, f"check-metrics@{recipe}-{trained_on}-{corpus}")


def commands(found: Plan, params_file: Path) -> list[list[str]]:
    """Argument lists, to be run in the project's folder: one of DVC, or one per step."""
    if found.dvc:
        return [[sys.executable, "-m", "dvc", "repro", *found.dvc]]
    root = params_file.parent
    return [
        [*DIFFSE, step.verb, *step.names, "--params", params_file.name]
        for step in found.steps
        if not (step.verb in _KEEP and all((root / place).exists() for place in step.writes))
    ]


# ---------------------------------------------------------------------------------------------- time


def _time(row: Row, system: str, corpus: str, params: Params, quick: bool) -> str:
    """How long it takes, in words; from what was measured on two CPU cores."""
    if system == paths.UNPROCESSED:
        return "minutes: the input is only scored"
    if quick:
        return "about ten minutes of training on a CPU, and as long for enhancing"
    recipe = paths.split_system(system)[0]
    if recipe not in params.train or recipe not in params.enhance:
        return "not known without the recipe"
    train = params.train[recipe]
    examples = train.steps * train.batch
    text = f"training {train.steps:,} steps of {train.batch}: {_span(examples * EXAMPLE_SECONDS)}"
    sampler = params.enhance[recipe].sampler
    calls = getattr(sampler, "steps", 1) * (2 if getattr(sampler, "corrector", "none") != "none" else 1)
    hours = _test_hours(params.prepare.get(corpus))
    per_hour = _span(calls * EVALUATION_SECONDS * 3600 * (hours or 1.0))
    audio = f"the {hours:g} h of test audio" if hours else "one hour of audio"
    return f"{text}; enhancing {audio}: {per_hour}; both on two CPU cores, so use a GPU"


def _span(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f} h" if hours < 48 else f"{hours / 24:,.0f} days"


def _test_hours(corpus: Any) -> float | None:
    facts = registry.facts(corpus) if corpus is not None else None
    expected = facts.expected.get("test") if facts else None
    return expected.hours if expected else None


# -------------------------------------------------------------------------------------------- result


def outcome(found: Plan, params: Params, root: Path) -> list[Line]:
    """Our scores beside the row's. DiffseError when they are not there."""
    recipes = (found.recipe,) if found.recipe else ()
    selected = dataclasses.replace(
        params, corpora=tuple(dict.fromkeys((found.trained_on, found.corpus))), recipes=recipes,
        train_corpora=(found.trained_on,) if recipes else (), externals=(), sweeps={}, swaps={},
    )  # fmt: skip
    project = artifacts.load(selected, root)
    scores = project.scores.get((found.system, found.corpus))
    if scores is None:
        raise DiffseError(
            f"{paths.results(root, found.system, found.corpus)}: no scores; run without --dry-run"
        )
    return against.of_row(found.row, scores, project, selected)
