"""Settings of evaluation and report: blocks `evaluate` and `report`."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Weights:
    """Weights of a network that are not part of diffse: a file, or a download into the user's cache folder.

    A download needs a checksum; the published files' are built in where they are known (docs/metrics.md).
    """

    file: str = ""  # relative to the project's folder
    download: bool = False
    url: str = ""  # instead of the published address
    sha256: str = ""  # of the file; "" with `file`: any, with `download`: the published one


@dataclass(frozen=True)
class Recogniser:
    """What hears the words for the word error rate: a program, or wav2vec 2.0 with `weights.wav2vec2`."""

    command: tuple[str, ...] = ()  # reads {input}/<name>.wav, writes {output}/<name>.txt; no shell
    rate: int = 16000  # Hz of the files that the program reads
    timeout_seconds: float = 86400.0  # for all files together


@dataclass(frozen=True)
class Polqa:
    """The user's own licensed POLQA program (ITU-T P.863)."""

    command: tuple[str, ...] = ()  # names {clean} and {enhanced}, WAV files; prints the score; no shell
    pattern: str = r"([0-9]+\.[0-9]+)\s*$"  # finds the score in its output
    rate: int = 48000  # Hz of the files
    timeout_seconds: float = 300.0  # for one pair


@dataclass(frozen=True)
class Evaluate:
    """Block `evaluate`."""

    metrics: tuple[str, ...] = ("pesq", "estoi", "si_sdr", "si_sir", "si_sar", "dnsmos")
    processes: int = 0  # 0: one per core
    confidence: float = 0.95
    bootstrap: int = 2000
    seed: int = 0
    cache: bool = True  # keep scores, so that the same audio is not scored again
    weights: dict[str, Weights] = field(default_factory=dict)  # nisqa, wvmos, squim, wav2vec2
    recogniser: Recogniser = Recogniser()
    texts: str = ""  # file of "<id> <transcript>" lines, where the manifest has none
    polqa: Polqa = Polqa()


@dataclass(frozen=True)
class Report:
    """Block `report`."""

    title: str = "diffse report"
    listen_files: int = 4  # files with spectrograms and players per corpus
    max_seconds: float = 6.0  # of audio embedded per player
    # Two systems are called different where the corrected p value of a paired test is at most alpha.
    test: Literal["wilcoxon", "permutation"] = "wilcoxon"
    correction: Literal["holm", "fdr_bh", "none"] = "holm"
    alpha: float = 0.05
    # corpus -> corpus of the papers (docs/report.md) whose test files it holds, for corpora of other kinds
    stands_for: dict[str, str] = field(default_factory=dict)
