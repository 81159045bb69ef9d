"""The step `swap`: a StoRM system with the predictor of another system (paper 002, table V)."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from diffse import paths, recipes, settings, trials
from diffse.enhancer import Enhancer, checked_device
from diffse.metrics import tools
from diffse.settings_reader import to_plain


def run(params: settings.Params, name: str, root: Path) -> dict[str, Any]:
    """Score the swap `name` of params.yaml and write results/swaps/<name>/ (table.csv, summary.json).

    Rows: the input, both predictors alone, the system as it was trained, and with the other predictor.
    DiffseError, before any work, where the two do not fit together.
    """
    swap = params.swaps[name]
    enhance = params.enhance[paths.split_system(swap.system)[0]]
    model, other = paths.model(root, swap.system), paths.model(root, swap.predictor)
    device = checked_device(None)
    own = recipes.load_system(model / enhance.weights, device, enhance)
    swapped = recipes.with_predictor(own, other, device)
    made_from = {"models": [trials.checksums(model), trials.checksums(other)], "enhance": to_plain(enhance)}
    rows: list[tuple[str, Callable[[], recipes.System]]] = [
        (f"{swap.system}, its predictor alone", partial(predictor_alone, own)),
        (f"{swap.predictor}, predictor alone", partial(predictor_alone, swapped)),
        (swap.system, lambda: own),
        (f"{swap.system} with {swap.predictor}", lambda: swapped),
    ]

    def variant(label: str, system: Callable[[], recipes.System]) -> trials.Variant:
        load = lambda: Enhancer(system(), device, resample=False)  # noqa: E731
        return trials.Variant(label, None, made_from | {"row": label}, load)

    plan = trials.Plan(
        entry=f"swaps.{name}",
        files=trials.choose(root, swap.corpus, swap.split, swap.files),
        variants=[trials.Variant(trials.INPUT, None, {}, None), *(variant(*row) for row in rows)],
        metrics=swap.metrics,
        evaluate=params.evaluate,
        tools=tools.find(params.evaluate, swap.metrics, root),
    )
    facts = {"kind": "swap", "name": name, "sampler": to_plain(enhance.sampler)}
    facts |= {key: getattr(swap, key) for key in ("system", "predictor", "corpus", "split")}
    folder = paths.swap(root, name)
    return trials.record(trials.write(folder, plan, trials.measure(plan, folder), facts))


def predictor_alone(system: recipes.System) -> recipes.System:
    """The first stage of a StoRM system as a predictive system of its own."""
    train = dataclasses.replace(
        system.train,
        process=settings.NoProcess(),
        objective=settings.Regression(),
        network=system.train.predictor.network,
        predictor=None,
    )
    enhance = dataclasses.replace(system.enhance, sampler=settings.Direct())
    network = system.network.predictor
    return recipes.assemble(train, system.stft, enhance, network, system.description)
