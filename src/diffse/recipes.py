"""From settings to objects: the one place where the names of `params.yaml` meet classes."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffse import checkpoint, objectives, processes, samplers, settings
from diffse.errors import DiffseError
from diffse.networks.ncsnpp import NCSNpp
from diffse.settings_reader import from_plain
from diffse.spectrogram import Spectrogram

Objective = objectives.ScoreMatching | objectives.DataPrediction
Sampler = Callable[[Tensor, Callable[[], Tensor]], Tensor]

PROCESSES = {settings.OUVE: processes.OUVE, settings.SBVE: processes.SBVE}
NETWORKS = {settings.NCSNpp: NCSNpp}


def _options(setting: object) -> dict:
    """Fields of a settings object without its tag."""
    return {entry.name: getattr(setting, entry.name) for entry in dataclasses.fields(setting)[1:]}


def build_process(setting: object) -> processes.OUVE | processes.SBVE:
    """Settings -> process."""
    return PROCESSES[type(setting)](**_options(setting))


def build_network(setting: object, inputs: int = 2) -> nn.Module:
    """Settings -> network with freshly drawn weights (from torch's global generator)."""
    return NETWORKS[type(setting)](inputs=inputs, **_options(setting))


def build_spectrogram(stft: settings.Stft, factor: float) -> Spectrogram:
    """Settings of the cache and the recipe's beta -> transform."""
    return Spectrogram(stft.n_fft, stft.hop, stft.window, stft.exponent, factor)


def build_objective(train: settings.Train, stft: settings.Stft, network: nn.Module) -> Objective:
    """Settings and a network -> objective; DiffseError for a network that does not fit the transform."""
    bins = stft.n_fft // 2 + 1
    if train.network.freq_bins != bins:
        raise DiffseError(
            f"network.freq_bins is {train.network.freq_bins}, but an STFT of n_fft {stft.n_fft} has "
            f"{bins} bins; make them agree"
        )
    process = build_process(train.process)
    if isinstance(train.objective, settings.ScoreMatching):
        return objectives.ScoreMatching(network, process, train.objective.scaling, train.objective.sign)
    spectrogram = build_spectrogram(stft, train.factor)
    return objectives.DataPrediction(network, process, spectrogram, train.objective.l1_weight)


def build_sampler(setting: object, process: processes.OUVE | processes.SBVE, objective: Objective) -> Sampler:
    """Settings -> function (y, draw) -> clean estimate, for y [B, 1, F, T] complex."""
    options = _options(setting)

    def sample(y: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return objective.denoise(x_t, y, t)

        if isinstance(setting, settings.PredictorCorrector):
            return samplers.predictor_corrector(denoise, process, y, draw, **options)
        if isinstance(setting, settings.BridgeSDE):
            return samplers.bridge_sde(denoise, process, y, draw, **options)
        return samplers.bridge_ode(denoise, process, y, **options)

    return sample


def evaluations(setting: object) -> int:
    """Network calls that a sampler makes for one batch."""
    if isinstance(setting, settings.PredictorCorrector) and setting.corrector != "none":
        return setting.steps * (1 + setting.corrector_steps)
    return setting.steps


def count_parameters(network: nn.Module) -> int:
    """All parameters, fixed ones included (as the papers count)."""
    return sum(parameter.numel() for parameter in network.parameters())


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


def load_system(
    path,
    device: str | torch.device = "cpu",
    enhance: settings.Enhance | None = None,
    sampler: object | None = None,
) -> System:
    """Rebuild a trained system from a checkpoint folder.

    `enhance` replaces the settings stored with it, `sampler` only those of the sampler.
    """
    description = checkpoint.describe(path)
    where = str(checkpoint.find(path) / checkpoint.DESCRIPTION)
    train = from_plain(settings.Train, description["train"], where)
    stft = from_plain(settings.Stft, description["stft"], where)
    stored = from_plain(settings.Enhance, description["enhance"], where)
    enhance = stored if enhance is None else enhance
    if sampler is not None:
        enhance = dataclasses.replace(enhance, sampler=sampler)
    settings.check_sampler(train.process, enhance.sampler, where)
    with torch.device("meta"):
        network = build_network(train.network)
    network.to_empty(device="cpu")
    checkpoint.load_into(network, path, description["weights_sha256"])
    network.to(device).eval().requires_grad_(False)
    spectrogram = build_spectrogram(stft, train.factor)
    return System(
        train, stft, enhance, spectrogram, build_objective(train, stft, network), network, description
    )
