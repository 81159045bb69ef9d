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
class Levels:
    """How an SNR is measured, and what happens where a mixture would clip (docs/data.md)."""

    snr: Literal["power", "active", "loudness"] = "power"
    peak: Literal["scale", "raise_snr"] = "scale"  # one gain for both signals, or 1 dB less noise until it fits


@dataclass(frozen=True)
class Augmentation:
    """What is done to finished mixtures, each with draws of its own; nothing by default (docs/data.md)."""

    splits: tuple[Literal["train", "valid", "test"], ...] = ("train",)
    level_db: tuple[float, float] = (0.0, 0.0)  # gain of both signals, drawn uniformly
    band_share: float = 0.0  # share of the mixtures whose noisy side loses what is above one of band_hz
    band_hz: tuple[float, ...] = (2000.0, 4000.0, 6000.0)
    codec_share: float = 0.0  # share of the mixtures whose noisy side goes through one of the codecs
    codecs: tuple[Literal["mp3", "vorbis", "opus", "mulaw", "alaw", "gsm", "adpcm"], ...] = (
        "mp3",
        "vorbis",
        "opus",
        "mulaw",
    )
    compression: tuple[float, float] = (0.3, 0.9)  # libsndfile's scale from 0 (best) to 1 (smallest)


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
class Rooms:
    """Rooms in which the speech of a corpus is heard: measured responses, or simulated ones (docs/data.md)."""

    kind: Literal["none", "measured", "simulated"] = "none"
    share: float = 1.0  # of the mixtures that get a room; the others stay dry
    folder: str = "rir"  # of the measured responses, below sources/<corpus>/
    lists: SplitLists = SplitLists()  # of the measured responses; empty: dealt out by room
    simulated: SimulatedRooms = SimulatedRooms()
    target: Literal["anechoic", "early"] = "anechoic"
    early_ms: float = 50.0  # reflections behind the direct sound that an early target keeps
    level: Literal["direct", "loudness", "peak"] = "direct"
    max_t60: float = 10.0  # measured responses that decay more slowly are listed as rejected, seconds
    tail_seconds: float = 0.0  # silence appended to the dry speech, so that its reverberation can end
    keep_delay: bool = False  # of the direct sound, in both signals


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
    noise: str = "noise"  # "": none, where rooms alone disturb the speech
    noisy: str = "noisy"
    clean_lists: SplitLists = SplitLists()
    noise_lists: SplitLists = SplitLists()
    pairs_list: str = ""
    pairs_split: Literal["train", "valid", "test"] = "test"
    speaker_shares: tuple[float, float, float] = (0.8, 0.1, 0.1)  # train, valid, test without lists
    speakers: str = ""  # table below sources/<corpus>/: speaker, tab, f or m
    snr_db: SnrRanges = SnrRanges()
    mixtures_per_utterance: SplitCounts = SplitCounts()
    levels: Levels = Levels()
    rooms: Rooms = Rooms()
    augmentation: Augmentation = Augmentation()
    min_seconds: float = 0.5  # shorter recordings are listed as rejected
    max_rejected: float = 0.02
    processes: int = 0
    source: str = ""  # s3://bucket/prefix, copied to sources/<corpus>/ first; "": the recordings are there


@dataclass(frozen=True)
class SnrLevels:
    """SNRs in dB of which each mixture of a split has one, all equally likely. Empty: drawn from `snr_db`."""

    train: tuple[float, ...] = ()
    valid: tuple[float, ...] = ()
    test: tuple[float, ...] = ()


@dataclass(frozen=True)
class PublishedCorpus:
    """What the corpora of the papers have in common. Where each lies and comes from: docs/corpora.md."""

    kind: str
    rate: int = 16000  # Hz; recordings of other rates are resampled
    seed: int = 0
    source: str = ""  # s3://bucket/prefix, copied to sources/<corpus>/ first; "": they are there
    complete: bool = True  # refuse other numbers of utterances than published; false: work with what is there
    min_seconds: float = 0.3  # shorter recordings are listed as rejected
    max_rejected: float = 0.005  # share of files that may be refused before the preparation fails
    processes: int = 0  # 0: one per core


@dataclass(frozen=True)
class VoiceBankDemand(PublishedCorpus):
    """VoiceBank-DEMAND: ready pairs of 28 + 2 speakers."""

    kind: Literal["vbd"] = "vbd"
    valid_speakers: tuple[str, ...] = ("p226", "p287")  # taken from the training set


Noises = Literal["split", "shared"]  # each recording in one split, or (as published, leaking) all in all


