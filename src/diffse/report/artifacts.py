"""Read what the other steps left behind, for the systems and corpora that the settings select.

Everything here tolerates absence: a report of half a project shows that half and names the rest. A file that
is there but damaged is a DiffseError that names it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffse import paths, storage
from diffse.data import manifest
from diffse.errors import DiffseError
from diffse.report import ratings, trials
from diffse.settings import Params

if TYPE_CHECKING:
    import pandas

_TEXT_COLUMNS = ("id", "speaker", "noise_kind", "gender", "room")


@dataclass(frozen=True)
class Value:
    """Mean of one metric over files, as `summary.json` states it."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    missing: int
    reasons: dict[str, int]
    unit: str
    rate: int | None  # Hz
    version: str


@dataclass(frozen=True)
class Scores:
    """One system on one corpus. `table` has one row per file, indexed by id; empty if there is none."""

    system: str
    corpus: str
    files: int
    metrics: dict[str, Value]
    real_time_factor: float | None
    evaluations: float | None
    parameters: int | None
    sampler: dict[str, Any] | None
    table: "pandas.DataFrame"
    macs_per_second: float | None = None  # multiply-accumulate operations for one second of audio
    peak_memory_mb: float | None = None

    @property
    def scores_in_table(self) -> list[str]:
        """Metrics that have a value for each file here."""
        return [name for name in self.metrics if name in self.table]


@dataclass(frozen=True)
class Model:
    """What training left: the best checkpoint's description and the two curves (empty if missing)."""

    system: str
    checkpoint: dict[str, Any] | None
    history: "pandas.DataFrame"
    validation: "pandas.DataFrame"


@dataclass(frozen=True)
class Mixtures:
    """Prepared pairs of a corpus. `table` is None when they are not here."""

    corpus: str
    folder: Path
    table: "pandas.DataFrame | None"
    sha256: str
    rejected: int


@dataclass(frozen=True)
class Enhanced:
    """Enhanced audio of one system on one corpus; `table` is indexed by id, None when it is not here."""

    folder: Path
    table: "pandas.DataFrame | None"
    facts: dict[str, Any]


@dataclass(frozen=True)
class Gate:
    """Result of one gate; None: it has not run."""

    artifact: str
    name: str
    success: bool | None
    rules: list[dict[str, Any]]


@dataclass(frozen=True)
class Project:
    """All that a report is made of, in the order of the settings."""

    corpora: tuple[str, ...]
    systems: tuple[str, ...]  # trained ones, then external ones, without the unprocessed input
    externals: tuple[str, ...]
    scores: dict[tuple[str, str], Scores]  # (system, corpus)
    models: dict[str, Model]
    mixtures: dict[str, Mixtures]
    enhanced: dict[tuple[str, str], Enhanced]
    gates: list[Gate]
    trials: list[trials.Trials]  # sweeps and swaps
    heard: list[dict[str, Any]] = field(default_factory=list)  # summaries of listening tests
    missing: list[str] = field(default_factory=list)  # plain sentences

    @property
    def trained(self) -> tuple[str, ...]:
        """Systems that have a model."""
        return tuple(system for system in self.systems if system not in self.externals)

    def evaluated(self, corpus: str) -> list[Scores]:
        """Scores on a corpus, the unprocessed input first."""
        systems = (paths.UNPROCESSED, *self.systems)
        return [self.scores[system, corpus] for system in systems if (system, corpus) in self.scores]


def load(params: Params, root: Path) -> Project:
    """Read everything of the selected systems and corpora. DiffseError when no result at all is there."""
    trained = tuple(f"{recipe}.{corpus}" for corpus in params.train_corpora for recipe in params.recipes)
    systems = (*trained, *params.externals)
    pairs = [(system, corpus) for corpus in params.corpora for system in (paths.UNPROCESSED, *systems)]
    found = {pair: read_scores(root, *pair) for pair in pairs}
    scores = {pair: value for pair, value in found.items() if value is not None}
    if not scores:
        raise DiffseError(
            f"{root / 'results'}: no results of the selected systems and corpora; run 'dvc repro' first"
        )
    compared, not_run = trials.load(params, root)
    project = Project(
        corpora=params.corpora,
        systems=systems,
        externals=params.externals,
        scores=scores,
        models={system: read_model(root, system) for system in trained},
        mixtures={corpus: read_mixtures(root, corpus) for corpus in params.corpora},
        enhanced={pair: read_enhanced(root, *pair) for pair in pairs if pair[0] != paths.UNPROCESSED},
        gates=[read_gate(root, *names) for names in _expected_gates(params, trained)],
        trials=compared,
        heard=ratings.load(root, params.corpora),
    )
    project.missing.extend([*_what_is_missing(project), *not_run])
    return project


