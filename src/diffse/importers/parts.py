"""What the importers share: hyper-parameters that are read once and accounted for, and the plan they make."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from diffse.errors import DiffseError
from diffse.unpickling import shown

# Stored beside the hyper-parameters of the model, and without effect on what it computes when it enhances.
_ONLY_TRAINING = {
    "base_dir", "batch_size", "data_module_cls", "dummy", "ema_decay", "format", "gpu", "gpus", "lr",
    "num_eval_files", "num_workers", "return_time", "wandb_name", "nolog",
}  # fmt: skip


class Hyper:
    """Hyper-parameters of a checkpoint: typed, with the defaults of their time, each read by name.

    What nobody asked for is listed by `unknown`. A value of the wrong type, or one that diffse has no
    counterpart for, is a DiffseError that names file and entry.
    """

    def __init__(self, source: Path, values: Mapping) -> None:
        self.source, self.values = source, values
        self._read: set[str] = set(_ONLY_TRAINING)

    def has(self, *names: str) -> bool:
        """Whether any of the names is there."""
        return any(name in self.values for name in names)

    def number(self, name: str, default: float) -> float:
        """A finite number."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._fail(name, value, "a number")
        return float(value)

    def whole(self, name: str, default: int, most: int = 1 << 20) -> int:
        """A whole number from 1 to `most`."""
        value = self._get(name, default)
        if type(value) is not int or not 1 <= value <= most:
            raise self._fail(name, value, f"a whole number from 1 to {most}")
        return value

    def wholes(self, name: str, default: tuple[int, ...]) -> list[int]:
        """A few whole numbers from 0 to 1024, in a list or tuple."""
        value = self._get(name, default)
        sound = isinstance(value, list | tuple) and len(value) <= 16
        if not sound or any(type(item) is not int or not 0 <= item <= 1024 for item in value):
            raise self._fail(name, value, "a short list of whole numbers from 0 to 1024")
        return list(value)

    def choice(self, name: str, default: object, choices: Mapping) -> object:
        """What `choices` makes of the value; another value is refused with the ones there are."""
        value = self._get(name, default)
        for allowed, meaning in choices.items():
            if value == allowed and type(value) is type(allowed):
                return meaning
        raise self._fail(name, value, f"one of {', '.join(repr(allowed) for allowed in choices)}")

    def aside(self, name: str, default: int | float) -> int | float:
        """A positive number without effect on enhancement; the default in place of anything odd."""
        value = self._get(name, default)
        usable = type(value) in (type(default), int) and math.isfinite(value) and value > 0
        return value if usable else default

    def skip(self, *names: str) -> None:
        """Names that are known and without effect here."""
        self._read |= set(names)

    def unknown(self) -> list[str]:
        """Names that nobody read."""
        return sorted(shown(name) for name in self.values if name not in self._read)

    def _get(self, name: str, default: object) -> object:
        self._read.add(name)
        return self.values.get(name, default)

    def _fail(self, name: str, value: object, needed: str) -> DiffseError:
        return DiffseError(
            f"{self.source}: hyper-parameter {name} is {str(value)[:60]!r}; diffse can only import {needed}"
        )


@dataclass(frozen=True)
class Plan:
    """A system in diffse's settings (plain, as in a checkpoint's JSON), and where its weights are.

    `prefix` stands before the published names of the network.
    """

    kind: str
    train: dict
    stft: dict
    enhance: dict
    prefix: str = "dnn."
    notes: list[str] = field(default_factory=list)


TRANSFORMS = {"exponent": "exponent", "none": "none"}  # of published spectrograms, that diffse has


def transform(
    hyper: Hyper, factor: float, exponent: float = 0.5, n_fft: int = 510, hop: int = 128
) -> tuple[dict, float]:
    """STFT settings and the factor beta of the compressed spectrogram."""
    stft = {
        "n_fft": hyper.whole("n_fft", n_fft),
        "hop": hyper.whole("hop_length", hop),
        "window": hyper.choice("window", "hann", {"hann": "hann", "sqrthann": "sqrthann"}),
        "exponent": hyper.number("spec_abs_exponent", exponent),
    }
    factor = hyper.number("spec_factor", factor)
    if hyper.choice("transform_type", "exponent", TRANSFORMS) == "none":
        stft["exponent"], factor = 1.0, 1.0
    return stft, factor


def ouve(hyper: Hyper, theta: float = 1.5, sigma_min: float = 0.05, sigma_max: float = 0.5) -> dict:
    """The Ornstein-Uhlenbeck process."""
    return {
        "name": "ouve",
        "theta": hyper.number("theta", theta),
        "sigma_min": hyper.number("sigma_min", sigma_min),
        "sigma_max": hyper.number("sigma_max", sigma_max),
    }


def minus_score(hyper: Hyper) -> dict:
    """Score matching as the first networks do it: they give minus the score, scaled inside."""
    losses = {"score_matching": "squared", "mse": "squared", "mae": "absolute"}
    error = hyper.choice("loss_type", "mse", losses)
    return {"name": "score_matching", "scaling": "none", "sign": -1, "error": error}


def training(hyper: Hyper, stft: dict, rate: int, factor: float, step: int) -> dict:
    """Settings of `train` that say how the system was trained, as far as the file tells."""
    normalise = hyper.choice("normalize", "noisy", {"noisy": "noisy", "clean": "clean", "not": "none"})
    return {
        "rate": rate,
        "factor": factor,
        "frames": max(2, hyper.aside("num_frames", 256)),
        "normalise": normalise,
        "times": {"t_min": min(hyper.aside("t_eps", 0.03), 0.999)},
        "batch": hyper.aside("batch_size", 8),
        "lr": hyper.aside("lr", 1e-4),
        "ema_decay": min(hyper.aside("ema_decay", 0.999), 0.9999999),
        "steps": max(1, step),
    }


def whole_files(sampler: dict, padding: str, synthesis: str) -> dict:
    """Settings of `enhance`: published programs take one file at a time, whole.

    A limit remains, so that an hour of audio does not need an hour of memory.
    """
    return {
        "sampler": sampler,
        "batch": 1,
        "chunk_seconds": 20.0,
        "padding": padding,
        "synthesis": synthesis,
    }
