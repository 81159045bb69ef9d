"""The metrics by name: what each measures, in which unit, at which rate, and within which limits."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffse.errors import DiffseError
from diffse.metrics import intrusive, non_intrusive


@dataclass(frozen=True)
class Column:
    """One score of a file."""

    name: str  # column of per_file.csv
    title: str
    unit: str
    low: float  # no correct score lies outside [low, high]
    high: float
    package: str  # distribution whose version decides the number
    rate: int | None = None  # Hz at which it is computed; None: the signal's own
    higher_is_better: bool = True

    @property
    def version(self) -> str:
        """Package and version, for example 'pesq 0.0.4'."""
        from importlib.metadata import version

        return f"{self.package} {version(self.package)}"


@dataclass(frozen=True)
class Metric:
    """A function (clean, enhanced, noisy, rate) and the columns its result fills."""

    columns: tuple[Column, ...]
    compute: Callable[[np.ndarray, np.ndarray, np.ndarray, int], float | tuple[float, ...]]


def _ratio(name: str, title: str, compute: Callable) -> Metric:
    return Metric((Column(name, title, "dB", -100.0, 200.0, "diffse"),), compute)


def _opinion(name: str, title: str) -> Column:
    return Column(name, title, "MOS", 1.0, 5.0, "speechmos", non_intrusive.RATE)


METRICS = {
    "pesq": Metric(
        (Column("pesq", "PESQ (wide band)", "MOS-LQO", 1.0, 4.65, "pesq", intrusive.PESQ_RATE),), intrusive.pesq
    ),
    "estoi": Metric(
        (Column("estoi", "ESTOI", "", -1.0, 1.0, "pystoi", intrusive.ESTOI_RATE),), intrusive.estoi
    ),
    "si_sdr": _ratio("si_sdr", "SI-SDR", intrusive.si_sdr),
    "si_sir": _ratio("si_sir", "SI-SIR", intrusive.si_sir),
    "si_sar": _ratio("si_sar", "SI-SAR", intrusive.si_sar),
    "dnsmos": Metric(
        (
            _opinion("dnsmos_sig", "DNSMOS SIG"),
            _opinion("dnsmos_bak", "DNSMOS BAK"),
            _opinion("dnsmos_ovrl", "DNSMOS OVRL"),
            _opinion("dnsmos_p808", "DNSMOS P.808"),
        ),
        non_intrusive.dnsmos,
    ),
}


def find(name: str) -> Metric:
    """The metric `name`; DiffseError when there is none."""
    if name not in METRICS:
        raise DiffseError(f"evaluate.metrics: '{name}' is not a metric (allowed: {', '.join(METRICS)})")
    return METRICS[name]


def columns(names: tuple[str, ...]) -> list[Column]:
    """Columns of the metrics `names`, in order."""
    return [column for name in names for column in find(name).columns]
