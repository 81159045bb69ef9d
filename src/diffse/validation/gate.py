"""The step `check`: judge an artifact, write down what was found, and stop the chain where a rule is broken."""

import difflib
import logging
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from diffse import paths, storage
from diffse.errors import DiffseError, GateFailed
from diffse.settings import Params
from diffse.validation import page
from diffse.validation.rules import Outcome, Rule, Subject

log = logging.getLogger(__name__)

# artifact -> what it is called by. The module of the same name makes its tables and rules.
ARTIFACTS = {
    "mixtures": ("corpus",),
    "cache": ("corpus",),
    "checkpoint": ("system",),
    "enhanced": ("system", "corpus"),
    "metrics": ("system", "corpus"),
}


def run(params: Params, artifact: str, names: tuple[str, ...], root: Path) -> dict[str, Any]:
    """Judge one artifact: mixtures CORPUS, cache CORPUS, checkpoint SYSTEM, enhanced or metrics SYSTEM CORPUS.

    Writes gates/<artifact>/<names>.json, the same bytes for the same artifact and limits. Then raises
    GateFailed, with one line per broken rule, where the artifact breaks any; it stays where it is. Returns
    {"gate", "success", "rules", "rows"}. DiffseError when the names are wrong.
    """
    root = Path(root)
    _check_names(params, artifact, names)
    path = paths.gate(root, artifact, *names)
    try:
        subject = import_module(f"diffse.validation.{artifact}").subject(params, names, root)
    except DiffseError as error:
        # a gate that passed before must not stand beside an artifact that cannot be read now
        result = _unreadable(artifact, names, str(error)) | {"before": _before(path)}
        storage.write_json(path, result)
        page.write(result, path.with_suffix(".html"))
        raise GateFailed(f"{_title(artifact, names)}: {error}") from None
    subject.rules = _as_set(subject.rules, getattr(params.check, artifact).severities, artifact)
    from diffse.validation import judge

    outcomes = judge.judge(subject)
    result = _result(artifact, names, subject, outcomes, root)
    storage.write_json(path, result)
    page.write(result, path.with_suffix(".html"))
    broken = [outcome for outcome in outcomes if not outcome.success]
    log.info("%s: %d of %d rules hold", _title(artifact, names), len(outcomes) - len(broken), len(outcomes))
    errors = [outcome for outcome in broken if outcome.rule.severity == "error"]
    for outcome in broken:
        if outcome not in errors:
            log.warning("%s", _line(artifact, names, subject, outcome))
    if errors:
        raise GateFailed("\n".join(_line(artifact, names, subject, outcome) for outcome in errors))
    return {
        "gate": path.relative_to(root).as_posix(),
        "success": True,
        "rules": len(outcomes),
        "warnings": len(broken),
        "rows": {name: len(frame) for name, frame in subject.tables.items()},
    }


def _as_set(rules: list[Rule], severities: dict[str, str], artifact: str) -> list[Rule]:
    """Rules with the severities of check.<artifact>.severities. DiffseError for a rule that is not there."""
    names = [rule.name for rule in rules]
    for name in severities:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names)}"
            raise DiffseError(f"check.{artifact}.severities: '{name}' is no rule of this gate; {hint}")
    return [replace(rule, severity=severities.get(rule.name, rule.severity)) for rule in rules]


def _check_names(params: Params, artifact: str, names: tuple[str, ...]) -> None:
    if artifact not in ARTIFACTS:
        raise DiffseError(f"'{artifact}' has no gate (allowed: {', '.join(ARTIFACTS)})")
    wanted = ARTIFACTS[artifact]
    if len(names) != len(wanted):
        raise DiffseError(
            f"the gate of {artifact} needs {' and '.join(wanted)}, but was given {len(names)} names"
        )
    for kind, name in zip(wanted, names, strict=True):
        if kind == "system" and artifact in ("enhanced", "metrics") and name in params.external:
            continue
        unprocessed = artifact == "metrics" and name == paths.UNPROCESSED
        corpus = name if kind == "corpus" else paths.UNPROCESSED if unprocessed else paths.split_system(name)[1]
        if corpus != paths.UNPROCESSED and corpus not in params.prepare:
            raise DiffseError(f"'{corpus}' has no entry under 'prepare' (there: {', '.join(params.prepare)})")


def _title(artifact: str, names: tuple[str, ...]) -> str:
    return f"{artifact} {'/'.join(names)}"


def _result(
    artifact: str, names: tuple[str, ...], subject: Subject, outcomes: list[Outcome], root: Path
) -> dict[str, Any]:
    from diffse.validation import judge

    inputs = {
        _inside(path, root): storage.sha256_file(path) for path in sorted(set(subject.inputs)) if path.is_file()
    }
    return {
        "artifact": artifact,
        "name": "/".join(names),
        "success": all(outcome.success for outcome in outcomes if outcome.rule.severity == "error"),
        "rows": {name: len(frame) for name, frame in subject.tables.items()},
        "rules": [_entry(outcome) for outcome in outcomes],
        "inputs": inputs,
        "statistics": subject.statistics,
        "last_version": subject.last_version,
        "great_expectations": judge.version(),
    }


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _entry(outcome: Outcome) -> dict[str, Any]:
    rule = outcome.rule
    return {
        "rule": rule.name,
        "success": outcome.success,
        "severity": rule.severity,
        "observed": outcome.observed,
        "limit": rule.limit,
        "failed_count": outcome.failed_count,
        "examples": outcome.examples,
        "remedy": rule.remedy,
        "table": rule.table,
        "expectations": list(rule.expectations),
    }


def _unreadable(artifact: str, names: tuple[str, ...], reason: str) -> dict[str, Any]:
    rule = {
        "rule": "can be read",
        "success": False,
        "severity": "error",
        "observed": reason,
        "limit": "complete",
        "failed_count": 1,
        "examples": [],
        "remedy": "run the stage that writes it again",
        "table": "",
        "expectations": [],
    }
    return {
        "artifact": artifact,
        "name": "/".join(names),
        "success": False,
        "rows": {},
        "rules": [rule],
        "inputs": {},
        "great_expectations": None,
    }


def _before(path: Path) -> dict[str, Any]:
    """What the result that is replaced says about earlier versions; a later gate goes on from there."""
    try:
        result = storage.read_json(path)
    except DiffseError:
        return {}
    if not isinstance(result, dict):
        return {}
    kept = ("success", "inputs", "statistics", "last_version")
    return result.get("before") or {name: result[name] for name in kept if name in result}


def _line(artifact: str, names: tuple[str, ...], subject: Subject, outcome: Outcome) -> str:
    """One broken rule: where, which, how many, the first of them, what was found, what to do."""
    rule, rows = outcome.rule, len(subject.tables[outcome.rule.table])
    which = ""
    if outcome.examples:
        more = ", ..." if outcome.failed_count > len(outcome.examples) else ""
        which = f"{outcome.failed_count} of {rows} fail ({', '.join(outcome.examples)}{more}); "
    return (
        f"{_title(artifact, names)}: {rule.name}: {which}found {outcome.observed}, allowed {rule.limit}; "
        f"to do: {rule.remedy}"
    )
