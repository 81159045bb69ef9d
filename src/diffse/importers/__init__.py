"""Published checkpoints -> checkpoints of diffse, without executing what the files carry.

The result's settings switch on what the published programs do, so that it enhances as they do; see
docs/differences.md for what these settings are.
"""

import re
from pathlib import Path

import torch
from torch import nn

from diffse import checkpoint, recipes, settings, unpickling
from diffse.errors import DiffseError
from diffse.importers import edm2se, lightning, sgmse, storm, udiffse
from diffse.importers.lightning import Published
from diffse.importers.parts import Plan, shown
from diffse.settings_reader import from_plain, to_plain
from diffse.storage import read_json, sha256_file

KINDS = {"sgmse": sgmse.plan, "storm": storm.plan, "edm2se": edm2se.plan, "udiffse": udiffse.plan}


def run(source: Path | str, target: Path | str, kind: str | None = None, name: str | None = None) -> dict:
    """Import the file `source` as the checkpoint folder `target`, and say what was found.

    Args:
        kind: one of KINDS; by default what names and hyper-parameters tell.
        name: of the recipe; by default the file's name.

    Raises DiffseError, one line, for a file that is no published checkpoint or cannot be imported, and for a
    target that holds anything else than an earlier import of this file.
    """
    source, target = Path(source), Path(target)
    if kind is not None and kind not in KINDS:
        raise DiffseError(f"kind '{kind}' is not known; allowed: {', '.join(KINDS)}")
    published = lightning.parse(source, unpickling.read(source))
    digest = sha256_file(source)
    _check_target(target, source, digest)
    plan = KINDS[kind or detect(published)](published)
    recipe = _recipe(source, name)
    train, stft, enhance = _settings(source, recipe, plan)
    network, weights = _network(published, plan, train, stft)
    facts = {"file": source.name, "sha256": digest, "kind": plan.kind, "weights": weights}
    facts |= {"epoch": published.epoch, "global_step": published.step, "lightning": published.lightning}
    parameters = recipes.count_parameters(network)
    description = {"recipe": recipe, "step": published.step, "parameters": parameters, "imported": facts}
    description |= {"train": to_plain(train), "stft": to_plain(stft), "enhance": to_plain(enhance)}
    checkpoint.save(target, network, description)
    return {
        "kind": plan.kind,
        "recipe": recipe,
        "folder": str(target),
        "parameters": parameters,
        "weights": weights,
        "step": published.step,
        "settings": _line(train, enhance),
        "warnings": _warnings(published, plan),
    }


def detect(published: Published) -> str:
    """The kind of a checkpoint, from the names and shapes of its weights first, then its hyper-parameters."""
    if edm2se.is_edm2se(published):
        return "edm2se"
    if storm.has_pair(published) or storm.is_predictor(published):
        return "storm"
    if udiffse.is_prior(published):
        return "udiffse"
    if not any(name.startswith("dnn.") for name in published.state):
        names = ", ".join(shown(name) for name in list(published.state)[:3])
        raise DiffseError(
            f"{published.source}: not a published system that diffse knows (its weights: {names})"
        )
    return "storm" if storm.is_score(published) else "sgmse"


def _check_target(target: Path, source: Path, digest: str) -> None:
    """Refuse to replace anything but an earlier import of the same file."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    files = {checkpoint.WEIGHTS, checkpoint.DESCRIPTION}
    if target.is_dir() and {item.name for item in target.iterdir()} == files:
        description = read_json(target / checkpoint.DESCRIPTION)
        imported = description.get("imported") if isinstance(description, dict) else None
        if isinstance(imported, dict) and imported.get("sha256") == digest:
            return
    raise DiffseError(
        f"{target}: already exists and is no earlier import of {source.name}; choose another folder"
    )


def _recipe(source: Path, name: str | None) -> str:
    recipe = re.sub(r"[^A-Za-z0-9_-]+", "_", source.stem).strip("_") or "imported" if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9_-]+", recipe):
        raise DiffseError(f"'{recipe}' cannot be a name; use letters, digits, '_' and '-'")
    return recipe


def _settings(source: Path, recipe: str, plan: Plan) -> tuple[settings.Train, settings.Stft, settings.Enhance]:
    """The plan as settings, checked as those of `params.yaml` are."""
    where = str(source)
    train = from_plain(settings.Train, plan.train, where)
    stft = from_plain(settings.Stft, plan.stft, where)
    enhance = from_plain(settings.Enhance, plan.enhance, where)
    settings.check_recipe(recipe, train, enhance, where)
    return train, stft, enhance


def _network(
    published: Published, plan: Plan, train: settings.Train, stft: settings.Stft
) -> tuple[nn.Module, str]:
    """The network with the published weights, and which of them were taken."""
    try:
        with torch.device("meta"):  # no memory for a size that the file only claims
            network = recipes.build_network(train, stft)
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        reason = str(error).splitlines()[0]
        raise DiffseError(
            f"{published.source}: the network of its hyper-parameters cannot be built ({reason})"
        ) from None
    tensors, weights = lightning.take(published, network, plan.prefix)
    network.load_state_dict(tensors, assign=True)
    return network, weights


def _line(train: settings.Train, enhance: settings.Enhance) -> str:
    """The system in one line."""
    names = [train.process.name, train.objective.name, train.network.name]
    if train.predictor is not None:
        names.append(f"predictor {train.predictor.network.name}")
    steps = f", {enhance.sampler.steps} steps" if hasattr(enhance.sampler, "steps") else ""
    return f"{', '.join(names)}; {enhance.sampler.name}{steps}; {train.rate} Hz"


def _warnings(published: Published, plan: Plan) -> list[str]:
    warnings = list(plan.notes)
    unknown = published.hyper.unknown()
    if unknown:
        warnings.append(f"hyper-parameters without a meaning here, ignored: {', '.join(unknown)}")
    if plan.kind != "edm2se" and not published.has_hyper:
        warnings.append("the file has no hyper-parameters; the published program's defaults were taken")
    if plan.kind != "edm2se" and published.shadow is None:
        warnings.append("the file has no average; its last weights were taken")
    return warnings
