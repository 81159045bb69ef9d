"""One row of the manifest from its seed: which noise and room, how loud, which part, and the two signals.

A row depends on its id, the corpus seed and the recordings alone, never on the rows around it, so that rows
can be made in any order by any number of processes.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from diffse import audio
from diffse.audio import AudioError
from diffse.data import augmentation, conditioning, levels, rooms, shards
from diffse.data.augmentation import Drawn
from diffse.data.recordings import ANY_CHANNEL, Noise, Rejected, Rir, Speech, Stamp, stamp
from diffse.data.reverberation import Shoebox
from diffse.settings_corpora import Levels, Rooms

SILENT_DBFS = -70.0  # a recording below this holds nothing but the rounding of its samples
PEAK = 0.99  # louder mixtures are scaled down to it
CLIPPED = 0.999  # |sample| that counts as clipped
CHANGED = "was changed or taken away while the corpus was prepared"
_CROPS = 10  # parts of a noise recording that are tried before it is called silent
_RAISES = 60  # dB that the SNR is raised by at most against clipping


@dataclass(frozen=True)
class Task:
    """All that is needed to make one row.

    `noise` and `snr_db` are None for ready pairs, and for speech that is only to be heard in its `room`.
    """

    id: str
    corpus: str
    seed: int
    rate: int  # Hz
    min_seconds: float
    speech: Speech
    noise: Noise | None = None
    snr_db: float | None = None
    room: Rir | Shoebox | None = None
    rooms: Rooms = Rooms()
    levels: Levels = Levels()
    augmented: Drawn = Drawn()

    @property
    def plain(self) -> bool:
        """Whether the columns of every manifest say all about the row."""
        return self.room is None and self.levels == Levels() and self.augmented == Drawn()


@dataclass(frozen=True)
class ShardTask:
    """The rows of one shard, in order. Together they are planned to hold at most `max_bytes`."""

    folder: Path
    number: int
    max_bytes: int
    tasks: list[Task]


@dataclass(frozen=True)
class Made:
    """A finished row: its facts and its stored samples, int32 [2, samples] (clean, noisy)."""

    facts: dict
    stored: np.ndarray


def row_seed(corpus_seed: int, row_id: str) -> int:
    """Seed of a row, 63 bits of SHA-256 over (corpus seed, id)."""
    digest = hashlib.sha256(f"{corpus_seed}:{row_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def draw(seed: int, kinds: dict[str, list[Noise]], snr_range: tuple[float, float]) -> tuple[Noise, float]:
    """Noise recording and SNR in dB of a row: first the kind, each equally likely, then the recording.

    A kind with many recordings would otherwise drown the others. `kinds` must list recordings in a fixed
    order; the kinds are sorted here.
    """
    rng = np.random.default_rng([seed, 0])
    snr_db = float(rng.uniform(*snr_range))
    names = sorted(kinds)
    recordings = kinds[names[rng.integers(len(names))]]
    return recordings[rng.integers(len(recordings))], snr_db


def peak_gain(clean: np.ndarray, noisy: np.ndarray) -> float:
    """One gain for both signals that keeps their peaks at 0.99 at most; 1.0 if they are."""
    peak = max(_peak(clean), _peak(noisy))
    return float(np.float32(PEAK / peak)) if peak > PEAK else 1.0


def _peak(wave: np.ndarray) -> float:
    """Largest |sample|."""
    return max(float(np.max(wave)), -float(np.min(wave)))


def make(task: Task) -> Made | Rejected:
    """Make one row, or say which file stands in its way."""
    try:
        clean, clipped, checksum = _clean(task)
        if task.speech.noisy_path is not None:
            noisy, facts, clipped = _partner(task, clean, clipped)
        else:
            clean, noisy, facts = _mixture(task, clean)
        _check_unchanged(task)
    except AudioError as error:
        return Rejected(_source_of(task, error.path), error.reason)
    if not np.all(np.isfinite(noisy)):
        return Rejected(task.speech.source, "its samples are too large to be mixed")
    clean, noisy, facts = _augmented(task, clean, noisy, facts)
    return _finish(task, clean, noisy, facts | {"clipped": clipped, "clean_sha256": checksum})


def _check_unchanged(task: Task) -> None:
    """What was read must be what was listed: else checksums in the manifest would be those of other bytes."""
    speech = task.speech
    files = [(speech.path, speech.stamp), (speech.noisy_path, speech.noisy_stamp)]
    files += [(item.path, item.stamp) for item in (task.noise, task.room) if isinstance(item, Noise | Rir)]
    for path, listed in files:
        if listed is not None and stamp(path) != listed:
            raise AudioError(path, CHANGED)


def planned_samples(task: Task) -> int:
    """Length of a row by the header of its clean file, rounded up; 0 where that cannot be read."""
    header = _header(task.speech.path, task.speech.stamp)
    if header is None:
        return 0
    tail = 0.0 if task.room is None else task.rooms.tail_seconds
    return math.ceil((task.speech.samples or header.samples) * task.rate / header.rate + tail * task.rate) + 1


@lru_cache(maxsize=4)
def _header(path: Path, listed: Stamp) -> audio.Info | None:
    """What a file's header says, for all mixtures of the utterance; None where it cannot be read."""
    try:
        return audio.info(path)
    except AudioError:
        return None


