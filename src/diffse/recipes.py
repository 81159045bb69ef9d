"""From settings to objects: the one place where the names of `params.yaml` meet classes.

A new network, objective or sampler is one file and one entry in a table here (docs/extending.md).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from diffse import (
    checkpoint,
    edm2se,
    multistep,
    objectives,
    posterior,
    posthoc,
    prediction,
    processes,
    proximal,
    regeneration,
    samplers,
    settings,
    variational,
)
from diffse.errors import DiffseError
from diffse.networks.dcunet import DCUNet
from diffse.networks.gagnet import GaGNet
from diffse.networks.mp_adm import MPADM
from diffse.networks.ncsnpp import NCSNpp
from diffse.networks.rvae import RVAE
from diffse.settings_reader import extend, from_plain
from diffse.spectrogram import Spectrogram

Sampler = Callable[[Tensor, Callable[[], Tensor]], Tensor]


class Objective(Protocol):
    """What training and samplers need of an objective; see `objectives.py`."""

    def prepare(self, y: Tensor) -> objectives.Conditions: ...
    def denoise(self, x_t: Tensor, conditions: objectives.Conditions, t: Tensor) -> Tensor: ...
    def loss(self, x_0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor: ...


PROCESSES = {settings.OUVE: processes.OUVE, settings.SBVE: processes.SBVE}
NETWORKS = {
    settings.NCSNpp: NCSNpp,
    settings.MPADM: MPADM,
    settings.DCUNet: DCUNet,
    settings.GaGNet: GaGNet,
    settings.RVAE: RVAE,
}
OBJECTIVES = {
    settings.ScoreMatching: objectives.ScoreMatching,
    settings.Denoising: objectives.Denoising,
    settings.DataPrediction: objectives.DataPrediction,
    settings.WeightedSupervised: objectives.WeightedSupervised,
    settings.EDM2SE: edm2se.EDM2SE,
    settings.Regression: prediction.Regression,
    settings.ELBO: variational.ELBO,
}
# Objectives that compare waveforms or power spectra and therefore know the transform.
_NEED_SPECTROGRAM = (settings.DataPrediction, settings.EDM2SE, settings.Regression, settings.ELBO)


def _options(setting: object) -> dict:
    """Fields of a settings object without its tag."""
    return {entry.name: getattr(setting, entry.name) for entry in dataclasses.fields(setting)[1:]}


def build_process(setting: object) -> processes.OUVE | processes.SBVE | None:
    """Settings -> process; None for predictive systems."""
    return None if isinstance(setting, settings.NoProcess) else PROCESSES[type(setting)](**_options(setting))


def build_spectrogram(stft: settings.Stft, factor: float) -> Spectrogram:
    """Transform settings and the recipe's beta -> transform."""
    return Spectrogram(stft.n_fft, stft.hop, stft.window, stft.exponent, factor)


# ---------------------------------------------------------------------------------------------- networks


def build_network(train: settings.Train, stft: settings.Stft) -> nn.Module:
    """The trainable module of a system, with freshly drawn weights (from torch's global generator).

    `stft` is the transform that the system uses. DiffseError for a network that does not fit it.
    """
    spectrogram = build_spectrogram(stft, train.factor)
    if train.predictor is None:
        return _single_network(train.network, _inputs(train), spectrogram)
    predictor = _single_network(train.predictor.network, 1, spectrogram)
    return regeneration.Pair(predictor, _single_network(train.network, _inputs(train), spectrogram))


def _inputs(train: settings.Train) -> int:
    """Complex spectrograms that the network sees: the state and its conditions."""
    if isinstance(train.objective, settings.Regression) or getattr(train.objective, "prior", False):
        return 1
    return 3 if train.predictor is not None and train.predictor.conditioning == "both" else 2


def _single_network(setting: settings.Network, inputs: int, spectrogram: Spectrogram) -> nn.Module:
    if isinstance(setting, settings.ConvTasNet):
        return prediction.InWaveform(_conv_tasnet(setting), spectrogram)
    if setting.freq_bins != spectrogram.freq_bins:
        raise DiffseError(
            f"network.freq_bins is {setting.freq_bins}, but an STFT of n_fft {spectrogram.n_fft} has "
            f"{spectrogram.freq_bins} bins; make them agree"
        )
    options = _options(setting)
    if not isinstance(setting, settings.RVAE):
        options["inputs"] = inputs
    return _built(NETWORKS[type(setting)], setting.name, options)


def _built(network: type[nn.Module], name: str, options: dict) -> nn.Module:
    """A network; what it refuses becomes one line."""
    try:
        return network(**options)
    except ValueError as error:
        raise DiffseError(f"network '{name}' cannot be built: {error}; change its settings") from None


