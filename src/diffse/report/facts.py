"""What was run, as text for the page: systems, corpora and metrics with their versions."""

from typing import Any

from diffse import paths
from diffse.report.artifacts import Model, Project
from diffse.report.compare import metric, number, ordered


def paper(model: Model) -> str:
    """The row of the papers' tables that the recipe reproduces."""
    train = (model.checkpoint or {}).get("train")
    return str(train.get("paper") or "") if isinstance(train, dict) else ""


def origin(system: str, project: Project) -> str:
    """What a system is, in a few words: its paper row, and whether it is somebody else's; "" for the input."""
    if system in project.externals:
        return f"external: {text}" if (text := _external(system, project).get("paper")) else "external"
    return paper(project.models[system]) if system in project.models else ""


def _external(system: str, project: Project) -> dict[str, Any]:
    """enhanced.json of the first corpus that an external system enhanced."""
    runs = (project.enhanced[system, corpus].facts for corpus in project.corpora)
    return next((facts for facts in runs if facts), {})


def system_facts(system: str, project: Project) -> dict[str, str]:
    """What the checkpoint and the enhanced audio say about a system, as text."""
    if system in project.externals:
        return _external_facts(system, project)
    return _model_facts(project.models[system], project)


def _external_facts(system: str, project: Project) -> dict[str, str]:
    import yaml

    facts = _external(system, project)
    options = facts.get("settings") or {}
    how = "program" if options.get("command") else "files"
    return dict.fromkeys(("trained_on", "step", "data", "weights", "code"), "–") | {
        "system": system,
        "paper": str(facts.get("paper") or "–"),
        "parameters": f"{facts['parameters']:,}" if facts.get("parameters") else "–",
        "sampler": f"external: {how}" if facts else "external",
        "settings": yaml.safe_dump(options, sort_keys=False, allow_unicode=True) if options else "",
    }


def _model_facts(model: Model, project: Project) -> dict[str, str]:
    import yaml

    checkpoint = model.checkpoint or {}
    parts = {name: checkpoint[name] for name in ("train", "stft", "enhance", "ema") if checkpoint.get(name)}
    return {
        "system": model.system,
        "paper": paper(model) or "–",
        "trained_on": str(checkpoint.get("trained_on") or paths.split_system(model.system)[1]),
        "step": f"{checkpoint['step']:,}" if checkpoint.get("step") is not None else "–",
        "parameters": f"{checkpoint['parameters']:,}" if checkpoint.get("parameters") else "–",
        "sampler": _samplers(model.system, project) or "–",
        "data": _version(checkpoint.get("data_version")),
        "weights": _version(checkpoint.get("weights_sha256")),
        "code": _version(checkpoint.get("code_version")),
        "settings": yaml.safe_dump(parts, sort_keys=False, allow_unicode=True) if parts else "",
    }


def _samplers(system: str, project: Project) -> str:
    """The sampler that enhanced each corpus; once if it was the same for all."""
    runs = {corpus: project.enhanced[system, corpus].facts for corpus in project.corpora}
    texts = {corpus: _short(facts["sampler"]) for corpus, facts in runs.items() if facts.get("sampler")}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{corpus}: {text}" for corpus, text in texts.items())


def _short(sampler: Any) -> str:
    if not isinstance(sampler, dict):
        return str(sampler)
    return ", ".join(str(value) if name == "name" else f"{name} {value}" for name, value in sampler.items())


def _version(value: Any) -> str:
    """Twelve digits of a checksum, or package and commit of a code version."""
    if isinstance(value, dict):
        commit = str(value.get("commit") or "no commit")[:12]
        return f"{value.get('package', '')} {commit}{' with changes' if value.get('dirty') else ''}".strip()
    return str(value)[:12] if value else "–"


def corpus_facts(project: Project, corpus: str) -> dict[str, str]:
    """What the manifest of a corpus says, as text; dashes when it is not here."""
    mixtures = project.mixtures[corpus]
    table = mixtures.table
    facts = dict.fromkeys(("splits", "speakers", "rate", "snr", "rejected", "data"), "–") | {"corpus": corpus}
    if table is None or table.empty:
        return facts
    splits = []
    for name in ("train", "valid", "test"):
        part = table[table["split"] == name]
        if len(part):
            splits.append(f"{name} {len(part)} files, {part['seconds'].sum() / 60:.1f} min")
    test = table[table["split"] == "test"]
    shown = test if len(test) else table
    low, high = shown["snr_measured_db"].min(), shown["snr_measured_db"].max()
    facts.update(
        splits="; ".join(splits),
        speakers=str(table["speaker"].nunique()),
        rate=", ".join(f"{rate / 1000:g} kHz" for rate in sorted(table["rate"].unique())),
        snr=f"{number(float(low), 1)} to {number(float(high), 1)} dB",
        rejected=str(mixtures.rejected),
        data=mixtures.sha256[:12],
    )
    return facts


def metric_facts(project: Project) -> list[tuple[str, str, str, str]]:
    """(metric, unit, rate, version), each combination once."""
    found = {}
    for scores in project.scores.values():
        for name, value in scores.metrics.items():
            rate = f"{value.rate / 1000:g} kHz" if value.rate else "that of the file"
            found[(name, value.unit, rate, value.version)] = None
    order = ordered(name for name, *_ in found)
    ranked = sorted(found, key=lambda entry: (order.index(entry[0]), entry[2:]))
    return [(metric(name).label, unit or "–", rate, version or "–") for name, unit, rate, version in ranked]
