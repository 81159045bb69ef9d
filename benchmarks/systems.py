"""How fast every system trains and samples, next to a plain implementation on the same network.

    python benchmarks/systems.py [--systems m1 storm ...] [--repeats 5] [--out benchmarks/results/systems.json]

Each system is a preset's small form, 2 x 128 frames, one thread. A training step is what `Trainer._step` does
with a batch in memory (times, noise, loss, backward, optimiser, average); a sampling step is a third of a
sampling in three steps. The plain form is `reference/`. The two take turns, so that a busy machine slows both;
figures are medians of CPU time, ratios medians over rounds. "Outside" is the same without the network's own
arithmetic, which both share: a few milliseconds that the noise of the rest would hide. First both must give the
same loss, gradients and estimates.
"""

import argparse
import contextlib
import dataclasses
import functools
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from reference.systems import build_model, sample
from reference.training import Training
from torch import Tensor, nn

from diffse import prediction, presets, recipes, regeneration, settings, storage, training
from diffse.distributed import Processes
from diffse.settings_reader import build

RESULT = Path(__file__).parent / "results" / "systems.json"
BATCH, FRAMES, STEPS, OUTSIDE_ROUNDS = 2, 128, 3, 15
LOSS_TOLERANCE, GRADIENT_TOLERANCE, SAMPLE_TOLERANCE = 1e-4, 1e-3, 1e-3
NAMES = [name.removesuffix("_small") for name in presets.table() if name.endswith("_small")]


# ------------------------------------------------------------------------------------- what is compared


def load(name: str) -> tuple[settings.Train, settings.Stft, settings.Enhance]:
    """Settings of a preset's small form: joint training from the first step, sampling in few steps."""
    node = presets.table()[f"{name}_small"].value
    train, enhance = build(settings.Train, node["train"]), build(settings.Enhance, node["enhance"])
    train = dataclasses.replace(train, batch=BATCH, frames=FRAMES, warmup_steps=0)
    train = with_scales(train)
    if train.predictor is not None:
        train = dataclasses.replace(train, predictor=dataclasses.replace(train.predictor, pretrain_steps=0))
    return (
        train,
        train.stft or settings.Stft(),
        dataclasses.replace(enhance, sampler=shortened(enhance.sampler)),
    )


def with_scales(train: settings.Train) -> settings.Train:
    """EDM2SE's standard deviations, which a stage estimates from the training data, as its paper has them."""
    if not isinstance(train.objective, settings.EDM2SE):
        return train
    return dataclasses.replace(
        train, objective=dataclasses.replace(train.objective, sigma_x=0.402, sigma_n=0.342)
    )


def shortened(sampler: settings.Sampler) -> settings.Sampler:
    """The sampler with `STEPS` steps (one where it has none)."""
    if isinstance(sampler, settings.EM | settings.EMProximal):
        return dataclasses.replace(sampler, steps=STEPS, em_iterations=1)
    if isinstance(sampler, settings.VEM):
        return dataclasses.replace(sampler, iterations=STEPS)
    return dataclasses.replace(sampler, steps=STEPS) if hasattr(sampler, "steps") else sampler


