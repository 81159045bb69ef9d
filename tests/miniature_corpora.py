"""Source trees of the papers' corpora in their true layout and naming, with a few seconds of synthesised audio.

`TREES[kind](source)` builds one below `sources/<corpus>/`; `SETTINGS[kind]` prepares it.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffse import audio
from diffse.data.corpora import chime3, ntcd_timit, qut, timit
from diffse.settings_corpora import (
    EarsCut,
    EarsReverb,
    EarsWham,
    NtcdTimit,
    PublishedCorpus,
    Rooms,
    SimulatedRooms,
    SplitCounts,
    TimitChime3,
    VoiceBankDemand,
    Wsj0Chime3,
    Wsj0Qut,
    Wsj0Reverb,
)

RATE = 16000
_SMALL = {"complete": False, "processes": 1, "max_rejected": 0.0}


def speech(name: str, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """A buzz with pauses, of a pitch and timbre that the name decides: no two names sound alike."""
    rng = np.random.default_rng(list(name.encode()))
    time = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(90.0, 240.0) * (1.0 + 0.1 * np.sin(2.0 * np.pi * rng.uniform(1.0, 3.0) * time))
    phase = 2.0 * np.pi * np.cumsum(pitch) / rate
    voice = sum(rng.uniform(0.2, 1.0) / k * np.sin(k * phase) for k in range(1, 20))
    loud = np.sin(2.0 * np.pi * rng.uniform(1.5, 3.0) * time + rng.uniform(0.0, 6.0)) > -0.5
    wave = voice * loud + 2e-3 * rng.standard_normal(len(time))
    return (0.1 * wave / np.sqrt(np.mean(wave**2))).astype(np.float32)


def noise(name: str, seconds: float = 2.0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Coloured noise [channels, samples], different for each name."""
    rng = np.random.default_rng(list(name.encode()))
    white = rng.standard_normal((channels, int(seconds * rate)))
    return (0.05 * (white + rng.uniform(0.0, 0.9) * np.roll(white, 1, axis=1))).astype(np.float32)


def sphere(path: Path, wave: np.ndarray, rate: int = RATE) -> None:
    """A NIST sphere file as on the discs: 1024 bytes of header, then 16-bit samples."""
    samples = np.rint(np.clip(wave, -1.0, 1.0) * 32767).astype("<i2")
    fields = [
        "NIST_1A",
        "   1024",
        "channel_count -i 1",
        f"sample_count -i {len(samples)}",
        f"sample_rate -i {rate}",
        "sample_n_bytes -i 2",
        "sample_byte_format -s2 01",
        "sample_sig_bits -i 16",
        "sample_coding -s3 pcm",
        "end_head",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(fields).encode().ljust(1023) + b"\n" + samples.tobytes())


# ------------------------------------------------------------------------------------------------ parts


def build_wsj0(source: Path, per_speaker: int = 1) -> None:
    """Two discs side by side, names in two cases, both microphones."""
    places = {
        "11-1.1/wsj0/si_tr_s": ("011", "01a"),
        "11-6.1/wsj0/si_dt_05": ("050",),
        "11-14.1/WSJ0/SI_ET_05": ("440",),
    }
    for folder, speakers in places.items():
        for speaker in speakers:
            for k in range(per_speaker):
                name = f"{speaker}c020{k + 1}"
                for microphone in ("wv1", "wv2"):
                    file = f"{speaker}/{name}.{microphone}"
                    file = file.upper() if folder.isupper() or "WSJ0" in folder else file
                    sphere(source / "wsj0" / folder / file, speech(name + microphone))


def build_chime3(source: Path) -> None:
    """Of each environment four recordings, channels 1 and 2."""
    folder = source / "chime3/CHiME3/data/audio/16kHz/backgrounds"
    for environment in chime3.ENVIRONMENTS:
        for number in ("010", "020", "030", "040"):
            for channel in (1, 2):
                name = f"BGD_150204_{number}_{environment}.CH{channel}.wav"
                audio.write(folder / name, noise(name), RATE)


