"""`params.yaml` as frozen dataclasses: every setting, its type, its default and what it means.

The file is read once, at the edge (`load`). An unknown key, a wrong type or a pair that does not fit is
one DiffseError that names the line, the key and what is allowed. Defaults are the published values, so a
recipe states only what differs. This module imports nothing of diffse but the error and the YAML reader:
`recipes.py` turns what it returns into objects.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from diffse import presets, settings_checks
from diffse.settings_networks import (
    MPADM as MPADM,
)
from diffse.settings_networks import (
    RVAE as RVAE,
)
from diffse.settings_networks import (
    ConvTasNet as ConvTasNet,
)
from diffse.settings_networks import (
    DCUNet as DCUNet,
)
from diffse.settings_networks import (
    GaGNet as GaGNet,
)
from diffse.settings_networks import (
    NCSNpp as NCSNpp,
)
from diffse.settings_networks import (
    Network as Network,
)
from diffse.settings_reader import build, read_yaml
from diffse.settings_systems import (
    EDM2SE as EDM2SE,
)
from diffse.settings_systems import (
    ELBO as ELBO,
)
from diffse.settings_systems import (
    EM as EM,
)
from diffse.settings_systems import (
    OUVE as OUVE,
)
from diffse.settings_systems import (
    SBVE as SBVE,
)
from diffse.settings_systems import (
    VEM as VEM,
)
from diffse.settings_systems import (
    BridgeODE as BridgeODE,
)
from diffse.settings_systems import (
    BridgeSDE as BridgeSDE,
)
from diffse.settings_systems import (
    DataPrediction as DataPrediction,
)
from diffse.settings_systems import (
    Denoising as Denoising,
)
from diffse.settings_systems import (
    Direct as Direct,
)
from diffse.settings_systems import (
    Enhance as Enhance,
)
from diffse.settings_systems import (
    External as External,
)
from diffse.settings_systems import (
    NoProcess as NoProcess,
)
from diffse.settings_systems import (
    Objective as Objective,
)
from diffse.settings_systems import (
    PowerEMA as PowerEMA,
)
from diffse.settings_systems import (
    Preconditioning as Preconditioning,
)
from diffse.settings_systems import (
    Predictor as Predictor,
)
from diffse.settings_systems import (
    PredictorCorrector as PredictorCorrector,
)
from diffse.settings_systems import (
    ProbabilityFlowODE as ProbabilityFlowODE,
)
from diffse.settings_systems import (
    Process as Process,
)
from diffse.settings_systems import (
    Regression as Regression,
)
from diffse.settings_systems import (
    Sampler as Sampler,
)
from diffse.settings_systems import (
    ScoreMatching as ScoreMatching,
)
from diffse.settings_systems import (
    Stft as Stft,
)
from diffse.settings_systems import (
    Swap as Swap,
)
from diffse.settings_systems import (
    Sweep as Sweep,
)
from diffse.settings_systems import (
    Times as Times,
)
from diffse.settings_systems import (
    Train as Train,
)
from diffse.settings_systems import (
    WeightedSupervised as WeightedSupervised,
)

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


# --------------------------------------------------------------------------------- evaluation and report


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
    externals: tuple[str, ...] = ()
    external: dict[str, External] = field(default_factory=dict)
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    swaps: dict[str, Swap] = field(default_factory=dict)
    check: Checks = Checks()
    cache: Stft = Stft()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check `params.yaml`. Raises DiffseError with file, line and key."""
    params = build(Params, presets.applied(read_yaml(Path(path))))
    settings_checks.check(params, path)
    return params


check_recipe = settings_checks.check_recipe
check_sampler = settings_checks.check_sampler
