"""The metrics by name: what each measures, in which unit, at which rate, and within which limits."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from diffse.errors import DiffseError
from diffse.metrics import composite, intelligibility, intrusive, non_intrusive, segmental
from diffse.metrics.tools import NONE, Tools


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
    mode: str = ""

    @property
    def version(self) -> str:
        """Package and version, for example 'pesq 0.0.4'."""
        from importlib.metadata import version

        return f"{self.package} {version(self.package)}"


@dataclass(frozen=True)
class Metric:
    """A function (clean, enhanced, noisy, rate) and the columns its result fills.

    `reads`: which signals and texts the result depends on. `uses`: metrics of one column whose values the
    function takes as keywords; `takes`: what else it takes so: "tools", "text", "heard".
    """

    columns: tuple[Column, ...]
    compute: Callable[..., float | tuple[float, ...]]
    reads: tuple[str, ...] = ("clean", "enhanced")
    uses: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


def _later(module: str, function: str) -> Callable[..., float | tuple[float, ...]]:
    """A function of a module that is imported when it is first called: it needs PyTorch."""

    def compute(*signals: Any, **options: Any) -> float | tuple[float, ...]:
        return getattr(import_module(f"diffse.metrics.{module}"), function)(*signals, **options)

    compute.__module__ = f"diffse.metrics.{module}"
    return compute


def _ratio(name: str, title: str, compute: Callable, *more: str) -> Metric:
    column = Column(name, title, "dB", -100.0, 200.0, "diffse", mode="no mean removed, no delay searched")
    return Metric((column,), compute, ("clean", "enhanced", *more))


def _pesq(name: str, title: str, high: float, mode: str, compute: Callable) -> Metric:
    return Metric((Column(name, title, "MOS-LQO", 1.0, high, "pesq", intrusive.PESQ_RATE, mode=mode),), compute)


def _stoi(name: str, title: str, compute: Callable) -> Metric:
    column = Column(name, title, "", -1.0, 1.0, "diffse", intelligibility.RATE, mode="as pystoi 0.4.1")
    return Metric((column,), compute)


def _opinion(name: str, title: str) -> Column:
    return Column(name, title, "MOS", 1.0, 5.0, "speechmos", non_intrusive.RATE)


def _composite(name: str, title: str) -> Column:
    return Column(name, title, "MOS", 1.0, 5.0, "diffse", composite.RATE, mode="with wide-band PESQ")


def _nisqa(name: str, title: str) -> Column:
    return Column(name, title, "MOS", 0.0, 6.0, "diffse", mode="NISQA 2.0")


def _squim(name: str, title: str, unit: str, low: float, high: float) -> Column:
    return Column(name, title, unit, low, high, "torchaudio", 16000, mode="estimated without reference")


METRICS = {
    "pesq": _pesq("pesq", "PESQ (wide band)", 4.65, "wide band (P.862.2)", intrusive.pesq),
    "pesq_nb": _pesq("pesq_nb", "PESQ (narrow band)", 4.56, "narrow band (P.862.1)", intrusive.pesq_nb),
    "estoi": _stoi("estoi", "ESTOI", intelligibility.estoi),
    "stoi": _stoi("stoi", "STOI", intelligibility.stoi),
    "si_sdr": _ratio("si_sdr", "SI-SDR", intrusive.si_sdr),
    "si_sir": _ratio("si_sir", "SI-SIR", intrusive.si_sir, "noisy"),
    "si_sar": _ratio("si_sar", "SI-SAR", intrusive.si_sar, "noisy"),
    "seg_snr": Metric(
        (Column("seg_snr", "Segmental SNR", "dB", -10.0, 35.0, "diffse", mode="30 ms frames"),),
        segmental.seg_snr,
    ),
    "lsd": Metric(
        (Column("lsd", "LSD", "dB", 0.0, 200.0, "diffse", higher_is_better=False, mode="80 dB range"),),
        segmental.lsd,
    ),
    "composite": Metric(
        (_composite("csig", "CSIG"), _composite("cbak", "CBAK"), _composite("covl", "COVL")),
        composite.composite,
        uses=("pesq",),
    ),
    "dnsmos": Metric(
        (
            _opinion("dnsmos_sig", "DNSMOS SIG"),
            _opinion("dnsmos_bak", "DNSMOS BAK"),
            _opinion("dnsmos_ovrl", "DNSMOS OVRL"),
            _opinion("dnsmos_p808", "DNSMOS P.808"),
        ),
        non_intrusive.dnsmos,
        reads=("enhanced",),
    ),
    "nisqa": Metric(
        (
            _nisqa("nisqa_mos", "NISQA"),
            _nisqa("nisqa_noi", "NISQA noisiness"),
            _nisqa("nisqa_col", "NISQA coloration"),
            _nisqa("nisqa_dis", "NISQA discontinuity"),
            _nisqa("nisqa_loud", "NISQA loudness"),
        ),
        _later("nisqa", "nisqa"),
        reads=("enhanced",),
        takes=("tools",),
    ),
    "wvmos": Metric(
        (Column("wvmos", "WV-MOS", "MOS", -2.0, 7.0, "torchaudio", 16000),),
        _later("wav2vec2", "wvmos"),
        reads=("enhanced",),
        takes=("tools",),
    ),
    "squim": Metric(
        (
            _squim("squim_stoi", "SQUIM STOI", "", 0.0, 1.0),
            _squim("squim_pesq", "SQUIM PESQ", "MOS-LQO", 0.0, 5.0),
            _squim("squim_si_sdr", "SQUIM SI-SDR", "dB", -100.0, 100.0),
        ),
        _later("squim", "squim"),
        reads=("enhanced",),
        takes=("tools",),
    ),
    "wer": Metric(
        (Column("wer", "WER", "", 0.0, 100.0, "jiwer", 16000, higher_is_better=False),),
        _later("recognition", "wer"),
        reads=("enhanced", "text", "heard"),
        takes=("text", "heard", "tools"),
    ),
    "polqa": Metric(
        (Column("polqa", "POLQA", "MOS-LQO", 1.0, 5.0, "diffse", mode="the user's program"),),
        _later("polqa", "polqa"),
        takes=("tools",),
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


def version(name: str, column: Column, tools: Tools = NONE) -> str:
    """What decides the numbers of a column of metric `name`: package, and weights or program."""
    return ", ".join(part for part in (column.version, tools.version(name)) if part)
