"""Settings of the corpora: block `prepare`, one entry per corpus."""

from dataclasses import dataclass
from typing import Literal


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
class SimulatedRooms:
    """Shoebox rooms, each value drawn uniformly from its range [low, high]. Defaults: SGMSE+'s WSJ0+Reverb."""

    t60: tuple[float, float] = (0.4, 1.0)  # asked for, seconds
    length: tuple[float, float] = (5.0, 15.0)  # metres
    width: tuple[float, float] = (5.0, 15.0)
    height: tuple[float, float] = (2.0, 6.0)
    wall_distance: float = 1.0  # of source and microphone from every wall, at least
    distance: tuple[float, float] = (0.0, 1000.0)  # between source and microphone
    max_order: int = 3  # of the image sources; rays are traced behind them


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