def _conv_tasnet(setting: settings.ConvTasNet) -> nn.Module:
    try:
        from diffse.networks.conv_tasnet import ConvTasNet

        return _built(ConvTasNet, setting.name, _options(setting))
    except ModuleNotFoundError as error:
        raise DiffseError(f"network conv_tasnet needs {error.name}: pip install 'diffse[train]'") from None


def register(setting: type, network: type[nn.Module]) -> None:
    """Make a network known: a dataclass of its settings, tagged by its first field `name`, and its module."""
    NETWORKS[setting] = network
    extend(settings.NCSNpp, setting)


def count_parameters(network: nn.Module) -> int:
    """All parameters, fixed ones included (as the papers count)."""
    return sum(parameter.numel() for parameter in network.parameters())


# -------------------------------------------------------------------------------------------- objectives


def build_objective(train: settings.Train, stft: settings.Stft, network: nn.Module) -> Objective:
    """Settings and the module of `build_network` -> objective."""
    predictor = train.predictor
    if predictor is None:
        return _single_objective(train, stft, network)
    inner = _single_objective(train, stft, network.score)
    return regeneration.Regeneration(
        network.predictor,
        inner,
        conditioning=predictor.conditioning,
        supervision=predictor.supervision,
        fine_tune=predictor.fine_tune,
        refine=predictor.refine,
        published=predictor.published,
    )


def _single_objective(train: settings.Train, stft: settings.Stft, network: nn.Module):
    options = _options(train.objective)
    if "preconditioning" in options:
        options["preconditioning"] = objectives.Preconditioning(
            **dataclasses.asdict(options["preconditioning"])
        )
    if not isinstance(train.process, settings.NoProcess):
        options["process"] = build_process(train.process)
    if isinstance(train.objective, _NEED_SPECTROGRAM):
        options["spectrogram"] = build_spectrogram(stft, train.factor)
    if isinstance(train.objective, settings.DataPrediction):
        options["rate"] = train.rate
    return OBJECTIVES[type(train.objective)](network, **options)


# ---------------------------------------------------------------------------------------------- samplers


