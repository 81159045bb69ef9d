"""Which room the speech of a row is heard in, and the row's speech and target in it."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from diffse import audio
from diffse.audio import AudioError
from diffse.data import levels, reverberation
from diffse.data.recordings import ANY_CHANNEL, Rejected, Rir
from diffse.data.reverberation import Response, Shoebox
from diffse.settings_corpora import Rooms

PEAK = 0.9  # of speech in a room where rooms.level is "peak"


@dataclass(frozen=True)
class InRoom:
    """Speech in a room, float32 [samples], and the manifest's columns on the room."""

    target: np.ndarray
    speech: np.ndarray
    facts: dict


def scan(rir: Rir, max_t60: float) -> Rir | Rejected:
    """A measured response with its number of channels, or why it cannot be used."""
    try:
        found = audio.info(rir.path)
        channel = 0 if rir.channel == ANY_CHANNEL else rir.channel
        t60 = reverberation.measured(rir.path, found.rate, rir.room, channel).t60
    except AudioError as error:
        return Rejected(rir.source, error.reason)
    if t60 > max_t60:
        return Rejected(rir.source, f"decays too slowly (T60 {t60:.2f} s; at most {max_t60:g} s)")
    return replace(rir, channels=found.channels)


def draw(rooms: Rooms, measured: dict[str, list[Rir]], seed: int) -> Rir | Shoebox | None:
    """Room of the row with this seed; None for a dry one.

    `measured`: room -> its responses, in a fixed order; each room is equally likely, then each response.
    """
    if rooms.kind == "none":
        return None
    rng = np.random.default_rng([seed, 5])
    if rng.random() >= rooms.share:
        return None
    if rooms.kind == "simulated":
        return reverberation.draw_room(rooms.simulated, seed)
    names = sorted(measured)
    responses = measured[names[rng.integers(len(names))]]
    return responses[rng.integers(len(responses))]


def apply(dry: np.ndarray, room: Rir | Shoebox, rooms: Rooms, rate: int, seed: int) -> InRoom:
    """Dry speech float32 [samples] as it is heard in `room`, at the level that `rooms.level` asks for.

    AudioError where a measured response cannot be read; ValueError where the speech has no loudness.
    """
    response = _response(room, rooms, rate, seed)
    dry = np.pad(dry, (0, round(rooms.tail_seconds * rate)))
    target, wet = reverberation.reverberate(dry, response, rate, rooms.target, rooms.early_ms, rooms.keep_delay)
    if rooms.level == "loudness":
        wet = wet * 10.0 ** ((levels.loudness(dry, rate) - levels.loudness(wet, rate)) / 20.0)
    elif rooms.level == "peak":
        gain = PEAK / float(np.max(np.abs(wet)))
        target, wet = target * gain, wet * gain
    facts = {
        "room": response.room,
        "t60": response.t60,
        "drr_db": response.drr_db if math.isfinite(response.drr_db) else math.nan,
        "target": rooms.target,
    }
    return InRoom(target.astype(np.float32), wet.astype(np.float32), facts)


def _response(room: Rir | Shoebox, rooms: Rooms, rate: int, seed: int) -> Response:
    if isinstance(room, Shoebox):
        return reverberation.simulate(room, rate, rooms.simulated.max_order)
    channel = room.channel
    if channel == ANY_CHANNEL:
        channel = int(np.random.default_rng([seed, 6]).integers(room.channels))
    return _measured(room.path, rate, room.room, channel)


@lru_cache(maxsize=16)
def _measured(path: Path, rate: int, room: str, channel: int) -> Response:
    return reverberation.measured(path, rate, room, channel)