def waken(network: nn.Module) -> None:
    """Weights that start at zero get values, so that comparing outputs says something."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad and parameter.abs().max() < 1e-3:
                parameter.normal_(0, 0.02)


def batch(train: settings.Train, stft: settings.Stft) -> tuple[Tensor, Tensor]:
    """Clean and noisy spectrograms [B, 1, F, T] of noise under a syllable-like envelope."""
    generator = torch.Generator().manual_seed(0)
    length = (FRAMES - 1) * stft.hop
    envelope = torch.sin(torch.arange(length) * 2 * math.pi * 3 / train.rate).abs()
    clean = 0.2 * envelope * torch.randn(BATCH, length, generator=generator)
    noisy = clean + 0.1 * torch.randn(BATCH, length, generator=generator)
    spectrogram = recipes.build_spectrogram(stft, train.factor)
    clean, noisy = (wave / noisy.abs().amax(1, keepdim=True) for wave in (clean, noisy))
    return spectrogram.analyse(clean)[:, None], spectrogram.analyse(noisy)[:, None]


def trainer_of(train: settings.Train, stft: settings.Stft) -> training.Trainer:
    """A trainer around fresh weights, without the data and the files that a run has."""
    trainer = object.__new__(training.Trainer)
    trainer.recipe, trainer.corpus, trainer.folder = "benchmark", "none", None
    trainer.train_settings, trainer.stft = train, stft
    trainer.processes = Processes(1)
    trainer.processes.device = torch.device("cpu")
    trainer.log = SimpleNamespace(step=lambda *values: None)
    trainer.state = trainer._initial_state()
    waken(trainer.state.network)
    objective = recipes.build_objective(train, stft, trainer.state.network)
    trainer.loss = training.Loss(trainer.state.network, objective)
    return trainer


@contextlib.contextmanager
def hollow(network: nn.Module) -> Iterator[None]:
    """Inside, the network returns its input; in training it still has a gradient, 0, for every parameter."""
    parts = [network.predictor, network.score] if isinstance(network, regeneration.Pair) else [network]
    parts = [part.network if isinstance(part, prediction.InWaveform) else part for part in parts]
    for part in parts:
        part.forward = functools.partial(_copy_input, [p for p in part.parameters() if p.requires_grad])
    try:
        yield
    finally:
        for part in parts:
            del part.forward


def _copy_input(parameters: list[nn.Parameter], x: Tensor, *_: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return 0.5 * x[:, :1]
    return x[:, :1] * (0.5 + 0.0 * sum(parameter.sum() for parameter in parameters))


# ------------------------------------------------------------------------------------------- agreement


def with_gradients(network: nn.Module, loss: Tensor) -> tuple[float, list[Tensor]]:
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return float(loss.detach()), [
        torch.zeros_like(p) if g is None else g for p, g in zip(wanted, found, strict=True)
    ]


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """|found - expected| / |expected| over all tensors."""
    error = sum((a - b).abs().double().square().sum() for a, b in zip(found, expected, strict=True))
    return float((error / sum(b.abs().double().square().sum() for b in expected)).sqrt())


def training_agreement(trainer: training.Trainer, plain: Training, x_0: Tensor, y: Tensor) -> dict[str, float]:
    """Relative differences of loss and gradients at the same times and noise."""
    t, z = torch.tensor([0.3, 0.8]), torch.randn(x_0.shape, dtype=x_0.dtype)
    network = trainer.state.network
    own, own_gradients = with_gradients(network, trainer.loss(x_0, y, t, z, False))
    other, other_gradients = with_gradients(network, plain.loss(x_0, y, t, z))
    return {
        "loss": abs(own - other) / abs(other),
        "gradients": distance(own_gradients, other_gradients),
    }


def draws(y: Tensor, seed: int) -> Callable[[int | None], Callable[[], Tensor]]:
    """Noise per file, the same for one file and for the batch."""

    def of(file: int | None) -> Callable[[], Tensor]:
        files = range(len(y)) if file is None else [file]
        sources = [torch.Generator().manual_seed(seed + b) for b in files]
        return lambda: torch.stack([torch.randn(y.shape[1:], dtype=y.dtype, generator=g) for g in sources])

    return of


# ---------------------------------------------------------------------------------------------- timing


def take_turns(actions: dict[str, Callable[[], object]], rounds: int, divisor: int = 1) -> dict:
    """CPU milliseconds of each action per round, and plain / ours round by round."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):  # the first round makes what is kept: optimiser state, windows
        order = list(actions) if number % 2 else list(actions)[::-1]
        for name in order:
            began = time.process_time()
            actions[name]()
            if number:
                times[name].append((time.process_time() - began) * 1e3 / divisor)
    ratios = [plain / own for own, plain in zip(times["ours"], times["plain"], strict=True)]
    rows = {f"{name}_ms": summary(values) for name, values in times.items()}
    return rows | {"plain_over_ours": summary(ratios, 3)}


