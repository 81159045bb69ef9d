"""`params.yaml` as frozen dataclasses: every setting, its type, its default and what it means.

The file is read once, at the edge (`load`). An unknown key, a wrong type or a pair that does not fit is
one DiffseError that names the line, the key and what is allowed. Defaults are the published values, so a
recipe states only what differs. This module imports nothing of diffse but the error and the YAML reader:
`recipes.py` turns what it returns into objects.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from diffse.errors import DiffseError
from diffse.settings_reader import build, read_yaml

# ---------------------------------------------------------------------------------------------- corpora


@dataclass(frozen=True)
class SnrRanges:
    """SNR drawn uniformly for each mixture of a split, [low, high] in dB."""

    train: tuple[float, float] = (-5.0, 15.0)
    valid: tuple[float, float] = (0.0, 10.0)
    test: tuple[float, float] = (0.0, 10.0)


@dataclass(frozen=True)
class SplitCounts:
    """How many mixtures, each with its own noise and SNR, one clean utterance gives."""

    train: int = 1
    valid: int = 1
    test: int = 1


@dataclass(frozen=True)
class DemoCorpus:
    """Built-in corpus: synthesised speech in several voices, split by voice, and synthesised noises."""

    kind: Literal["demo"] = "demo"
    rate: int = 16000  # Hz
    seed: int = 0
    snr_db: SnrRanges = SnrRanges()
    mixtures_per_utterance: SplitCounts = SplitCounts()
    utterances_per_voice: int = 12
    noise_seconds: float = 20.0  # length of one noise recording; one per kind and split
    max_rejected: float = 0.02  # share of files that may be refused before the preparation fails
    processes: int = 0  # 0: one per core


@dataclass(frozen=True)
class SplitLists:
    """Text files below the source folder, one relative path a line. Empty: split by speaker folder."""

    train: str = ""
    valid: str = ""
    test: str = ""


@dataclass(frozen=True)
class FolderCorpus:
    """Anyone's recordings in `sources/<corpus>/`: clean and noise to be mixed, or ready pairs.

    `layout: mix` mixes clean and noise; `layout: pairs` takes clean and noisy files of the same name, or
    the pairs of `pairs_list` (clean and noisy path, separated by a tab).
    """

    kind: Literal["folder"] = "folder"
    layout: Literal["mix", "pairs"] = "mix"
    rate: int = 16000  # Hz; recordings of other rates are resampled
    seed: int = 0
    clean: str = "clean"  # folders below sources/<corpus>/
    noise: str = "noise"
    noisy: str = "noisy"
    clean_lists: SplitLists = SplitLists()
    noise_lists: SplitLists = SplitLists()
    pairs_list: str = ""
    pairs_split: Literal["train", "valid", "test"] = "test"
    speaker_shares: tuple[float, float, float] = (0.8, 0.1, 0.1)  # train, valid, test without lists
    snr_db: SnrRanges = SnrRanges()
    mixtures_per_utterance: SplitCounts = SplitCounts()
    min_seconds: float = 0.5  # shorter recordings are listed as rejected
    max_rejected: float = 0.02
    processes: int = 0


# ------------------------------------------------------------------------------------------------ gates


@dataclass(frozen=True)
class MixtureRules:
    """Limits for prepared mixtures."""

    min_seconds: float = 0.3
    max_seconds: float = 60.0
    snr_tolerance_db: float = 0.5  # |measured - asked|
    min_level_dbfs: float = -60.0  # RMS of the clean signal
    max_clipped: float = 0.001  # share of samples at full scale
    min_utterances: int = 1  # in the splits that are not empty


@dataclass(frozen=True)
class CacheRules:
    """Limits for the STFT cache."""

    max_storage_error_db: float = -50.0  # energy of the storage error relative to the spectrogram
    sample_utterances: int = 16  # re-computed from the audio and compared


@dataclass(frozen=True)
class CheckpointRules:
    """Limits for a trained checkpoint."""

    max_final_loss_ratio: float = 1.5  # median of the last tenth of the losses / median of the first tenth


@dataclass(frozen=True)
class EnhancedRules:
    """Limits for enhanced audio."""

    max_gain_db: float = 20.0  # RMS of the output relative to the noisy input
    min_gain_db: float = -60.0


@dataclass(frozen=True)
class MetricRules:
    """Limits for metric tables."""

    max_missing: float = 0.2  # share of the values of one metric
    input_tolerance: float = 0.05  # unprocessed input against its known anchor (same unit as the metric)
    input_anchors: dict[str, dict[str, float]] = field(default_factory=dict)  # corpus -> metric -> mean


@dataclass(frozen=True)
class Checks:
    """Block `check`: one table of limits per artifact."""

    mixtures: MixtureRules = MixtureRules()
    cache: CacheRules = CacheRules()
    checkpoint: CheckpointRules = CheckpointRules()
    enhanced: EnhancedRules = EnhancedRules()
    metrics: MetricRules = MetricRules()


# ------------------------------------------------------------------------------------- cache and systems


@dataclass(frozen=True)
class Stft:
    """Block `cache`: the transform whose result is stored. Published: 510, 128, Hann, exponent 1/2."""

    n_fft: int = 510
    hop: int = 128
    window: Literal["hann", "sqrthann"] = "hann"
    exponent: float = 0.5  # alpha: |X|^alpha e^{i angle X}
    storage: Literal["float16", "float32"] = "float16"
    shard_mb: int = 64


@dataclass(frozen=True)
class OUVE:
    """Ornstein-Uhlenbeck process with exploding variance (SGMSE+)."""

    name: Literal["ouve"] = "ouve"
    theta: float = 1.5
    sigma_min: float = 0.05
    sigma_max: float = 0.5


@dataclass(frozen=True)
class SBVE:
    """Schrödinger bridge with exploding variance (M5)."""

    name: Literal["sbve"] = "sbve"
    k: float = 2.6
    c: float = 0.4
    epsilon: float = 0.0  # 1e-8 is the published code's guard, which changes the first ODE step by 2 %


@dataclass(frozen=True)
class ScoreMatching:
    """Denoising score matching: L = 1/2 sum |sigma s + z|^2."""

    name: Literal["score_matching"] = "score_matching"
    scaling: Literal["1/sigma", "1/t", "none"] = "1/sigma"  # of the network's output
    sign: Literal[1, -1] = 1  # -1 with scaling none and output_scaling before: the first SGMSE+ checkpoints


@dataclass(frozen=True)
class DataPrediction:
    """Prediction of x_0 with a time-domain term: TF error + l1_weight * waveform L1 (paper 000, eq. 19)."""

    name: Literal["data_prediction"] = "data_prediction"
    l1_weight: float = 0.001


@dataclass(frozen=True)
class NCSNpp:
    """NCSN++ (M1-M3, M5-M8). The defaults are the published network of 65,590,822 parameters."""

    name: Literal["ncsnpp"] = "ncsnpp"
    nf: int = 128  # channels of the first level
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2)  # channels of each level, times nf
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)  # frequency bins of the levels with attention
    freq_bins: int = 256
    pyramid: bool = True  # input and output skip pyramids
    bottleneck_attention: bool = True
    output_scaling: Literal["none", "before", "after"] = "none"  # divide by t before/after the last layer
    stem: int = 1  # neighbouring frequency bins folded into channels (1: as published)
    dropout: float = 0.0
    fourier_scale: float = 16.0
    zero_output: bool = False  # start from output 0 instead of the published random bias


@dataclass(frozen=True)
class Times:
    """How training times are drawn: uniform on [t_min, 1], but t = 1 for a share `at_end`."""

    t_min: float = 0.03
    at_end: float = 0.0


@dataclass(frozen=True)
class Train:
    """Block `train.<recipe>`: one system, from process to optimiser."""

    paper: str = ""  # the row of the papers' tables that this recipe reproduces
    process: OUVE | SBVE = OUVE()
    objective: ScoreMatching | DataPrediction = ScoreMatching()
    network: NCSNpp = NCSNpp()
    rate: int = 16000  # Hz
    factor: float = 0.15  # beta: scale of the compressed spectrogram
    frames: int = 256  # length of a training crop
    times: Times = Times()
    batch: int = 16  # over all processes
    steps: int = 500000
    lr: float = 1e-4
    warmup_steps: int = 0
    decay_from: float = 1.0  # share of the steps after which the rate falls linearly to zero
    gradient_clip: float = 0.0  # largest gradient norm; 0: none
    ema_decay: float = 0.999
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU, else float32
    seed: int = 0
    threads: int = 0  # CPU threads; 0: torch's choice
    checkpoint_every: int = 1000
    validate_every: int = 5000
    validate_files: int = 20
    monitor: Literal["si_sdr", "pesq", "estoi"] = "si_sdr"
    validation_sampler: "PredictorCorrector | BridgeODE | BridgeSDE | None" = None  # None: the recipe's


# ------------------------------------------------------------------------------- sampling and evaluation


@dataclass(frozen=True)
class PredictorCorrector:
    """Reverse diffusion steps with a corrector before each (SGMSE+)."""

    name: Literal["pc"] = "pc"
    steps: int = 30
    corrector: Literal["ald", "langevin", "none"] = "ald"
    corrector_steps: int = 1
    snr: float = 0.5  # r, step size of the corrector
    t_eps: float = 0.03
    fixed_dt: bool = False  # published StoRM behaviour: dt = 1/N on every step


@dataclass(frozen=True)
class BridgeODE:
    """Probability-flow ODE of the bridge (paper 000, eq. 20)."""

    name: Literal["bridge_ode"] = "bridge_ode"
    steps: int = 50
    t_eps: float = 1e-4
    evaluate_at: Literal["previous", "target"] = "previous"  # target: the published code's choice


@dataclass(frozen=True)
class BridgeSDE:
    """Reverse SDE of the bridge."""

    name: Literal["bridge_sde"] = "bridge_sde"
    steps: int = 50
    t_eps: float = 1e-4
    evaluate_at: Literal["previous", "target"] = "previous"


@dataclass(frozen=True)
class Enhance:
    """Block `enhance.<recipe>`: how a trained system is run."""

    sampler: PredictorCorrector | BridgeODE | BridgeSDE = PredictorCorrector()
    batch: int = 8
    chunk_seconds: float = 8.0  # longer audio is processed in overlapping chunks
    overlap_seconds: float = 1.0
    padding: Literal["reflection", "zero"] = "reflection"  # frames added up to whole blocks
    synthesis: Literal["cut", "padded"] = "cut"  # padded: the published code also inverts the added frames
    seed: int = 0
    weights: Literal["best", "last"] = "best"


@dataclass(frozen=True)
class Evaluate:
    """Block `evaluate`."""

    metrics: tuple[str, ...] = ("pesq", "estoi", "si_sdr", "si_sir", "si_sar", "dnsmos")
    processes: int = 0  # 0: one per core
    confidence: float = 0.95
    bootstrap: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """Block `report`."""

    title: str = "diffse report"
    listen_files: int = 4  # files with spectrograms and players per corpus
    max_seconds: float = 6.0  # of audio embedded per player


@dataclass(frozen=True)
class Params:
    """All of `params.yaml`."""

    corpora: tuple[str, ...]
    train_corpora: tuple[str, ...]
    recipes: tuple[str, ...]
    prepare: dict[str, DemoCorpus | FolderCorpus]
    train: dict[str, Train]
    enhance: dict[str, Enhance]
    check: Checks = Checks()
    cache: Stft = Stft()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()


# The processes each sampler and objective can serve. The bridge's score is unbounded near t = 1, so a
# score cannot drive it; the bridge samplers use coefficients that exist for the bridge alone.
SAMPLERS_OF = {OUVE: (PredictorCorrector,), SBVE: (BridgeODE, BridgeSDE)}
OBJECTIVES_OF = {OUVE: (ScoreMatching,), SBVE: (DataPrediction,)}


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check `params.yaml`. Raises DiffseError with file, line and key."""
    node = read_yaml(Path(path))
    params = build(Params, node)
    _check_selection(params, path)
    for name in params.recipes:
        check_recipe(name, params.train[name], params.enhance[name], path)
    return params


