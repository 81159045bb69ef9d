"""Our scores beside the papers': only where both measure the same thing on the same files.

Everything that stands in the way is a reason in words. A reader must never take a score of another corpus,
another mode of a metric or a smaller network for one that could be compared.
"""

import dataclasses
import functools
import json
import math
from dataclasses import dataclass
from typing import Any

from diffse import paths, presets, settings, settings_reader
from diffse.errors import DiffseError
from diffse.report import papers
from diffse.report.artifacts import Project, Scores, Value
from diffse.report.compare import metric, number
from diffse.report.papers import Number, Row
from diffse.report.trials import Trials

SMALL = "small form"
# How far two correct measurements of one number may lie apart: rounding, resamplers, seeds, batch sizes.
TOLERANCES = {"si_sdr": 0.3, "pesq": 0.05, "estoi": 0.01, "stoi": 0.01}
_TOLERANCE = 0.05  # of all other metrics
# Settings of a corpus that do not change which files it should hold (`noises: shared` is a published leak).
_NO_IDENTITY = {"seed", "source", "complete", "min_seconds", "max_rejected", "processes", "noises"}
_OF_TRIAL = ("mean", "low", "high", "n", "missing")
_ANCHORS = {"si_sdr": 0.3, "pesq": 0.05, "estoi": 0.02}  # by which test files are recognised


@dataclass(frozen=True)
class Line:
    """One metric of one row beside ours. `reason`: why it is not compared, "" where it is."""

    row: Row
    system: str
    corpus: str
    metric: str
    paper: Number
    ours: Value | None
    tolerance: float
    reason: str
    notes: tuple[str, ...]

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, None where they are not compared."""
        if self.reason or self.ours is None or self.ours.mean is None:
            return None
        return self.ours.mean - self.paper.mean

    @property
    def verdict(self) -> str:
        """'on', 'off' or 'not comparable'."""
        if self.difference is None:
            return "not comparable"
        return "on" if abs(self.difference) <= self.tolerance + 1e-9 else "off"


def lines(project: Project, params: settings.Params) -> list[Line]:
    """Every metric of every row that an evaluated system is, or would be on another corpus."""
    found = []
    for corpus in project.corpora:
        here = stands_for(corpus, params)
        for scores in project.evaluated(corpus):
            preset, _ = preset_of(scores.system, project)
            for row in papers.rows().values():
                # the noisy input of another corpus is nobody's reproduction
                same = row.recipe == preset and (preset != papers.UNPROCESSED or row.corpus.name in here)
                if row.recipe and same and not row.predictor:
                    found += of_row(row, scores, project, params)
    return [
        *found,
        *(line for one in project.trials if one.kind == "swap" for line in _of_swap(one, project, params)),
    ]


def _of_swap(swap: Trials, project: Project, params: settings.Params) -> list[Line]:
    """Rows of a system with another predictor (paper 002, table V) beside the swap of the same two."""
    import pandas

    system, predictor, corpus = (swap.facts[key] for key in ("system", "predictor", "corpus"))
    title = f"{system} with {predictor}"
    trial = next((trial for trial in swap.rows if trial.name == title), None)
    if trial is None:
        return []
    metrics = {
        name: Value(**{key: value.get(key) for key in _OF_TRIAL}, reasons={}, unit="", rate=None, version="")
        for name, value in trial.metrics.items()
    }
    scores = Scores(
        system, corpus, swap.facts["files"], metrics, trial.real_time_factor, trial.evaluations,
        trial.parameters, None, pandas.DataFrame(),
    )  # fmt: skip
    both = tuple(preset_of(name, project)[0] for name in (system, predictor))
    found = []
    for row in papers.rows().values():
        if row.predictor and (row.recipe, row.predictor) == both:
            found += of_row(row, scores, project, params)
    trouble = _of_predictor(swap, project)
    return [dataclasses.replace(line, system=title, reason=line.reason or trouble) for line in found]


def _of_predictor(swap: Trials, project: Project) -> str:
    """What stands in the way of a swap beside what stands in the way of its system; "" if nothing does."""
    if swap.facts["split"] != "test":
        return f"scored on the split '{swap.facts['split']}'"
    whole = project.scores.get((paths.UNPROCESSED, swap.facts["corpus"]))
    if whole is not None and whole.files != swap.facts["files"]:
        return f"{swap.facts['files']} of {whole.files} test files"
    _, small = preset_of(swap.facts["predictor"], project)
    if small:
        return "the predictor is a small form, trained for minutes"
    trained_on = [paths.split_system(swap.facts[key])[1] for key in ("system", "predictor")]
    return "" if len(set(trained_on)) == 1 else f"the two are trained on {' and '.join(trained_on)}"


def of_row(row: Row, scores: Scores, project: Project, params: settings.Params) -> list[Line]:
    """Each metric of a row beside the scores of a system."""
    whole = refusal(row, scores, project, params)
    changed = _changed_settings(row, scores.system, project)
    found = []
    for name, paper in row.values.items():
        ours = scores.metrics.get(name)
        reason = whole or row.other.get(name, "") or _no_value(name, ours)
        notes = tuple(text for text in (row.assumed.get(name, ""), changed) if text)
        tolerance = _tolerance(row, name, ours)
        found.append(Line(row, scores.system, scores.corpus, name, paper, ours, tolerance, reason, notes))
    return found


def _no_value(name: str, ours: Value | None) -> str:
    if ours is None:
        return f"{metric(name).label} was not measured here"
    return "" if ours.mean is not None else f"no file has a value of {metric(name).label}"


def _tolerance(row: Row, name: str, ours: Value | None) -> float:
    """The larger of TOLERANCES and twice the standard error of the difference, as far as it is known."""
    base = TOLERANCES.get(name, _TOLERANCE)
    variance = 0.0
    if ours is not None and ours.low is not None and ours.high is not None:
        variance += ((ours.high - ours.low) / (2 * 1.96)) ** 2
    paper = row.values[name]
    if paper.spread is not None and row.spread == "standard error":
        variance += paper.spread**2
    elif paper.spread is not None and row.spread and row.corpus.files:
        variance += paper.spread**2 / row.corpus.files
    return max(base, 2 * math.sqrt(variance))


# ------------------------------------------------------------------------------------- who is who


@functools.cache
def _by_paper() -> dict[str, str]:
    """Text of `train.paper` -> preset."""
    return {node.value["train"].value["paper"].value: name for name, node in presets.table().items()}


def preset_of(system: str, project: Project) -> tuple[str, bool]:
    """(preset that a system is trained by, whether in its small form); ("", False) if none is known.

    The checkpoint's paper row says it; an imported one has none, and the recipe's name counts.
    """
    if system == paths.UNPROCESSED:
        return papers.UNPROCESSED, False
    model = project.models.get(system)
    if model is None or model.checkpoint is None:
        return "", False
    train = model.checkpoint.get("train")
    text = str(train.get("paper") or "") if isinstance(train, dict) else ""
    recipe = paths.split_system(system)[0]
    if not text and recipe in presets.table():
        return recipe.removesuffix("_small"), recipe.endswith("_small")
    whole, small, _ = text.partition(f", {SMALL}")
    return _by_paper().get(whole, ""), bool(small)


def stands_for(corpus: str, params: settings.Params) -> frozenset[str]:
    """Corpora of the papers whose test files `corpus` holds: by its settings, or by `report.stands_for`.

    DiffseError when a name there is no corpus of the papers.
    """
    declared = params.report.stands_for.get(corpus)
    if declared is not None:
        if declared not in papers.corpora():
            raise DiffseError(
                f"report.stands_for.{corpus} is '{declared}', which is no corpus of the papers "
                f"(allowed: {', '.join(papers.corpora())})"
            )
        return frozenset({declared})
    mine = _identity(params.prepare.get(corpus))
    return frozenset(
        name for name in papers.corpora() if name in presets.corpora() and _published(name) == mine
    )


def _identity(corpus: Any) -> dict[str, Any]:
    """The settings that say which files a corpus holds."""
    if corpus is None:
        return {}
    return {key: value for key, value in dataclasses.asdict(corpus).items() if key not in _NO_IDENTITY}


@functools.cache
def _published(name: str) -> dict[str, Any]:
    """Identity of a preset of corpora."""
    return _identity(settings_reader.build(settings.Corpus, presets.corpora()[name]))


# ---------------------------------------------------------------------------------------- refusals


def refusal(row: Row, scores: Scores, project: Project, params: settings.Params) -> str:
    """Why nothing of a row can stand beside a system's scores; "" if it can."""
    _, small = preset_of(scores.system, project)
    if row.refuse:
        return f"the paper's files: {row.refuse}"
    if row.corpus.name not in stands_for(scores.corpus, params):
        return f"{scores.corpus} is not {row.corpus.title}"
    if small:
        return "a small form of the system, trained for minutes"
    if scores.system != paths.UNPROCESSED:
        trained_on = paths.split_system(scores.system)[1]
        if row.trained_on.name not in stands_for(trained_on, params):
            return f"trained on {trained_on}, in the paper on {row.trained_on.title}"
    if row.corpus.files and scores.files != row.corpus.files:
        return f"{scores.files} test files, in the paper {row.corpus.files}"
    return _missed_anchor(row, scores, project)