def summary(values: list[float], digits: int = 2) -> dict[str, float]:
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def measure(name: str, rounds: int) -> dict:
    """Agreement and times of one system."""
    train, stft, enhance = load(name)
    torch.manual_seed(0)
    trainer = trainer_of(train, stft)
    network = trainer.state.network
    model = build_model(train, stft, network)
    plain = Training(model, network, train)
    x_0, y = batch(train, stft)
    agreement = training_agreement(trainer, plain, x_0, y)
    data = {"clean": x_0, "noisy": y, "k": torch.arange(BATCH), "ids": ["a", "b"]}
    actions = {"ours": lambda: trainer._step(data), "plain": lambda: plain.step(x_0, y)}
    row = {"parameters": recipes.count_parameters(network)}
    row["training"] = timed(network, actions, rounds)
    actions = samplings(recipes.assemble(train, stft, enhance, network, {}), model, y)
    agreement["estimate"] = distance([actions["ours"]()], [actions["plain"]()])
    steps = 1 if isinstance(enhance.sampler, settings.Direct) else STEPS
    return row | {"sampling": timed(network, actions, rounds, steps), "agreement": agreement}


def samplings(system: recipes.System, model, y: Tensor) -> dict[str, Callable[[], Tensor]]:
    """A sampling of y, as the Enhancer does it and plainly."""
    setting = system.enhance.sampler
    own = recipes.build_sampler(setting, system.train, system.objective)

    def ours() -> Tensor:
        with torch.inference_mode():
            return own(y, draws(y, 1)(None))

    return {"ours": ours, "plain": lambda: sample(model, setting, y, draws(y, 1))}


def timed(network: nn.Module, actions: dict, rounds: int, divisor: int = 1) -> dict:
    """Times with the network and, where it can be hollow, outside it."""
    found = take_turns(actions, rounds, divisor)
    if hasattr(network, "encode"):  # an autoencoder's parts have other shapes
        return found
    with hollow(network):
        return found | {"outside": take_turns(actions, OUTSIDE_ROUNDS, divisor)}


def check(name: str, agreement: dict[str, float]) -> None:
    limits = {"loss": LOSS_TOLERANCE, "gradients": GRADIENT_TOLERANCE, "estimate": SAMPLE_TOLERANCE}
    for what, limit in limits.items():
        if not agreement[what] <= limit:
            raise SystemExit(f"{name}: {what} differ by {agreement[what]:.1e}; nothing can be compared")


# ---------------------------------------------------------------------------------------------- output

PARTS = ("training", "sampling")
HEADER = "| system | " + " | ".join(
    f"{part} step: ours ms | plain ms | plain / ours | outside: ours ms | plain ms" for part in PARTS
)


def line(name: str, row: dict) -> str:
    cells = [name]
    for part in PARTS:
        found, outside = row[part], row[part].get("outside")
        ratio = found["plain_over_ours"]
        cells += [f"{found['ours_ms']['median']:.1f}", f"{found['plain_ms']['median']:.1f}"]
        cells.append(f"{ratio['median']:.2f} ({ratio['least']:.2f}-{ratio['most']:.2f})")
        cells += [f"{outside[way]['median']:.1f}" if outside else "" for way in ("ours_ms", "plain_ms")]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load_before, began, rows = os.getloadavg()[0], time.process_time(), {}
    print(f"{HEADER} |", "|---" * 11 + "|", sep="\n")
    for name in args.systems:
        rows[name] = measure(name, args.repeats)
        check(name, rows[name]["agreement"])
        print(line(name, rows[name]), flush=True)
    result = {
        "setting": {
            "batch": BATCH,
            "frames": FRAMES,
            "sampler_steps": STEPS,
            "rounds": args.repeats,
            "threads": 1,
        },
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__},
        "load_before": load_before,
        "cpu_s": round(time.process_time() - began, 1),
        "systems": rows,
    }
    storage.write_json(args.out, result)


if __name__ == "__main__":
    main()