def read_scores(root: Path, system: str, corpus: str) -> Scores | None:
    """Results of a system on a corpus; None when it was not evaluated. DiffseError: damaged files."""
    folder = paths.results(root, system, corpus)
    path = folder / "summary.json"
    if not path.is_file():
        return None
    summary = storage.read_json(path)
    if not isinstance(summary, dict) or not isinstance(summary.get("metrics"), dict):
        raise DiffseError(f"{path}: lacks 'metrics'; run 'diffse evaluate {system} {corpus}' again")
    return Scores(
        system=system,
        corpus=corpus,
        files=int(summary.get("files") or 0),
        metrics={str(name): _value(entry) for name, entry in summary["metrics"].items()},
        real_time_factor=summary.get("real_time_factor"),
        evaluations=summary.get("evaluations"),
        parameters=summary.get("parameters"),
        sampler=summary.get("sampler"),
        table=_read_per_file(folder / "per_file.csv"),
        macs_per_second=summary.get("macs_per_second"),
        peak_memory_mb=summary.get("peak_memory_mb"),
    )


def _value(entry: dict[str, Any]) -> Value:
    return Value(
        mean=entry.get("mean"),
        low=entry.get("low"),
        high=entry.get("high"),
        n=int(entry.get("n") or 0),
        missing=int(entry.get("missing") or 0),
        reasons=dict(entry.get("reasons") or {}),
        unit=str(entry.get("unit") or ""),
        rate=entry.get("rate"),
        version=str(entry.get("version") or ""),
    )


def _read_csv(path: Path, text_columns: tuple[str, ...] = ()) -> "pandas.DataFrame":
    """A table whose columns are numbers but for `text_columns` and `*_reason`; empty if not there."""
    import numpy
    import pandas

    if not path.is_file():
        return pandas.DataFrame()
    try:
        # as text first: an utterance called "NA" or "001" must keep its name
        frame = pandas.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, pandas.errors.ParserError) as error:
        reason = str(error).splitlines()[0]
        raise DiffseError(f"{path}: not a table ({reason}); delete it and run its step again") from None
    for name in frame.columns:
        if name not in text_columns and not name.endswith("_reason"):
            numbers = pandas.to_numeric(frame[name], errors="coerce")
            frame[name] = numbers.replace([numpy.inf, -numpy.inf], numpy.nan).astype(float)
    return frame


def _read_per_file(path: Path) -> "pandas.DataFrame":
    frame = _read_csv(path, _TEXT_COLUMNS)
    if frame.empty:
        return frame
    if "id" not in frame.columns or frame["id"].duplicated().any():
        raise DiffseError(f"{path}: needs a column 'id' without repetitions; run its evaluation again")
    return frame.set_index("id")


def read_model(root: Path, system: str) -> Model:
    """Description and curves of a trained system; what is missing stays empty."""
    folder = paths.model(root, system)
    checkpoint = folder / "best" / "checkpoint.json"
    return Model(
        system=system,
        checkpoint=_read_object(checkpoint) if checkpoint.is_file() else None,
        history=_read_csv(folder / "history.csv"),
        validation=_read_csv(folder / "validation.csv"),
    )


def _read_object(path: Path) -> dict[str, Any]:
    value = storage.read_json(path)
    if not isinstance(value, dict):
        raise DiffseError(f"{path}: not a JSON object; delete it and run its step again")
    return value


def read_mixtures(root: Path, corpus: str) -> Mixtures:
    """Manifest of a corpus, its checksum and how many recordings were refused."""
    folder = paths.mixtures(root, corpus)
    path = folder / manifest.FILE
    if not path.is_file():
        return Mixtures(corpus, folder, None, "", 0)
    rejected = _read_csv(folder / manifest.REJECTED, ("file", "reason"))
    return Mixtures(corpus, folder, manifest.read(folder), storage.sha256_file(path), len(rejected))


