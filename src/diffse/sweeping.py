"""The step `sweep`: one trained system at several numbers of sampling steps or lengths of the weights' average.

As in figure 6 of paper 002 (scores over steps) and figure 2 of paper 001 (scores over the average's length).
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from diffse import checkpoint, paths, posthoc, settings, trials
from diffse.enhancer import Enhancer, checked_device
from diffse.errors import DiffseError
from diffse.metrics import tools
from diffse.settings_reader import to_plain


def run(params: settings.Params, name: str, root: Path) -> dict[str, Any]:
    """Score the sweep `name` of params.yaml and write results/sweeps/<name>/.

    The folder holds table.csv, summary.json (scores of every file too) and figure.svg. DiffseError, before any
    work: a value that the system cannot be run with.
    """
    sweep = params.sweeps[name]
    entry, recipe = f"sweeps.{name}", paths.split_system(sweep.system)[0]
    base, model = params.enhance[recipe], paths.model(root, sweep.system)
    prepare = {"steps": _of_steps, "ema": _of_ema}[sweep.over]
    values = sorted(set(sweep.values))
    if not values:
        raise DiffseError(f"{entry}.values: there are none; list at least one")
    samplers = sweep.samplers or {"": base.sampler}
    variants = [
        prepare(entry, model, dataclasses.replace(base, sampler=sampler), value, name)
        for name, sampler in samplers.items()
        for value in values
    ]
    plan = trials.Plan(
        entry=entry,
        files=trials.choose(root, sweep.corpus, sweep.split, sweep.files),
        variants=[trials.Variant(trials.INPUT, None, {}, None), *variants],
        metrics=sweep.metrics,
        evaluate=params.evaluate,
        tools=tools.find(params.evaluate, sweep.metrics, root),
    )
    facts = {"kind": "sweep", "name": name, "sampler": to_plain(base.sampler)}
    if sweep.samplers:
        facts["sampler"] = {name: to_plain(sampler) for name, sampler in sweep.samplers.items()}
    facts |= {key: getattr(sweep, key) for key in ("system", "corpus", "over", "split")}
    folder = paths.sweep(root, name)
    return trials.record(trials.write(folder, plan, trials.measure(plan, folder), facts))


def _of_steps(
    entry: str, model: Path, base: settings.Enhance, value: float, family: str = ""
) -> trials.Variant:
    if not hasattr(base.sampler, "steps"):
        raise DiffseError(f"{entry}: sampler '{base.sampler.name}' has no number of steps to change")
    if value != int(value) or value < 1:
        raise DiffseError(f"{entry}.values: {value:g} is no number of steps; give whole numbers from 1 on")
    sampler = dataclasses.replace(base.sampler, steps=int(value))
    enhance = dataclasses.replace(base, sampler=sampler)
    plural = "step" if value == 1 else "steps"
    name = f"{family}, {value:.0f} {plural}" if family else f"{value:.0f} {plural}"
    variant = _variant(name, value, model, model / enhance.weights, enhance)
    return dataclasses.replace(variant, family=family)


def _of_ema(entry: str, model: Path, base: settings.Enhance, value: float, _: str = "") -> trials.Variant:
    """The weights averaged over the relative length `value`; 0: as training left them."""
    if value == 0:
        raw = model / "raw"
        if not (raw / checkpoint.DESCRIPTION).is_file():
            raise DiffseError(f"{entry}.values: 0 needs {raw}, which a training with power_ema writes")
        return _variant("no average", 0.0, model, raw, dataclasses.replace(base, ema=None))
    try:
        posthoc.plan(model / posthoc.FOLDER, value)
    except DiffseError as error:
        raise DiffseError(f"{entry}.values: {value:g} cannot be had: {error}") from None
    enhance = dataclasses.replace(base, ema=value)
    return _variant(f"length {value:g}", value, model, model / enhance.weights, enhance)


def _variant(name: str, value: float, model: Path, folder: Path, enhance: settings.Enhance) -> trials.Variant:
    made_from = {"model": trials.checksums(model), "folder": folder.name, "enhance": to_plain(enhance)}
    load = partial(Enhancer.from_checkpoint, folder, checked_device(None), enhance=enhance, resample=False)
    return trials.Variant(name, value, made_from, load)
