"""`params.yaml` as frozen dataclasses: every setting, its type, its default and what it means.

The file is read once, at the edge (`load`). An unknown key, a wrong type or a pair that does not fit is
one DiffseError that names the line, the key and what is allowed. Defaults are the published values, so a
recipe states only what differs. This module imports nothing of diffse but the error and the YAML reader:
`recipes.py` turns what it returns into objects.
"""

from dataclasses import dataclass, field
from pathlib import Path

from diffse import presets, settings_checks
from diffse.settings_corpora import (
    Augmentation as Augmentation,
)
from diffse.settings_corpora import (
    Corpus as Corpus,
)
from diffse.settings_corpora import (
    DemoCorpus as DemoCorpus,
)
from diffse.settings_corpora import (
    EarsCut as EarsCut,
)
from diffse.settings_corpora import (
    EarsReverb as EarsReverb,
)
from diffse.settings_corpora import (
    EarsWham as EarsWham,
)
from diffse.settings_corpora import (
    FolderCorpus as FolderCorpus,
)
from diffse.settings_corpora import (
    Levels as Levels,
)
from diffse.settings_corpora import (
    NtcdTimit as NtcdTimit,
)
from diffse.settings_corpora import (
    PublishedCorpus as PublishedCorpus,
)
from diffse.settings_corpora import (
    Rooms as Rooms,
)
from diffse.settings_corpora import (
    SimulatedRooms as SimulatedRooms,
)
from diffse.settings_corpora import (
    SnrLevels as SnrLevels,
)
from diffse.settings_corpora import (
    SnrRanges as SnrRanges,
)
from diffse.settings_corpora import (
    SplitCounts as SplitCounts,
)
from diffse.settings_corpora import (
    SplitLists as SplitLists,
)
from diffse.settings_corpora import (
    TimitChime3 as TimitChime3,
)
from diffse.settings_corpora import (
    VoiceBankDemand as VoiceBankDemand,
)
from diffse.settings_corpora import (
    Wsj0Chime3 as Wsj0Chime3,
)
from diffse.settings_corpora import (
    Wsj0Qut as Wsj0Qut,
)
from diffse.settings_corpora import (
    Wsj0Reverb as Wsj0Reverb,
)
from diffse.settings_evaluation import (
    Evaluate as Evaluate,
)
from diffse.settings_evaluation import (
    Polqa as Polqa,
)
from diffse.settings_evaluation import (
    Recogniser as Recogniser,
)
from diffse.settings_evaluation import (
    Report as Report,
)
from diffse.settings_evaluation import (
    Weights as Weights,
)
from diffse.settings_gates import (
    CacheRules as CacheRules,
)
from diffse.settings_gates import (
    CheckpointRules as CheckpointRules,
)
from diffse.settings_gates import (
    Checks as Checks,
)
from diffse.settings_gates import (
    Drift as Drift,
)
from diffse.settings_gates import (
    EnhancedRules as EnhancedRules,
)
from diffse.settings_gates import (
    Expected as Expected,
)
from diffse.settings_gates import (
    MetricRules as MetricRules,
)
from diffse.settings_gates import (
    MixtureRules as MixtureRules,
)
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
from diffse.settings_samplers import (
    EM as EM,
)
from diffse.settings_samplers import (
    VEM as VEM,
)
from diffse.settings_samplers import (
    BridgeODE as BridgeODE,
)
from diffse.settings_samplers import (
    BridgeSDE as BridgeSDE,
)
from diffse.settings_samplers import (
    Direct as Direct,
)
from diffse.settings_samplers import (
    EMProximal as EMProximal,
)
from diffse.settings_samplers import (
    Multistep as Multistep,
)
from diffse.settings_samplers import (
    PredictorCorrector as PredictorCorrector,
)
from diffse.settings_samplers import (
    ProbabilityFlowODE as ProbabilityFlowODE,
)
from diffse.settings_samplers import (
    Sampler as Sampler,
)
from diffse.settings_systems import (
    EDM2SE as EDM2SE,
)
from diffse.settings_systems import (
    ELBO as ELBO,
)
from diffse.settings_systems import (
    OUVE as OUVE,
)
from diffse.settings_systems import (
    SBVE as SBVE,
)
from diffse.settings_systems import (
    DataPrediction as DataPrediction,
)
from diffse.settings_systems import (
    Denoising as Denoising,
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
    Process as Process,
)
from diffse.settings_systems import (
    Regression as Regression,
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


@dataclass(frozen=True)
class Params:
    """All of `params.yaml`."""

    corpora: tuple[str, ...]
    train_corpora: tuple[str, ...]
    recipes: tuple[str, ...]
    prepare: dict[str, Corpus]
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