def read_enhanced(root: Path, system: str, corpus: str) -> Enhanced:
    """Manifest and description of enhanced audio."""
    folder = paths.enhanced(root, system, corpus)
    description = folder / "enhanced.json"
    facts = _read_object(description) if description.is_file() else {}
    if not (folder / manifest.FILE).is_file():
        return Enhanced(folder, None, facts)
    return Enhanced(folder, manifest.read(folder, manifest.ENHANCED_COLUMNS).set_index("id"), facts)


def _expected_gates(params: Params, trained: tuple[str, ...]) -> list[tuple[str, ...]]:
    """(artifact, names...) of every gate between two steps of the selected systems and corpora."""
    systems = (*trained, *params.externals)
    evaluated = (paths.UNPROCESSED, *systems)
    return [
        *(("mixtures", corpus) for corpus in params.corpora),
        *(("cache", corpus) for corpus in params.train_corpora),
        *(("checkpoint", system) for system in trained),
        *(("enhanced", system, corpus) for corpus in params.corpora for system in systems),
        *(("metrics", system, corpus) for corpus in params.corpora for system in evaluated),
    ]


def read_gate(root: Path, artifact: str, *names: str) -> Gate:
    """Result of a gate, with success None when it has not run."""
    path = paths.gate(root, artifact, *names)
    name = " on ".join(names)
    if not path.is_file():
        return Gate(artifact, name, None, [])
    result = _read_object(path)
    return Gate(artifact, name, bool(result.get("success")), list(result.get("rules") or []))


def _what_is_missing(project: Project) -> list[str]:
    """One plain sentence for each piece that the page cannot show."""
    lines = []
    for corpus in project.corpora:
        systems = (paths.UNPROCESSED, *project.systems)
        absent = [system for system in systems if (system, corpus) not in project.scores]
        lines += [f"{system} has not been evaluated on {corpus}." for system in absent]
        if project.mixtures[corpus].table is None:
            lines.append(f"The mixtures of {corpus} are not here: nothing of it can be heard or seen.")
    for scores in project.scores.values():
        if scores.table.empty:
            lines.append(f"The per-file scores of {scores.system} on {scores.corpus} are not here.")
    for model in project.models.values():
        lines += [f"{model.system} {problem}" for problem in _model_problems(model)]
    lines += _version_problems(project)
    lines += [line for corpus in project.corpora if (line := _mixed_metrics(project, corpus))]
    not_run = sum(gate.success is None for gate in project.gates)
    if not_run:
        lines.append(f"{not_run} of {len(project.gates)} gates have not run; they are named under Gates.")
    return lines


def _model_problems(model: Model) -> list[str]:
    lines = []
    if model.checkpoint is None:
        lines.append("has no checkpoint here.")
    if model.history.empty:
        lines.append("has no training curve (history.csv).")
    if model.validation.empty:
        lines.append("has no validation curve (validation.csv).")
    return lines


def _mixed_metrics(project: Project, corpus: str) -> str:
    """Which metrics of a corpus come from several versions of the metric, in one sentence; "" for none."""
    versions: dict[str, dict[str, list[str]]] = {}  # metric -> version -> systems
    for scores in project.evaluated(corpus):
        for name, value in scores.metrics.items():
            if value.version and value.mean is not None:
                versions.setdefault(name, {}).setdefault(value.version, []).append(scores.system)
    mixed = {name: found for name, found in versions.items() if len(found) > 1}
    if not mixed:
        return ""
    first = "; ".join(
        f"{version} of {', '.join(systems)}" for version, systems in next(iter(mixed.values())).items()
    )
    return (
        f"Scores of different versions of a metric are compared on {corpus} ({', '.join(mixed)}: {first}); "
        "run 'diffse evaluate' again on those that are older."
    )


def _version_problems(project: Project) -> list[str]:
    """Artifacts made from another version of the data than the one that is here."""
    lines = []
    for system, model in project.models.items():
        corpus = project.mixtures.get(paths.split_system(system)[1])
        trained_on = (model.checkpoint or {}).get("data_version")
        if trained_on and corpus and corpus.sha256 and trained_on != corpus.sha256:
            lines.append(f"{system} was trained on another version of {corpus.corpus} than the one here.")
    for (system, corpus), enhanced in project.enhanced.items():
        made_from, here = enhanced.facts.get("mixtures_sha256"), project.mixtures[corpus].sha256
        if made_from and here and made_from != here:
            lines.append(f"The audio of {system} on {corpus} was made from another version of the mixtures.")
    return lines
