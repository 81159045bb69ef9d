"""From a system's settings to its plain form."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffse import settings

from . import losses, sampling, unsupervised
from .formulas import OU, Bridge, Transform

Draw = Callable[[], Tensor]


def build_model(train: settings.Train, stft: settings.Stft, network: nn.Module):
    """The loss of a system around the module of `recipes.build_network`."""
    objective, process = train.objective, build_process(train.process)
    transform = Transform(stft.n_fft, stft.hop, stft.window, stft.exponent, train.factor)
    if train.predictor is not None:
        return losses.Storm(network.predictor, network.score, process, train.predictor)
    if isinstance(objective, settings.ScoreMatching):
        return losses.Score(network, process, objective.prior)
    if isinstance(objective, settings.WeightedSupervised):
        return losses.Weighted(network, process)
    if isinstance(objective, settings.Denoising):
        c = objective.preconditioning
        return losses.Denoiser(network, process, c.c_in == "edm", c.c_noise != "t", c.sigma_data)
    if isinstance(objective, settings.DataPrediction):
        terms = objective.l1_weight, objective.pesq_weight
        return losses.DataPrediction(network, process, transform, *terms, train.rate)
    if isinstance(objective, settings.EDM2SE):
        sigmas = objective.sigma_x, objective.sigma_n
        return losses.EDM2SE(network, process, transform, objective.skip, sigmas, objective.l1_weight)
    if isinstance(objective, settings.ELBO):
        return losses.Autoencoder(network, transform, objective.beta)
    if isinstance(train.network, settings.ConvTasNet):
        return losses.WaveRegression(network.network, transform)
    return losses.Regression(network)


def build_process(setting: settings.Process) -> OU | Bridge | None:
    if isinstance(setting, settings.OUVE):
        return OU(setting.theta, setting.sigma_min, setting.sigma_max)
    if isinstance(setting, settings.SBVE):
        return Bridge(setting.k, setting.c, 2 if setting.per_channel else 1)
    return None


def sample(model, setting: settings.Sampler, y: Tensor, draws: Callable[[int | None], Draw]) -> Tensor:
    """A clean estimate of y [B, 1, F, T]. `draws(b)` gives file b's noise, `draws(None)` the batch's."""
    if isinstance(setting, settings.EM):
        files = [unsupervised.em(model, y[b : b + 1], draws(b), setting) for b in range(len(y))]
        return torch.cat(files)
    if isinstance(setting, settings.VEM):
        files = [unsupervised.vem(model, y[b : b + 1], draws(b), setting) for b in range(len(y))]
        return torch.cat(files)
    if isinstance(setting, settings.Direct):
        with torch.no_grad():
            return model.predict(y)
    if isinstance(setting, settings.BridgeODE):

        def estimate(x_t: Tensor, t: Tensor) -> Tensor:
            return model.estimate(x_t, y, t)

        last = setting.result == "estimate"
        return sampling.bridge_ode(estimate, model.process, y, setting.steps, setting.t_eps, last)
    return _correct_and_predict(model, setting, y, draws(None))


def _correct_and_predict(model, setting: settings.PredictorCorrector, y: Tensor, draw: Draw) -> Tensor:
    options = setting.steps, setting.snr, setting.t_eps
    if not isinstance(model, losses.Storm):
        return sampling.predictor_corrector(
            lambda x_t, t: model.score(x_t, y, t), model.process, y, draw, *options
        )
    with torch.no_grad():
        y_d = model.predict(y)
    end = y - y_d if model.options.refine else y_d
    x = sampling.predictor_corrector(
        lambda x_t, t: model.score(x_t, y, y_d, t), model.process, end, draw, *options
    )
    return x + y_d if model.options.refine else x