@dataclass(frozen=True)
class Wsj0Chime3(PublishedCorpus):
    """WSJ0 in the noise of CHiME-3. SGMSE+: 0 to 20 dB; StoRM: -6 to 14 dB."""

    kind: Literal["wsj0_chime3"] = "wsj0_chime3"
    microphone: Literal["wv1", "wv2"] = "wv1"
    channel: int = 1  # of CHiME-3's six
    noises: Noises = "split"
    snr_db: SnrRanges = SnrRanges((0.0, 20.0), (0.0, 20.0), (0.0, 20.0))
    snr_levels: SnrLevels = SnrLevels()
    mixtures_per_utterance: SplitCounts = SplitCounts()


@dataclass(frozen=True)
class TimitChime3(PublishedCorpus):
    """TIMIT in the noise of CHiME-3, with transcripts for recognition."""

    kind: Literal["timit_chime3"] = "timit_chime3"
    channel: int = 1
    noises: Noises = "split"
    snr_db: SnrRanges = SnrRanges((-6.0, 14.0), (-6.0, 14.0), (-6.0, 14.0))
    snr_levels: SnrLevels = SnrLevels()
    mixtures_per_utterance: SplitCounts = SplitCounts()


@dataclass(frozen=True)
class Wsj0Qut(PublishedCorpus):
    """WSJ0 in the noise of QUT-NOISE."""

    kind: Literal["wsj0_qut"] = "wsj0_qut"
    microphone: Literal["wv1", "wv2"] = "wv1"
    noises: Noises = "split"
    car_ends: float = 120.0  # s at both ends of a car recording that are not used
    snr_db: SnrRanges = SnrRanges((0.0, 15.0), (0.0, 15.0), (0.0, 15.0))
    snr_levels: SnrLevels = SnrLevels()
    mixtures_per_utterance: SplitCounts = SplitCounts()


@dataclass(frozen=True)
class NtcdTimit(PublishedCorpus):
    """NTCD-TIMIT: the speech of TCD-TIMIT with ready noisy versions."""

    kind: Literal["ntcd_timit"] = "ntcd_timit"
    noise_kinds: tuple[str, ...] = ("Babble", "Cafe", "Car", "LR", "Street", "White")
    levels_db: tuple[int, ...] = (-5, 0, 5)
    per_condition: SplitCounts = SplitCounts(5, 5, 5)  # utterances of a speaker in each noise at each level


@dataclass(frozen=True)
class Wsj0Reverb(PublishedCorpus):
    """WSJ0 in simulated rooms. SGMSE+: peak 0.9; StoRM: level as it comes (preset wsj0_reverb_storm)."""

    kind: Literal["wsj0_reverb"] = "wsj0_reverb"
    microphone: Literal["wv1", "wv2"] = "wv1"
    rooms: Rooms = Rooms("simulated", level="peak", tail_seconds=0.5, keep_delay=True)
    mixtures_per_utterance: SplitCounts = SplitCounts()


@dataclass(frozen=True)
class EarsCut:
    """How EARS is cut into utterances. Defaults: version 2 of the benchmark."""

    seconds: float = 10.0  # of a piece, while another of at least min_seconds is left
    min_seconds: float = 4.0  # shorter recordings are not used
    highpass_hz: float = 75.0  # 0: not filtered (version 1)
    min_loudness: float = -55.0  # LUFS; quieter pieces are left out unless they whisper; -70: none (version 1)
    test_bins: int = 12  # over which the SNRs of the test pieces of each style are spread; 0: drawn like others
    test_snr_db: tuple[float, float] = (-2.5, 17.5)


@dataclass(frozen=True)
class EarsWham(PublishedCorpus):
    """EARS in the noise of WHAM!48kHz."""

    kind: Literal["ears_wham"] = "ears_wham"
    cut: EarsCut = EarsCut()
    noises: Noises = "split"
    snr_db: SnrRanges = SnrRanges((-2.5, 17.5), (-2.5, 17.5), (-2.5, 17.5))
    mixtures_per_utterance: SplitCounts = SplitCounts()
    levels: Levels = Levels("loudness", "raise_snr")


@dataclass(frozen=True)
class EarsReverb(PublishedCorpus):
    """EARS in measured rooms."""

    kind: Literal["ears_reverb"] = "ears_reverb"
    cut: EarsCut = EarsCut(test_bins=0)
    arni_responses: int = 1000  # of the 132037 of ARNI, drawn
    rooms: Rooms = Rooms("measured", level="loudness", max_t60=2.0)
    mixtures_per_utterance: SplitCounts = SplitCounts()


Corpus = (
    DemoCorpus
    | FolderCorpus
    | VoiceBankDemand
    | EarsWham
    | EarsReverb
    | Wsj0Chime3
    | TimitChime3
    | Wsj0Qut
    | Wsj0Reverb
    | NtcdTimit
)
