"""Settings of systems: processes, objectives, networks, training, how they are run and compared.

Each dataclass mirrors what `recipes.py` builds from it; the first field is the tag by which `params.yaml`
chooses. Defaults are the published values. Presets of whole systems are in `presets.yaml`.
"""

from dataclasses import dataclass, field
from typing import Literal

from diffse.settings_networks import NCSNpp, Network
from diffse.settings_samplers import PredictorCorrector, Sampler


@dataclass(frozen=True)
class Stft:
    """Block `cache`: the transform whose result is stored. Published: 510, 128, Hann, exponent 1/2.

    `form: waveform` stores the samples instead (exactly, in half the space) and transforms each crop when it
    is read, which takes more time than reading its spectrogram (benchmarks/data_path.py).
    """

    n_fft: int = 510
    hop: int = 128
    window: Literal["hann", "sqrthann"] = "hann"
    exponent: float = 0.5  # alpha: |X|^alpha e^{i angle X}
    storage: Literal["float16", "float32"] = "float16"  # of spectrograms
    shard_mb: int = 64
    form: Literal["spectrogram", "waveform"] = "spectrogram"


# ---------------------------------------------------------------------------------------------- processes


@dataclass(frozen=True)
class OUVE:
    """Ornstein-Uhlenbeck process with exploding variance (SGMSE+, StoRM, UDiffSE)."""

    name: Literal["ouve"] = "ouve"
    theta: float = 1.5
    sigma_min: float = 0.05
    sigma_max: float = 0.5


@dataclass(frozen=True)
class SBVE:
    """Schrödinger bridge with exploding variance (M5-M8, EDM2SE)."""

    name: Literal["sbve"] = "sbve"
    k: float = 2.6
    c: float = 0.4
    epsilon: float = 0.0  # 1e-8 is the published code's guard, which changes the first ODE step by 2 %
    per_channel: bool = False  # noise counted per real channel (EDM2SE)


@dataclass(frozen=True)
class NoProcess:
    """Predictive systems: one mapping from noisy to clean, no diffusion."""

    name: Literal["none"] = "none"


Process = OUVE | SBVE | NoProcess

# --------------------------------------------------------------------------------------------- objectives


@dataclass(frozen=True)
class Preconditioning:
    """D = c_skip x_t + c_out F(c_in x_t, c_in y, c_noise) (paper 000, eq. 9)."""

    c_in: Literal["1", "edm"] = "1"
    c_skip: Literal["0", "edm"] = "0"
    c_out: Literal["1", "edm", "sigma", "1/sigma"] = "1"
    c_noise: Literal["t", "ln(sigma)/4"] = "t"
    sigma_data: float = 0.1


@dataclass(frozen=True)
class ScoreMatching:
    """Denoising score matching: L = 1/2 sum |sigma s + z|^2."""

    name: Literal["score_matching"] = "score_matching"
    scaling: Literal["1/sigma", "1/t", "none"] = "1/sigma"  # of the network's output
    sign: Literal[1, -1] = 1  # -1 with scaling none and output_scaling before: the first SGMSE+ checkpoints
    preconditioning: Preconditioning = Preconditioning()
    prior: bool = False  # UDiffSE: the network sees x_t alone and learns clean speech
    error: Literal["squared", "absolute"] = "squared"


@dataclass(frozen=True)
class Denoising:
    """Prediction of the mean mu_t: L = 1/2 sum w |D - mu_t|^2 (M2; with preconditioning M3)."""

    name: Literal["denoising"] = "denoising"
    preconditioning: Preconditioning = Preconditioning()
    weighting: Literal["1", "sigma^2", "edm"] = "1"
    across_batch: bool = False  # published fault: the weight of the batch's mean, times its size


@dataclass(frozen=True)
class DataPrediction:
    """Prediction of x_0: TF error + l1_weight * waveform L1 + pesq_weight * PESQ loss (paper 000, eq. 19)."""

    name: Literal["data_prediction"] = "data_prediction"
    l1_weight: float = 0.001
    pesq_weight: float = 0.0
    preconditioning: Preconditioning = Preconditioning()


@dataclass(frozen=True)
class WeightedSupervised:
    """Score matching plus the error of Tweedie's estimate, weighted by alpha_t (paper 003)."""

    name: Literal["weighted_supervised"] = "weighted_supervised"
    scaling: Literal["1/sigma", "1/t", "none"] = "1/sigma"
    sign: Literal[1, -1] = 1
    residual: Literal["tweedie", "published"] = "tweedie"  # published: half the score, and +theta


@dataclass(frozen=True)
class EDM2SE:
    """Preconditioned bridge (paper 001, eqs. 15-25)."""

    name: Literal["edm2se"] = "edm2se"
    skip: Literal[0, 1] = 1  # c_s: 1 predicts environmental noise, 0 clean speech
    sigma_x: float | None = None  # per real channel; None: estimated from the training data
    sigma_n: float | None = None
    l1_weight: float = 0.001
    uncertainty: bool = True
    c_in: Literal["unit_variance", "published"] = "unit_variance"
    weighting: Literal["paper", "published"] = "paper"
    across_batch: bool = False  # published fault: every weight meets every example


@dataclass(frozen=True)
class Regression:
    """Predictive training: squared or absolute error of the spectrogram, or SI-SDR of the waveform."""

    name: Literal["regression"] = "regression"
    error: Literal["squared", "absolute", "si_sdr"] = "squared"


@dataclass(frozen=True)
class ELBO:
    """Evidence lower bound of a variational autoencoder of clean speech (RVAE)."""

    name: Literal["elbo"] = "elbo"
    beta: float = 1.0  # weight of the Kullback-Leibler term