def build_timit(source: Path) -> None:
    """Dialect regions, upper-case names, sphere files called .WAV, and the sentences that everybody reads."""
    speakers = {
        "TRAIN/DR1/FCJF0": "SX37",
        "TRAIN/DR2/MARC0": "SI1188",
        f"TEST/DR1/{timit.DEVELOPMENT[0].upper()}": "SX379",
    }
    speakers[f"TEST/DR4/{timit.CORE_TEST[0].upper()}"] = "SX119"
    speakers["TEST/DR4/MZZZ0"] = "SX1"  # neither development nor core test
    for folder, sentence in speakers.items():
        for name in (sentence, "SA1"):
            path = source / "timit/TIMIT" / folder / f"{name}.WAV"
            sphere(path, speech(folder + name))
            path.with_suffix(".TXT").write_text(f"0 16000 {name.title()} was a good dog. \n")


def build_qut(source: Path) -> None:
    """Two channels at 48 kHz."""
    for name in {name for kinds in qut.SESSIONS.values() for name in kinds.values()}:
        audio.write(source / f"qut/QUT-NOISE/{name}.wav", noise(name, 1.5, 48000, channels=2), 48000)


# ---------------------------------------------------------------------------------------------- corpora


def vbd(source: Path) -> None:
    """48 kHz pairs and the log files of noise and SNR."""
    for part, speakers in (("trainset_28spk", ("p226", "p228", "p287")), ("testset", ("p232", "p257"))):
        lines = []
        for speaker in speakers:
            for k in (1, 2):
                name = f"{speaker}_{k:03d}"
                clean = speech(name, 0.8, 48000)
                audio.write(source / f"clean_{part}_wav/{name}.wav", clean, 48000)
                noisy = clean + noise(name, 0.8, 48000)[0]
                audio.write(source / f"noisy_{part}_wav/{name}.wav", noisy, 48000)
                lines.append(f"{name} babble {2.5 + 5 * k}\n")
        (source / f"log_{part}.txt").write_text("".join(lines))


def wsj0_chime3(source: Path) -> None:
    build_wsj0(source)
    build_chime3(source)


def timit_chime3(source: Path) -> None:
    build_timit(source)
    build_chime3(source)


def wsj0_qut(source: Path) -> None:
    build_wsj0(source)
    build_qut(source)


def ntcd(source: Path) -> None:
    """Four speakers of whom one is a test speaker; clean and two noises at two levels."""
    for speaker in ("01M", "02F", "03M", ntcd_timit.TEST_SPEAKERS[0]):
        for name in ("sa1", "si1234", "sx77"):
            file = f"volunteers/{speaker}/straightcam/{name}.wav"
            clean = speech(speaker + name)
            audio.write(source / "clean" / file, clean, RATE)
            for kind in ("Babble", "LR"):
                for level in (-5, 5):
                    noisy = clean + noise(f"{kind}{level}{file}", 1.0)[0]
                    audio.write(source / kind / str(level) / file, noisy, RATE)


def wsj0_reverb(source: Path) -> None:
    build_wsj0(source)


def build_ears(source: Path) -> None:
    """Three speakers: long, short, quiet and whispered recordings, and a sound that is no speech."""
    rate, cuts = 48000, {}
    for speaker in ("p001", "p100", "p102"):
        lengths = {"rainbow_01_regular": 3.2, "emo_anger_sentences": 1.2, "sentences_01_fast": 0.5}
        for name, seconds in lengths.items():
            audio.write(source / f"EARS/{speaker}/{name}.wav", speech(speaker + name, seconds, rate), rate)
        for name, gain in (("rainbow_02_regular", 0.005), ("rainbow_03_whisper", 0.02)):
            quiet = gain * speech(speaker + name, 1.2, rate)
            audio.write(source / f"EARS/{speaker}/{name}.wav", quiet, rate)
        audio.write(source / f"EARS/{speaker}/vegetative_eating.wav", noise(speaker, 1.2, rate), rate)
        cuts[speaker] = {"rainbow_01_regular": [[0, 48000], [48000, -1]], "emo_anger_sentences": [[4800, None]]}
    (source / "test_files.json").write_text(json.dumps({"p102": cuts["p102"]}))
    (source / "EARS/speaker_statistics.json").write_text(
        '{"p001": {"gender": "Female"}, "p102": {"gender": "male"}}'
    )


