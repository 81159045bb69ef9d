"""Which settings fit together. Every refusal is one DiffseError that says what does not fit, and why."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffse import settings_networks as networks
from diffse import settings_samplers as samplers
from diffse import settings_systems as systems
from diffse.errors import DiffseError

if TYPE_CHECKING:
    from diffse.settings import Params

# Processes that an objective can serve, with the reason against the others.
_PROCESSES_OF = {
    systems.ScoreMatching: ((systems.OUVE,), "the score of the bridge is unbounded near t = 1"),
    systems.Denoising: ((systems.OUVE,), "x_0 cannot be had from the bridge's mean near t = 1"),
    systems.WeightedSupervised: ((systems.OUVE,), "the score of the bridge is unbounded near t = 1"),
    systems.DataPrediction: ((systems.OUVE, systems.SBVE), "it estimates x_0 from a state of a process"),
    systems.EDM2SE: ((systems.SBVE,), "its preconditioning is derived for the bridge"),
    systems.Regression: ((systems.NoProcess,), "it maps the noisy input itself"),
    systems.ELBO: ((systems.NoProcess,), "it models clean speech without a diffusion"),
}
_SAMPLERS_OF = {
    systems.OUVE: (
        samplers.PredictorCorrector,
        samplers.ProbabilityFlowODE,
        samplers.Multistep,
        samplers.EM,
        samplers.EMProximal,
    ),
    systems.SBVE: (samplers.BridgeODE, samplers.BridgeSDE, samplers.Multistep),
    systems.NoProcess: (samplers.Direct, samplers.VEM),
}
# Networks that predict without a state and a time, whatever their settings say.
_PREDICTIVE = (networks.ConvTasNet, networks.GaGNet)


def check(params: "Params", path: Path | str) -> None:
    """Refuse selections without an entry and pairs that do not fit (DiffseError)."""
    _check_selection(params, path)
    for name, corpus in params.prepare.items():
        _check_conditions(corpus, f"{path}: prepare.{name}")
    for name in params.recipes:
        check_recipe(name, params.train[name], params.enhance[name], path)
    for name in params.externals:
        _check_external(name, params.external[name], path)
    for block, table in (("sweeps", params.sweeps), ("swaps", params.swaps)):
        for name, item in table.items():
            _check_trial(params, item, f"{path}: {block}.{name}")


def _check_trial(params: "Params", item: systems.Sweep | systems.Swap, where: str) -> None:
    """A sweep or swap needs systems that are trained and a corpus that is prepared."""
    if item.corpus not in params.corpora:
        raise DiffseError(f"{where}.corpus '{item.corpus}' is not one of the corpora selected")
    for key in ("system", "predictor"):
        recipe, _, corpus = getattr(item, key, "").partition(".")
        if hasattr(item, key) and not (recipe in params.recipes and corpus in params.train_corpora):
            raise DiffseError(
                f"{where}.{key} '{getattr(item, key)}' is no system that is trained (<recipe>.<corpus> of "
                "recipes and train_corpora); select it there, or take this entry out"
            )
    if getattr(item, "samplers", None):
        if item.over != "steps":
            raise DiffseError(
                f"{where}.samplers: they are run at numbers of steps; take them out, or over: steps"
            )
        for name, sampler in item.samplers.items():
            check_sampler(params.train[item.system.partition(".")[0]], sampler, f"{where}.samplers.{name}")


def _check_selection(params: "Params", path: Path | str) -> None:
    for key, names, block, table in (
        ("corpora", params.corpora, "prepare", params.prepare),
        ("recipes", params.recipes, "train", params.train),
        ("recipes", params.recipes, "enhance", params.enhance),
        ("externals", params.externals, "external", params.external),
    ):
        for name in names:
            if name not in table:
                raise DiffseError(
                    f"{path}: {key} names '{name}', which has no entry under '{block}' "
                    f"(there: {', '.join(table) or 'none'})"
                )
    for name in params.train_corpora:
        if name not in params.corpora:
            raise DiffseError(f"{path}: train_corpora names '{name}', which is not one of the corpora selected")
    blocks = (params.prepare, params.train, params.enhance, params.external, params.sweeps, params.swaps)
    for name in (name for block in blocks for name in block):
        if not name.replace("_", "").replace("-", "").isalnum():
            raise DiffseError(f"{path}: '{name}' cannot be a name; use letters, digits, '_' and '-'")


def _check_conditions(corpus: object, where: str) -> None:
    """Rooms, levels and augmentation of a corpus that has them."""
    rooms, changes = getattr(corpus, "rooms", None), getattr(corpus, "augmentation", None)
    ranges = {}
    if rooms is not None:
        if rooms.kind != "none" and getattr(corpus, "layout", "mix") == "pairs":
            raise DiffseError(f"{where}.rooms: ready pairs are heard as they are; leave rooms out")
        if rooms.kind == "none" and getattr(corpus, "noise", "noise") == "":
            raise DiffseError(f"{where}: without noise and without rooms nothing disturbs the speech; give one")
        if getattr(corpus, "noise", "noise") == "" and rooms.share < 1.0:
            raise DiffseError(f"{where}.rooms.share: without noise, speech outside a room is clean; give 1")
        names = ("t60", "length", "width", "height", "distance")
        ranges = {f"rooms.simulated.{name}": getattr(rooms.simulated, name) for name in names}
    if changes is not None:
        ranges |= {f"augmentation.{name}": getattr(changes, name) for name in ("level_db", "compression")}
        for share, choice in (("band_share", "band_hz"), ("codec_share", "codecs")):
            if getattr(changes, share) > 0 and not getattr(changes, choice):
                raise DiffseError(f"{where}.augmentation.{choice}: name one at least, or set {share} to 0")
    for name, (low, high) in ranges.items():
        if low > high:
            raise DiffseError(f"{where}.{name} is [{low:g}, {high:g}]; give the lower value first")


def check_recipe(
    name: str, train: systems.Train, enhance: systems.Enhance, path: Path | str = "params.yaml"
) -> None:
    """Refuse a process, objective, network and sampler that do not fit together (DiffseError)."""
    where = f"{path}: train.{name}"
    allowed, reason = _PROCESSES_OF[type(train.objective)]
    if not isinstance(train.process, allowed):
        raise DiffseError(
            f"{where}: objective '{train.objective.name}' does not fit process '{train.process.name}' "
            f"(allowed: {_names(allowed)}): {reason}"
        )
    check_sampler(train, enhance.sampler, f"{path}: enhance.{name}")
    if train.validation_sampler is not None:
        check_sampler(train, train.validation_sampler, f"{where}.validation_sampler")
    _check_pair(train, where)
    _check_network(train.network, f"{where}.network")
    _check_numbers(train, where)
    if enhance.ema is not None and train.power_ema is None:
        raise DiffseError(f"{path}: enhance.{name}.ema needs the snapshots of a training with power_ema")
    if train.predictor is not None:
        _check_predictor(train, where)
    if train.power_ema is not None:
        _check_average(train.power_ema, f"{where}.power_ema")


def _check_numbers(train: systems.Train, where: str) -> None:
    """Processes without noise, and outputs divided twice or by zero."""
    process, network, objective = train.process, train.network, train.objective
    if isinstance(process, systems.OUVE) and not process.sigma_min < process.sigma_max:
        raise DiffseError(f"{where}.process: sigma_min must be less than sigma_max")
    if isinstance(process, systems.SBVE) and process.k == 1:
        raise DiffseError(f"{where}.process.k: 1 has no logarithm to divide by; choose another, as 2.6")
    if getattr(network, "output_scaling", "none") != "none" and getattr(objective, "scaling", "") != "none":
        raise DiffseError(
            f"{where}: network.output_scaling divides by t already; it needs objective score_matching with "
            "scaling: none"
        )
    conditioning = getattr(objective, "preconditioning", None)
    if conditioning and conditioning.c_out == "1/sigma" and isinstance(process, systems.SBVE):
        raise DiffseError(f"{where}: c_out '1/sigma' is infinite at the ends of the bridge; choose another")


def _check_times(train: systems.Train, sampler: object, where: str) -> None:
    """Last times at which the network or the score cannot be had."""
    zero = getattr(sampler, "t_eps", 1.0) == 0
    if getattr(sampler, "t_start", 1.0) <= getattr(sampler, "t_eps", 0.0):
        raise DiffseError(f"{where}: t_start must lie above t_eps; sampling goes from the former to the latter")
    bounded = isinstance(
        sampler, samplers.PredictorCorrector | samplers.ProbabilityFlowODE | samplers.EMProximal
    )
    bounded |= isinstance(sampler, samplers.EM) and sampler.grid == "linspace"
    if zero and (bounded or _multistep_of_score(train, sampler)):
        raise DiffseError(f"{where}: t_eps 0 is where the score has no bound; choose more, as 0.03")
    if zero and getattr(sampler, "evaluate_at", "") == "target":
        raise DiffseError(
            f"{where}: evaluate_at 'target' calls the network at t_eps, which must be more than 0"
        )


def _multistep_of_score(train: systems.Train, sampler: object) -> bool:
    return isinstance(sampler, samplers.Multistep) and isinstance(train.process, systems.OUVE)


def _check_average(average: systems.PowerEMA, where: str) -> None:
    if not average.stds or any(not 0 < std < 0.28 for std in average.stds):
        raise DiffseError(f"{where}.stds: give lengths between 0 and 0.28, where power functions have them")
    if len(set(average.stds)) < len(average.stds):
        raise DiffseError(f"{where}.stds: a length stands there twice; each is tracked once")
    if average.use and average.use not in average.stds:
        raise DiffseError(
            f"{where}.use is {average.use:g}, which is not tracked; choose one of stds "
            f"({', '.join(f'{std:g}' for std in average.stds)}) or 0; enhance.<recipe>.ema takes others later"
        )


def check_sampler(train: systems.Train, sampler: object, where: str) -> None:
    """Refuse a sampler that the system does not have (DiffseError)."""
    allowed = _SAMPLERS_OF[type(train.process)]
    if not isinstance(sampler, allowed):
        raise DiffseError(
            f"{where}: sampler '{sampler.name}' does not fit process '{train.process.name}' "
            f"(allowed: {_names(allowed)})"
        )
    _check_times(train, sampler, where)
    prior = isinstance(train.objective, systems.ScoreMatching) and train.objective.prior
    if prior != isinstance(sampler, samplers.EM | samplers.EMProximal):
        told = "it needs a prior of clean speech (objective score_matching with prior: true)"
        if prior:
            told = "a prior of clean speech knows no noisy input: its sampler is 'em' or 'em_proximal'"
        raise DiffseError(f"{where}: sampler '{sampler.name}' does not fit: {told}")
    if isinstance(sampler, samplers.VEM) != isinstance(train.objective, systems.ELBO):
        raise DiffseError(f"{where}: sampler 'vem' and objective 'elbo' (network rvae) need each other")
    if getattr(sampler, "predictor", "") == "none" and (
        sampler.corrector == "none" or not sampler.corrector_steps
    ):
        raise DiffseError(f"{where}: neither predictor nor corrector would do anything; choose one of them")


def _check_pair(train: systems.Train, where: str) -> None:
    """Objective and network."""
    network, objective = train.network, train.objective
    if isinstance(network, networks.RVAE) != isinstance(objective, systems.ELBO):
        raise DiffseError(f"{where}: network 'rvae' and objective 'elbo' need each other")
    if isinstance(objective, systems.ELBO):
        return
    predictive = isinstance(network, _PREDICTIVE) or not getattr(network, "conditional", True)
    if isinstance(objective, systems.Regression) != predictive and not (
        isinstance(objective, systems.Regression) and isinstance(network, networks.MPADM)
    ):
        told = "needs a network without time (conditional: false)" if not predictive else (
            "needs a network that takes a state and a time"
        )  # fmt: skip
        raise DiffseError(f"{where}: objective '{objective.name}' {told}; network '{network.name}' is not one")
    if isinstance(objective, systems.EDM2SE) and not isinstance(network, networks.MPADM):
        raise DiffseError(
            f"{where}: objective 'edm2se' gives the network ln(sigma)/4, which '{network.name}' cannot take; "
            "use network mp_adm, or objective data_prediction"
        )
    conditioning = getattr(objective, "preconditioning", None)
    if conditioning and conditioning.c_noise != "t" and not isinstance(network, networks.MPADM):
        raise DiffseError(
            f"{where}: c_noise '{conditioning.c_noise}' can be negative; network '{network.name}' takes its "
            "logarithm and needs c_noise: t"
        )


def _check_network(network: systems.Network, where: str) -> None:
    """Levels that can be halved as often as the network does."""
    levels = getattr(network, "ch_mult", None) or getattr(network, "channel_mult", None)
    if levels is None:
        if isinstance(network, networks.NCSNpp | networks.MPADM):
            raise DiffseError(f"{where}: there must be one level at least")
        return
    halvings = len(levels) - 1
    if network.freq_bins % (network.stem * 2**halvings):
        raise DiffseError(
            f"{where}: freq_bins ({network.freq_bins}) must be a multiple of stem "
            f"({network.stem}) times 2 for each level of ch_mult after the first, and there must be one"
        )


def _check_predictor(train: systems.Train, where: str) -> None:
    """StoRM's first stage."""
    predictor = train.predictor
    if not isinstance(train.process, systems.OUVE) or getattr(train.objective, "prior", False):
        raise DiffseError(f"{where}.predictor: regeneration needs process ouve and a conditional objective")
    if not isinstance(predictor.network, _PREDICTIVE) and getattr(predictor.network, "conditional", True):
        raise DiffseError(
            f"{where}.predictor.network: a predictor has no time; use conv_tasnet or gagnet, or ncsnpp or "
            "dcunet with conditional: false"
        )
    if predictor.pretrain_steps >= train.steps:
        raise DiffseError(
            f"{where}.predictor.pretrain_steps is {predictor.pretrain_steps}, which leaves none of the "
            f"{train.steps} steps to the score network; lower it"
        )
    if predictor.pretrain_steps == 0 and not predictor.fine_tune:
        raise DiffseError(
            f"{where}.predictor: never trained with fine_tune: false and pretrain_steps: 0; set one of them"
        )
    if predictor.refine and isinstance(train.objective, systems.DataPrediction):
        raise DiffseError(
            f"{where}.predictor: refine diffuses a residual, whose waveform means nothing; "
            "use objective score_matching"
        )
    _check_network(predictor.network, f"{where}.predictor.network")


def _check_external(name: str, external: systems.External, path: Path | str) -> None:
    where = f"{path}: external.{name}"
    if name in ("unprocessed", "sweeps", "swaps"):
        raise DiffseError(f"{where}: '{name}' means something else in results/; choose another name")
    if bool(external.folder) == bool(external.command):
        raise DiffseError(
            f"{where}: give either 'folder' (enhanced files) or 'command' (a program), one of them"
        )
    if Path(external.folder).is_absolute() or ".." in Path(external.folder).parts:
        raise DiffseError(f"{where}.folder: '{external.folder}' leaves the project; link it into sources/")
    text = " ".join(external.command)
    if external.command and not ("{input}" in text and "{output}" in text):
        raise DiffseError(
            f"{where}.command: must contain {{input}} and {{output}}, the folders to read and write"
        )


def _names(kinds: tuple) -> str:
    return ", ".join(kind.name for kind in kinds)