Objective = ScoreMatching | Denoising | DataPrediction | WeightedSupervised | EDM2SE | Regression | ELBO

# ----------------------------------------------------------------------------------------------- training

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Predictor:
    """StoRM: a predictive network whose estimate the diffusion starts from (paper 002, section III)."""

    network: Network = NCSNpp(ch_mult=(1, 2, 2, 2), num_res_blocks=1, attn_resolutions=(), conditional=False)
    conditioning: Literal["both", "noisy", "estimate"] = "both"  # what the score network sees (table VI)
    supervision: float = 1.0  # alpha of eq. 17
    pretrain_steps: int = 0  # first steps that train the predictor alone (table VII)
    fine_tune: bool = True  # False: it stays as it is after these steps
    refine: bool = False  # stochastic refinement: diffuse what is left of the estimate, y - D(y)
    published: bool = False  # half of each term, summed over the batch


@dataclass(frozen=True)
class Times:
    """How training times are drawn: uniform on [t_min, 1], but t = 1 for a share `at_end`."""

    t_min: float = 0.03
    at_end: float = 0.0


@dataclass(frozen=True)
class PowerEMA:
    """Power-function averages and their snapshots (paper 001, section 2.3)."""

    stds: tuple[float, ...] = (0.05, 0.1)  # tracked; relative to the training so far
    snapshot_every: int = 64000  # steps
    use: float = 0.05  # length of the checkpoints best and last: a tracked one, or 0: no average


@dataclass(frozen=True)
class Train:
    """Block `train.<recipe>`: one system, from process to optimiser."""

    paper: str = ""  # the row of the papers' tables that this recipe reproduces
    process: Process = OUVE()
    objective: Objective = ScoreMatching()
    network: Network = NCSNpp()
    predictor: Predictor | None = None
    rate: int = 16000  # Hz
    stft: Stft | None = None  # None: that of the cache. Another one is computed from the audio while training
    factor: float = 0.15  # beta: scale of the compressed spectrogram
    frames: int = 256  # length of a training crop
    normalise: Literal["noisy", "clean", "none"] = "noisy"  # whose peak becomes 1
    peak_of: Literal["crop", "utterance"] = "crop"
    short: Literal["zeros", "repeat"] = "zeros"  # what fills up an utterance shorter than a crop
    times: Times = Times()
    batch: int = 16  # over all processes
    steps: int = 500000
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)  # of Adam
    warmup_steps: int = 0
    decay_from: float = 1.0  # share of the steps after which the rate falls linearly to zero
    inverse_sqrt_from: int = 0  # step after which the rate falls as 1/sqrt(step); 0: never
    gradient_clip: float = 0.0  # largest gradient norm; 0: none
    ema_decay: float = 0.999
    power_ema: PowerEMA | None = None  # tracked in its place
    precision: Precision = "auto"  # auto: bfloat16 on a GPU, else float32
    seed: int = 0
    recompute: bool = False  # features again in the backward pass: about half the memory, a third more time
    compile: bool = False  # the network, at its first step
    threads: int = 0  # CPU threads; 0: torch's choice
    checkpoint_every: int = 1000
    validate_every: int = 5000
    validate_files: int = 20
    monitor: Literal["si_sdr", "pesq", "estoi"] = "si_sdr"
    validation_sampler: Sampler | None = None  # None: the recipe's


# ----------------------------------------------------------------------------------------------- sampling


@dataclass(frozen=True)
class Enhance:
    """Block `enhance.<recipe>`: how a trained system is run."""

    sampler: Sampler = PredictorCorrector()
    batch: int = 8
    chunk_seconds: float = 8.0  # longer audio is processed in overlapping chunks
    overlap_seconds: float = 1.0
    padding: Literal["reflection", "zero"] = "reflection"  # frames added up to whole blocks
    synthesis: Literal["cut", "padded"] = "cut"  # padded: the published code also inverts the added frames
    seed: int = 0
    weights: Literal["best", "last"] = "best"
    ema: float | None = None  # length of a power-function average to reconstruct instead
    precision: Precision = "float32"  # bfloat16 is faster and changes the result a little
    compile: bool = False  # the networks, at their first call


@dataclass(frozen=True)
class External:
    """Block `external.<system>`: somebody else's system, gated and scored like the others.

    `folder`: enhanced files under the names of the corpus's utterances, in a sub-folder per corpus.
    `command`: a program and its arguments (no shell); {input} and {output} stand for two folders of WAV files.
    """

    paper: str = ""
    folder: str = ""
    command: tuple[str, ...] = ()
    rate: int = 16000
    parameters: int = 0  # 0: not known
    timeout_seconds: float = 3600.0


# ------------------------------------------------------------------------------------------------- sweeps


@dataclass(frozen=True)
class Sweep:
    """Block `sweeps.<name>`: one trained system at several values of one thing."""

    system: str
    corpus: str
    over: Literal["steps", "ema"] = "steps"
    values: tuple[float, ...] = (1, 2, 5, 10, 30)  # steps, or relative lengths of the average (0: none)
    samplers: dict[str, Sampler] = field(default_factory=dict)  # each at every number of steps
    split: Literal["valid", "test"] = "valid"
    files: int = 20
    metrics: tuple[str, ...] = ("pesq", "estoi", "si_sdr")


@dataclass(frozen=True)
class Swap:
    """Block `swaps.<name>`: a StoRM system with the predictor of another system (paper 002, table V)."""

    system: str
    predictor: str
    corpus: str
    split: Literal["valid", "test"] = "test"
    files: int = 0  # 0: all
    metrics: tuple[str, ...] = ("pesq", "estoi", "si_sdr")