def make_shard(batch: ShardTask) -> tuple[list[dict], list[Rejected]]:
    """Make the rows of one shard and write it; returns their facts and the files in the way."""
    rows, rejected = [], []
    with shards.ShardWriter(batch.folder, batch.tasks[0].rate, 2, batch.max_bytes, batch.number) as writer:
        for task in batch.tasks:
            result = make(task)
            if isinstance(result, Rejected):
                rejected.append(result)
            else:
                rows.append(result.facts | writer.add_stored(result.stored, result.facts["sha256"]))
    return rows, rejected


def _source_of(task: Task, path: str) -> str:
    """The manifest's name of a file."""
    speech = task.speech
    known = {str(speech.path): speech.source, str(speech.noisy_path): speech.noisy_source}
    known |= {str(item.path): item.source for item in (task.noise, task.room) if isinstance(item, Noise | Rir)}
    return known[path]


def _clean(task: Task) -> tuple[np.ndarray, float, str]:
    """Clean speech [samples] at the task's rate, its share of clipped samples, its checksum."""
    clean, clipped = _speech(task.speech, task.rate, task.min_seconds)
    return clean, clipped, _checksum(task.speech.path, task.speech.stamp)


@lru_cache(maxsize=4)
def _speech(speech: Speech, rate: int, min_seconds: float) -> tuple[np.ndarray, float]:
    """Clean speech [samples] as its mixtures need it, and its share of clipped samples.

    Kept for the next mixtures of the same utterance.
    """
    path = speech.path
    clean, clipped = _load(path, rate, speech.channel, speech.start, speech.samples)
    if speech.highpass_hz:
        clean = conditioning.highpass(clean, rate, speech.highpass_hz)
    if speech.ramp:
        clean = conditioning.ramped(clean, rate, speech.ramp)
    seconds = len(clean) / rate
    if seconds < min_seconds:
        raise AudioError(path, f"too short ({seconds:.2f} s; at least {min_seconds:g} s are needed)")
    level = audio.rms_dbfs(clean)
    if level < SILENT_DBFS:
        raise AudioError(path, f"no speech: silent (RMS {level:.0f} dBFS)")
    clean.setflags(write=False)  # the next mixtures get the same array
    return clean, clipped


def _load(path: Path, rate: int, channel: int, start: int, samples: int) -> tuple[np.ndarray, float]:
    """One channel of a recording, or of `samples` of it, at `rate`, and its share of clipped samples."""
    wave, from_rate = audio.read(path, start, samples or None)
    chosen = _channel(wave, channel, path)
    clipped = float(np.mean(np.abs(chosen) >= CLIPPED))
    return audio.resample(chosen, from_rate, rate), clipped


def _channel(wave: np.ndarray, channel: int, path: Path) -> np.ndarray:
    if channel >= len(wave):
        raise AudioError(path, f"has {len(wave)} channels; channel {channel + 1} was asked for")
    return wave[channel]


@lru_cache(maxsize=64)
def _checksum(path: Path, listed: Stamp) -> str:
    return audio.checksum(path)