def _missed_anchor(row: Row, scores: Scores, project: Project) -> str:
    """Test files are not the papers' where their unprocessed input scores otherwise."""
    unprocessed = project.scores.get((paths.UNPROCESSED, scores.corpus))
    for name, expected in row.corpus.anchor.items():
        value = unprocessed.metrics.get(name) if unprocessed else None
        if value is None or value.mean is None:
            continue
        # where mixtures are drawn at random, theirs and ours are two draws
        drawn = 3 * (expected.spread or 0.0) / math.sqrt(max(1, value.n))
        if abs(value.mean - expected.mean) > max(_ANCHORS[name], drawn):
            how = metric(name)
            return (
                f"other test files: the unprocessed input has {how.label} {number(value.mean, how.digits)}, "
                f"in the papers {number(expected.mean, how.digits)}"
            )
    return ""


def _changed_settings(row: Row, system: str, project: Project) -> str:
    """Settings of a training that are not those of its preset, in words."""
    model = project.models.get(system)
    used = (model.checkpoint or {}).get("train") if model else None
    if not isinstance(used, dict):
        return ""
    own = _preset_settings(row.recipe)
    changed = [key for key in own if key in used and used[key] != own[key] and key != "threads"]
    return f"settings other than the preset's: {', '.join(changed)}" if changed else ""


@functools.cache
def _preset_settings(name: str) -> dict[str, Any]:
    train = settings_reader.build(settings.Train, presets.table()[name].value["train"])
    return json.loads(json.dumps(dataclasses.asdict(train)))