def _check_selection(params: Params, path: Path | str) -> None:
    for key, names, table in (
        ("corpora", params.corpora, params.prepare),
        ("recipes", params.recipes, params.train),
        ("recipes", params.recipes, params.enhance),
    ):
        block = {id(params.prepare): "prepare", id(params.train): "train"}.get(id(table), "enhance")
        for name in names:
            if name not in table:
                raise DiffseError(
                    f"{path}: {key} names '{name}', which has no entry under '{block}' "
                    f"(there: {', '.join(table)})"
                )
    for name in params.train_corpora:
        if name not in params.corpora:
            raise DiffseError(f"{path}: train_corpora names '{name}', which is not one of the corpora selected")
    for block in (params.prepare, params.train, params.enhance):
        for name in block:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise DiffseError(f"{path}: '{name}' cannot be a name; use letters, digits, '_' and '-'")


def check_recipe(name: str, train: Train, enhance: Enhance, path: Path | str = "params.yaml") -> None:
    """Refuse a process, objective and sampler that do not fit together (DiffseError)."""
    process = type(train.process)
    check_sampler(train.process, enhance.sampler, f"{path}: enhance.{name}")
    if train.validation_sampler is not None:
        check_sampler(train.process, train.validation_sampler, f"{path}: train.{name}.validation_sampler")
    if not isinstance(train.objective, OBJECTIVES_OF[process]):
        allowed = ", ".join(option.name for option in OBJECTIVES_OF[process])
        raise DiffseError(
            f"{path}: train.{name}: objective '{train.objective.name}' does not fit process "
            f"'{train.process.name}' (allowed: {allowed})"
        )
    network = train.network
    halvings = len(network.ch_mult) - 1
    if halvings < 0 or network.freq_bins % (network.stem * 2**halvings):
        raise DiffseError(
            f"{path}: train.{name}.network: freq_bins ({network.freq_bins}) must be a multiple of stem "
            f"({network.stem}) times 2 for each level of ch_mult after the first, and there must be one"
        )


def check_sampler(process: OUVE | SBVE, sampler: object, where: str) -> None:
    """Refuse a sampler that the process does not have (DiffseError)."""
    if not isinstance(sampler, SAMPLERS_OF[type(process)]):
        allowed = ", ".join(option.name for option in SAMPLERS_OF[type(process)])
        raise DiffseError(
            f"{where}: sampler '{sampler.name}' does not fit process '{process.name}' (allowed: {allowed})"
        )