def ears_wham(source: Path) -> None:
    """Two recordings of each split in two channels, and one that the table lists but nobody has cut off."""
    build_ears(source)
    folder, rows = source / "WHAM48kHz/high_res_wham", ["Filename,Length,WHAM! Split"]
    for split in ("Train", "Valid", "Test"):
        for k in range(2):
            audio.write(folder / f"audio/{split}{k}.wav", noise(f"{split}{k}", 3.0, 48000, channels=2), 48000)
            rows.append(f"{split}{k}.wav,6.0,{split}")
    (folder / "high_res_metadata.csv").write_text("\n".join([*rows, ",3,Train"]) + "\n")


def ears_reverb(source: Path) -> None:
    """Responses of four data sets, one of them too reverberant."""
    build_ears(source)
    names = {
        "ARNI/numClosed_0-5/IR_a": 0.3,
        "ARNI/numClosed_0-5/IR_b": 0.4,
        "AIR/AIR_1_4/AIR_wav_files/air_office": 0.3,
    }
    names |= {"ACE-Challenge/Single/Office_1/RIR": 0.35, "Palimpsest/hall/IR": 3.0, "Palimpsest/room/IR": 0.25}
    for name, t60 in names.items():
        rate = 48000
        time = np.arange(int(0.8 * t60 * rate)) / rate
        tail = noise(name, len(time) / rate, rate, channels=2)[:, : len(time)] * 10.0 ** (-3.0 * time / t60)
        tail[:, 0] = 0.9
        audio.write(source / f"{name}.wav", tail.astype(np.float32), rate, "FLOAT")


TREES: dict[str, Callable[[Path], None]] = {
    "vbd": vbd,
    "wsj0_chime3": wsj0_chime3,
    "timit_chime3": timit_chime3,
    "wsj0_qut": wsj0_qut,
    "wsj0_reverb": wsj0_reverb,
    "ears_wham": ears_wham,
    "ears_reverb": ears_reverb,
    "ntcd_timit": ntcd,
}

SETTINGS: dict[str, PublishedCorpus] = {
    "vbd": VoiceBankDemand(**_SMALL),
    "wsj0_chime3": Wsj0Chime3(**_SMALL),
    "timit_chime3": TimitChime3(**_SMALL),
    "wsj0_qut": Wsj0Qut(**_SMALL, car_ends=0.2),
    "wsj0_reverb": Wsj0Reverb(
        **_SMALL,
        rooms=Rooms(
            "simulated",
            simulated=SimulatedRooms(t60=(0.2, 0.3), length=(3, 4), width=(3, 4), height=(2.5, 3)),
            level="peak",
            tail_seconds=0.5,
            keep_delay=True,
        ),
    ),
    "ears_wham": EarsWham(**_SMALL, cut=EarsCut(seconds=2.0, min_seconds=1.0)),
    "ears_reverb": EarsReverb(
        **_SMALL | {"max_rejected": 0.1}, cut=EarsCut(seconds=2.0, min_seconds=1.0, test_bins=0)
    ),
    "ntcd_timit": NtcdTimit(
        **_SMALL, noise_kinds=("Babble", "LR"), levels_db=(-5, 5), per_condition=SplitCounts(1, 1, 1)
    ),
}

# What is there of each split.
UTTERANCES = {
    "vbd": {"train": 2, "valid": 4, "test": 4},
    "wsj0_chime3": {"train": 2, "valid": 1, "test": 1},
    "timit_chime3": {"train": 2, "valid": 1, "test": 1},
    "wsj0_qut": {"train": 2, "valid": 1, "test": 1},
    "wsj0_reverb": {"train": 2, "valid": 1, "test": 1},
    "ears_wham": {"train": 4, "valid": 4, "test": 3},
    "ears_reverb": {"train": 4, "valid": 4, "test": 3},
    "ntcd_timit": {"train": 8, "valid": 4, "test": 4},
}
