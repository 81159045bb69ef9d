"""Settings of evaluation and report: blocks `evaluate` and `report`."""

from dataclasses import dataclass


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
