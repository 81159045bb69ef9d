"""Corpus `vbd`: VoiceBank-DEMAND, the pairs of Valentini-Botinhao et al. at 48 kHz, used at 16 kHz.

28 speakers of VoiceBank for training, of whom two are kept for validation, and two others for testing. Pairs
have the same file name; the log files say the noise and the SNR of each. That SNR is one of speech level
(ITU-T P.56) to noise, so the power ratio that diffse measures lies a few dB beside it.
"""

from pathlib import Path

from diffse.data.corpora.facts import Download, Expected, Facts, Part
from diffse.data.corpora.trees import child, files, relative
from diffse.data.parallel import Workers
from diffse.data.recordings import Recordings, Rejected, Speech
from diffse.settings_corpora import VoiceBankDemand

_FEMALE = "228 230 231 233 236 239 244 250 257 267 268 269 276 277 282"
_MALE = "226 227 232 243 254 256 258 259 270 273 274 278 279 286 287"
GENDER = {f"p{number}": "f" for number in _FEMALE.split()} | {f"p{number}": "m" for number in _MALE.split()}
TEST_SPEAKERS = ("p232", "p257")
TRAIN_SPEAKERS = tuple(sorted(set(GENDER) - set(TEST_SPEAKERS)))
PUBLISHED_VALID = ("p226", "p287")  # of SGMSE+ and all that follow it
PAIRS = 11572  # of the 28 speakers
EXPECTED = {"train": Expected(10802), "valid": Expected(770), "test": Expected(824, 0.57)}

_FOLDERS = {"train": "trainset_28spk", "test": "testset"}
_LOGS = ("log_trainset_28spk.txt", "log_testset.txt")
_SHARE = "https://datashare.ed.ac.uk/bitstream/handle/10283/2791"
# MD5 as public download scripts of the data set state it
_MD5 = {
    "clean_trainset_28spk_wav": "d2d5a45ec32f8fcbf201bde0447e20ba",
    "noisy_trainset_28spk_wav": "1fca9e8bafb8cd069f6653c6d92f9e9c",
    "clean_testset_wav": "34eb1c0ba7ef667e9b966866c542fc16",
    "noisy_testset_wav": "fb1b86caa31e8ba5b506c0c64da9aab5",
}

PART = Part(
    folder="",
    title="VoiceBank-DEMAND",
    home="https://doi.org/10.7488/ds/2117",
    licence="CC BY 4.0",
    citation="C. Valentini-Botinhao, Noisy speech database for training speech enhancement algorithms and TTS "
    "models, University of Edinburgh, CSTR, 2017",
    layout=(
        "clean_trainset_28spk_wav/p226_001.wav",
        "noisy_trainset_28spk_wav/p226_001.wav",
        "clean_testset_wav/p232_001.wav",
        "noisy_testset_wav/p232_001.wav",
        "log_trainset_28spk.txt, log_testset.txt (optional: '<id> <noise> <SNR>' a line)",
    ),
    downloads=(
        *(
            Download(f"{name}.zip", f"{_SHARE}/{name}.zip", f"md5:{md5}", unpack="", gives=name)
            for name, md5 in _MD5.items()
        ),
        Download("logfiles.zip", f"{_SHARE}/logfiles.zip", unpack="", gives=_LOGS[0]),
    ),
)


# Scores of the noisy test set that every paper on it gives.
ANCHORS = {"pesq": 1.97, "estoi": 0.79}


def facts(settings: VoiceBankDemand) -> Facts:
    """What is published; counts only for the published validation speakers."""
    expected = EXPECTED
    if set(settings.valid_speakers) != set(PUBLISHED_VALID):
        expected = {"test": EXPECTED["test"]}
    anchors = ANCHORS if settings.rate == 16000 else {}
    return Facts("VoiceBank-DEMAND", (PART,), expected, "M1 to M8, EDM2SE, StoRM", anchors)


def missing(settings: VoiceBankDemand, source: Path) -> list[str]:
    """What the source folder lacks."""
    lacks = []
    for split in _FOLDERS.values():
        for side in ("clean", "noisy"):
            folder = _folder(source, side, split)
            if not folder.is_dir():
                lacks.append(f"there is no folder {side}_{split}_wav")
    unknown = sorted(set(settings.valid_speakers) - set(TRAIN_SPEAKERS))
    if unknown:
        lacks.append(f"valid_speakers names {', '.join(unknown)}, of whom the training set knows nothing")
    return lacks


def find(settings: VoiceBankDemand, source: Path, workspace: Path, workers: Workers) -> Recordings:
    """List the pairs by their name; a file without partner is refused."""
    found, told = Recordings(), _conditions(source)
    for published, name in _FOLDERS.items():
        clean, noisy = (_by_name(_folder(source, side, name)) for side in ("clean", "noisy"))
        for ours, other, side in ((clean, noisy, "noisy"), (noisy, clean, "clean")):
            found.rejected += [
                Rejected(relative(ours[stem], source), f"has no partner in {side}_{name}_wav")
                for stem in sorted(ours.keys() - other.keys())
            ]
        for stem in sorted(clean.keys() & noisy.keys()):
            speaker = stem.partition("_")[0]
            split = "valid" if published == "train" and speaker in settings.valid_speakers else published
            noise, snr_db = told.get(stem, ("", None))
            pair = Speech(stem, split, speaker, clean[stem], relative(clean[stem], source))
            found.speech.append(_with_partner(pair, noisy[stem], source, noise, snr_db))
    return found


def _with_partner(pair: Speech, noisy: Path, source: Path, noise: str, snr_db: float | None) -> Speech:
    return Speech(
        pair.id,
        pair.split,
        pair.speaker,
        pair.path,
        pair.source,
        gender=GENDER.get(pair.speaker, ""),
        noisy_path=noisy,
        noisy_source=relative(noisy, source),
        noise_kind=noise,
        snr_db=snr_db,
    )


def _folder(source: Path, side: str, split: str) -> Path:
    """Some copies have a folder of the same name inside the folder."""
    name = f"{side}_{split}_wav"
    folder = child(source, name)
    inner = child(folder, name)
    return inner if inner.is_dir() else folder


def _by_name(folder: Path) -> dict[str, Path]:
    return {path.stem.lower(): path for path in files(folder, (".wav", ".flac"))}


def _conditions(source: Path) -> dict[str, tuple[str, float]]:
    """Utterance -> (noise, SNR in dB) by the log files, where they are there."""
    told = {}
    for name in _LOGS:
        for path in (child(source, name), child(source, "logfiles", name)):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
            for fields in map(str.split, lines):
                if len(fields) == 3 and fields[2].replace(".", "", 1).lstrip("-").isdigit():
                    told[fields[0].lower()] = (fields[1], float(fields[2]))
    return told