def build_sampler(setting: settings.Sampler, train: settings.Train, objective: Objective) -> Sampler:
    """Settings -> function (y, draw) -> clean estimate, for y [B, 1, F, T] complex."""
    process, options = build_process(train.process), _options(setting)

    def sample(y: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        if isinstance(setting, settings.VEM):
            return variational.vem(objective.network, objective.spectrogram, y, draw, **options)
        if isinstance(setting, settings.EM | settings.EMProximal):  # nothing of y goes into the network

            def prior(x_t: Tensor, t: Tensor) -> Tensor:
                return objective.denoise(x_t, objective.prepare(x_t), t)

            em = posterior.em if isinstance(setting, settings.EM) else proximal.em_proximal
            return em(prior, process, y, draw, **options)
        conditions = objective.prepare(y)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return objective.denoise(x_t, conditions, t)

        x = _SAMPLING[type(setting)](denoise, process, conditions.end, draw, options)
        return x if conditions.offset is None else x + conditions.offset

    return sample


_SAMPLING = {
    settings.PredictorCorrector: lambda d, p, y, draw, o: samplers.predictor_corrector(d, p, y, draw, **o),
    settings.ProbabilityFlowODE: lambda d, p, y, draw, o: samplers.probability_flow_ode(d, p, y, draw, **o),
    settings.Multistep: lambda d, p, y, draw, o: multistep.multistep(d, p, y, draw, **o),
    settings.BridgeODE: lambda d, p, y, draw, o: samplers.bridge_ode(d, p, y, **o),
    settings.BridgeSDE: lambda d, p, y, draw, o: samplers.bridge_sde(d, p, y, draw, **o),
    settings.Direct: lambda d, p, y, draw, o: samplers.direct(d, y),
}


def evaluations(train: settings.Train, setting: settings.Sampler) -> int | None:
    """Examples that go through the networks for one signal; None where error control decides."""
    if isinstance(setting, settings.ProbabilityFlowODE):
        return None
    if isinstance(setting, settings.Direct):
        return 1
    if isinstance(setting, settings.EM):
        e = setting
        return posterior.evaluations(e.steps, e.em_iterations, e.samples, e.corrector_scale)
    if isinstance(setting, settings.EMProximal):
        return setting.em_iterations * setting.samples * setting.steps
    if isinstance(setting, settings.VEM):  # of the decoder: each gradient step, each update, and the result
        return setting.iterations * (setting.gradient_steps + 1) + 1
    predictor = int(train.predictor is not None)
    if isinstance(setting, settings.PredictorCorrector):
        corrector = setting.corrector_steps if setting.corrector != "none" else 0
        return predictor + setting.steps * (corrector + (setting.predictor != "none"))
    return predictor + setting.steps


# ------------------------------------------------------------------------------------------------ systems


@dataclass(frozen=True)
class System:
    """A trained system, ready to enhance."""

    train: settings.Train
    stft: settings.Stft
    enhance: settings.Enhance
    spectrogram: Spectrogram
    objective: Objective
    network: nn.Module
    description: dict


def assemble(
    train: settings.Train,
    stft: settings.Stft,
    enhance: settings.Enhance,
    network: nn.Module,
    description: dict,
) -> System:
    """A system around a module of `build_network`, which is set to evaluation."""
    network.eval().requires_grad_(False)
    objective = build_objective(train, stft, network)
    return System(train, stft, enhance, build_spectrogram(stft, train.factor), objective, network, description)


def load_system(
    path: str | Path,
    device: str | torch.device = "cpu",
    enhance: settings.Enhance | None = None,
    sampler: settings.Sampler | None = None,
    ema: float | None = None,
) -> System:
    """Rebuild a trained system from a checkpoint folder.

    `enhance` replaces the settings stored with it, `sampler` and `ema` only those of that name. With a length
    `ema` the weights are reconstructed for it from the snapshots beside the checkpoint.
    """
    description = checkpoint.describe(path)
    where = str(checkpoint.find(path) / checkpoint.DESCRIPTION)
    train = from_plain(settings.Train, description["train"], where)
    stft = from_plain(settings.Stft, description["stft"], where)
    replaced = enhance is not None or sampler is not None
    stored = from_plain(settings.Enhance, _without_retired(description["enhance"], where, replaced), where)
    enhance = stored if enhance is None else enhance
    if sampler is not None:
        enhance = dataclasses.replace(enhance, sampler=sampler)
    if ema is not None:
        enhance = dataclasses.replace(enhance, ema=ema)
    settings.check_sampler(train, enhance.sampler, where)
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced; the caller's numbers go on
        network = build_network(train, stft)
    if enhance.ema is None:
        checkpoint.load_into(network, path, description["weights_sha256"])
    else:
        folder = checkpoint.find(path).parent / posthoc.FOLDER
        checkpoint.fill(network, posthoc.reconstruct(folder, enhance.ema), folder)
    return assemble(train, stft, enhance, network.to(device), description)


# Settings of samplers that earlier checkpoints hold and that are no more, with the value that changed nothing.
_RETIRED = {"restart": 1.0}


def _without_retired(enhance: dict, where: str, replaced: bool) -> dict:
    """Stored settings of enhancement less the retired ones.

    DiffseError where one of them was in use and the sampler is not `replaced`.
    """
    sampler = enhance.get("sampler")
    if not isinstance(sampler, dict):
        return enhance
    for name, neutral in _RETIRED.items():
        if not replaced and sampler.get(name, neutral) != neutral:
            raise DiffseError(
                f"{where}: sampler.{name} {sampler[name]!r} is of an earlier version and gone; choose another "
                "sampler in enhance.<recipe>"
            )
    return enhance | {"sampler": {name: value for name, value in sampler.items() if name not in _RETIRED}}


def snapshots(path: str | Path, std: float) -> dict[str, str]:
    """Files below a model's folder that its average of length `std` is made of -> SHA-256."""
    found = posthoc.checksums(checkpoint.find(path).parent / posthoc.FOLDER, std)
    return {f"{posthoc.FOLDER}/{name}": sha256 for name, sha256 in found.items()}


def with_predictor(system: System, path: str | Path, device: str | torch.device = "cpu") -> System:
    """A StoRM system with the predictor of another checkpoint: a predictive system or another StoRM one.

    DiffseError when the system has no predictor, or the other one has none or works at another rate or on other
    spectrograms.
    """
    if system.train.predictor is None:
        raise DiffseError(f"'{system.description['recipe']}' has no predictor that could be exchanged")
    other = load_system(path, device)
    if other.train.predictor is not None:
        predictor = other.network.predictor
    elif isinstance(other.train.objective, settings.Regression):
        predictor = other.network
    else:
        raise DiffseError(f"{path}: not a predictive system; its objective is '{other.train.objective.name}'")
    if other.train.rate != system.train.rate:
        raise DiffseError(
            f"{path}: a predictor for {other.train.rate} Hz does not fit a system for {system.train.rate} Hz"
        )
    if other.spectrogram != system.spectrogram:
        raise DiffseError(f"{path}: its spectrograms ({other.spectrogram}) are not the system's")
    network = regeneration.swapped(system.network, predictor)
    return assemble(system.train, system.stft, system.enhance, network, system.description)