def _mixture(task: Task, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict]:
    """(target, noisy, facts) of speech in its room, in noise, or both."""
    target, speech, facts = clean, clean, {}
    if task.room is not None:
        try:
            heard = rooms.apply(clean, task.room, task.rooms, task.rate, task.seed)
        except ValueError as error:
            raise AudioError(task.speech.path, str(error)) from None
        target, speech, facts = heard.target, heard.speech, heard.facts
    if task.noise is None:
        silent = {"noise_source": "", "noise_sha256": "", "noise_kind": "", "noise_offset": 0}
        return target, speech, silent | {"snr_db": math.nan} | facts
    noise, offset = _noise_part(task.noise, len(speech), task.rate, task.seed)
    with np.errstate(over="ignore"):  # absurdly large samples end in infinities, which `make` refuses
        gain, snr_db = _balance(task, speech, noise)
        scaled = noise * gain
        noisy = speech + scaled
    facts |= {
        "noise_source": task.noise.source,
        "noise_sha256": task.noise.sha256,
        "noise_kind": task.noise.kind,
        "noise_offset": offset,
        "snr_db": snr_db,
    }
    if not task.plain:
        mixed_db = _mixed_db(task, speech, noise, gain)
        facts |= {"snr_kind": task.levels.snr, "snr_mixed_db": mixed_db, "noise_gain": float(gain)}
    return target, noisy, facts


def _mixed_db(task: Task, speech: np.ndarray, noise: np.ndarray, gain: np.float32) -> float:
    """SNR by the task's measure of speech and noise as they were mixed."""
    try:
        return levels.snr_db(task.levels.snr, speech, noise * gain, task.rate)
    except ValueError:  # scaled down to a whisper, noise can be too quiet to have a loudness
        return levels.snr_db(task.levels.snr, speech, noise, task.rate) - 20.0 * math.log10(gain)


def _balance(task: Task, speech: np.ndarray, noise: np.ndarray) -> tuple[np.float32, float]:
    """(gain of the noise, SNR in dB that it gives): the one asked for, or, with `raise_snr`, what fits.

    EARS-WHAM adds 1 dB to the SNR for as long as the mixture's peak is at 1 or above.
    """
    snr_db = task.snr_db
    try:
        gain = levels.noise_gain(task.levels.snr, speech, noise, snr_db, task.rate)
    except ValueError as error:
        raise AudioError(task.speech.path, str(error)) from None
    if task.levels.peak == "raise_snr":
        for _ in range(_RAISES):
            if np.max(np.abs(speech + gain * noise)) < 1.0:
                break
            gain, snr_db = gain * np.float32(10.0 ** (-1.0 / 20.0)), snr_db + 1.0
    return gain, snr_db


def _augmented(
    task: Task, clean: np.ndarray, noisy: np.ndarray, facts: dict
) -> tuple[np.ndarray, np.ndarray, dict]:
    """The two signals after what `Task.augmented` asks for, and what was done, in words."""
    if task.plain:
        return clean, noisy, facts
    wanted, done = task.augmented, []
    if facts.get("snr_db", math.nan) != task.snr_db and task.noise is not None:
        done.append(f"SNR raised from {task.snr_db:.2f} dB against clipping")
    if wanted.band_hz:
        noisy = augmentation.band_limited(noisy, task.rate, wanted.band_hz)
        done.append(f"noisy side limited to {wanted.band_hz:g} Hz")
    if wanted.codec:
        noisy = augmentation.coded(noisy, task.rate, wanted.codec, wanted.compression)
        strength = f" at compression {wanted.compression:.2f}" if wanted.compression else ""
        late = augmentation.delay(task.rate, wanted.codec)
        done.append(f"noisy side through {wanted.codec}{strength}, its delay of {late} samples cut off")
    gain = np.float32(10.0 ** (wanted.gain_db / 20.0))
    if wanted.gain_db:
        clean, noisy = clean * gain, noisy * gain
    return clean, noisy, facts | {"level_db": wanted.gain_db, "done": "; ".join(done)}


