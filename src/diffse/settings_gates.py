"""Limits of the gates: block `check`."""

from dataclasses import dataclass, field


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
