"""Limits of the gates: block `check`. docs/gates.md explains every rule."""

from dataclasses import dataclass, field
from typing import Literal

# rule -> what a broken one does: an error stops the chain, a warning is told and shown
Severities = dict[str, Literal["error", "warning"]]


@dataclass(frozen=True)
class Expected:
    """What is known of the size of a split; -1: nothing."""

    utterances: int = -1
    hours: float = -1.0
    speakers: int = -1


@dataclass(frozen=True)
class Drift:
    """How far statistics of a split may move from those of the last version that passed."""

    max_change: float = 0.2  # of utterances, hours and speakers, relative
    max_change_db: float = 1.5  # of mean levels and SNR
    max_change_t60: float = 0.1  # of the mean T60, seconds
    max_change_shares: float = 0.2  # of a kind of noise, and of women among the speakers


@dataclass(frozen=True)
class MixtureRules:
    """Limits for prepared mixtures."""

    min_seconds: float = 0.3
    max_seconds: float = 60.0
    snr_tolerance_db: float = 0.1  # |measured - asked|
    min_level_dbfs: float = -60.0  # RMS of the clean signal
    max_clipped: float = 0.001  # share of samples at full scale
    max_dc: float = 0.02  # mean of a signal, relative to full scale
    max_silent: float = 0.8  # share of the frames of 20 ms below -70 dBFS
    min_band: float = 0.6  # upper end of the clean spectrum over half the rate
    max_lag_ms: float = 0.5  # between clean and noisy
    min_correlation: float = 0.03  # of clean and noisy, from 0 to 1
    min_utterances: int = 1  # in the splits that are not empty
    hours_tolerance: float = 0.02  # relative difference to the hours that are known of a corpus
    expected: dict[str, dict[str, Expected]] = field(default_factory=dict)  # corpus -> split -> its size
    drift: Drift = Drift()
    severities: Severities = field(default_factory=dict)


@dataclass(frozen=True)
class CacheRules:
    """Limits for the STFT cache."""

    max_storage_error_db: float = -50.0  # energy of the storage error relative to the spectrogram
    sample_utterances: int = 16  # re-computed from the audio and compared
    severities: Severities = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointRules:
    """Limits for a trained checkpoint."""

    max_final_loss_ratio: float = 1.5  # median of the last tenth of the losses / median of the first tenth
    severities: Severities = field(default_factory=dict)


@dataclass(frozen=True)
class EnhancedRules:
    """Limits for enhanced audio."""

    max_gain_db: float = 20.0  # RMS of the output relative to the noisy input
    min_gain_db: float = -60.0
    severities: Severities = field(default_factory=dict)


@dataclass(frozen=True)
class MetricRules:
    """Limits for metric tables."""

    max_missing: float = 0.2  # share of the values of one metric
    input_tolerance: float = 0.05  # unprocessed input against its known anchor (same unit as the metric)
    input_anchors: dict[str, dict[str, float]] = field(default_factory=dict)  # corpus -> metric -> mean
    severities: Severities = field(default_factory=dict)


@dataclass(frozen=True)
class Checks:
    """Block `check`: one table of limits per artifact."""

    mixtures: MixtureRules = MixtureRules()
    cache: CacheRules = CacheRules()
    checkpoint: CheckpointRules = CheckpointRules()
    enhanced: EnhancedRules = EnhancedRules()
    metrics: MetricRules = MetricRules()