def _noise_part(noise: Noise, n_samples: int, rate: int, seed: int) -> tuple[np.ndarray, int]:
    """`n_samples` of a noise recording from a random offset on, repeated where it is shorter.

    Returns (noise [n_samples] at `rate`, offset in samples at the recording's own rate).
    """
    rng = np.random.default_rng([seed, 1])
    needed = n_samples if noise.rate == rate else math.ceil(n_samples * noise.rate / rate) + 2
    first = round(noise.start * noise.rate)
    usable = noise.samples - first - round(noise.stop * noise.rate)
    if usable < 1:
        raise AudioError(
            noise.path, f"is shorter than what is to be left out of it ({noise.start + noise.stop:g} s)"
        )
    for _ in range(_CROPS):
        if usable >= needed:
            offset = first + int(rng.integers(usable - needed + 1))
            part = _recording(noise.path, noise.stamp).read(offset, needed)
        else:
            offset = first + int(rng.integers(usable))
            whole = _short_noise(noise.path, noise.stamp, first, usable)
            part = whole[:, (offset - first + np.arange(needed)) % usable]
        part = _channel(part, _chosen(noise, len(part), seed), noise.path)
        if audio.rms_dbfs(part) >= SILENT_DBFS:
            return audio.resample(part, noise.rate, rate)[:n_samples], offset
    raise AudioError(noise.path, f"silent in {_CROPS} places tried")


def _chosen(noise: Noise, channels: int, seed: int) -> int:
    """Channel of a noise recording that a row uses."""
    if noise.channel != ANY_CHANNEL:
        return noise.channel
    return int(np.random.default_rng([seed, 8]).integers(channels))


@lru_cache(maxsize=16)
def _recording(path: Path, listed: Stamp) -> audio.Recording:
    """A noise recording, kept open for the next mixtures; closed when it is forgotten."""
    return audio.Recording(path)


@lru_cache(maxsize=16)
def _short_noise(path: Path, listed: Stamp, start: int, samples: int) -> np.ndarray:
    return audio.read(path, start, samples)[0]


def _partner(task: Task, clean: np.ndarray, clipped: float) -> tuple[np.ndarray, dict, float]:
    """Noisy side of a ready pair. It must match its clean side sample by sample."""
    speech = task.speech
    path, clean_path = speech.noisy_path, speech.path
    ours, theirs = audio.info(path), audio.info(clean_path)
    if ours.rate != theirs.rate:
        raise AudioError(path, f"has {ours.rate} Hz, its clean partner {theirs.rate} Hz")
    if ours.samples != theirs.samples:
        raise AudioError(path, f"has {ours.samples} samples, its clean partner {theirs.samples}")
    listed = speech.noisy_stamp
    noisy, noisy_clipped = _load(path, task.rate, speech.channel, speech.start, speech.samples)
    if np.array_equal(clean, noisy):
        raise AudioError(path, "is identical to its clean partner")
    facts = {
        "noise_source": speech.noisy_source,
        "noise_sha256": _checksum(path, listed),
        "noise_kind": speech.noise_kind,
        "noise_offset": speech.start,
        "snr_db": math.nan if speech.snr_db is None else speech.snr_db,
    }
    return noisy, facts, max(clipped, noisy_clipped)


def _finish(task: Task, clean: np.ndarray, noisy: np.ndarray, facts: dict) -> Made:
    """Scale, round to what is stored, and measure that."""
    gain = peak_gain(clean, noisy)
    pair = np.stack([clean, noisy])
    pair *= np.float32(gain)
    stored, _ = shards.quantise(pair)
    clean, noisy = shards.to_float(stored)
    power, noise_power = levels.power(clean), levels.power(noisy - clean)
    speech = task.speech
    return Made(
        {"room": ""}
        | facts
        | {
            "id": task.id,
            "corpus": task.corpus,
            "split": speech.split,
            "speaker": speech.speaker,
            "gender": speech.gender,
            "clean_source": speech.source,
            "clean_offset": speech.start,
            "snr_measured_db": 10.0 * math.log10(power / noise_power) if noise_power > 0.0 else math.inf,
            "gain": gain,
            "n_samples": len(clean),
            "seconds": len(clean) / task.rate,
            "rate": task.rate,
            "peak": _peak(noisy),
            "level_dbfs": audio.decibels(power),
            "noisy_dbfs": audio.rms_dbfs(noisy),
            "finite": bool(np.all(np.isfinite(noisy))),
            "seed": task.seed,
            "sha256": shards.item_sha256(stored),
        }
        | ({"text": speech.text} if speech.text else {}),
        stored,
    )
