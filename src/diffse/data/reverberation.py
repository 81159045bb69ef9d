"""Rooms: simulated shoeboxes and measured responses, what is measured of them, and speech in them.

A simulated room is image sources up to a low order and, behind them, a diffuse tail whose envelope comes from
ray tracing: pyroomacoustics' hybrid simulation (Vorländer, Auralization, 2008; Schröder, Physically based
real-time auralization, 2011, section 5.3.4), as the corpora of the papers are made. Everything follows from a
seed; nothing depends on the number of threads or on what was simulated before.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from diffse import audio
from diffse.audio import AudioError
from diffse.settings_corpora import SimulatedRooms

DIRECT_SECONDS = 0.0025  # on both sides of the direct path, what counts as direct sound in the DRR
_DECAYS = ((30.0, 45.0), (20.0, 35.0), (10.0, 25.0))  # (dB fitted from -5 dB on, dB above the noise needed)
_ENVELOPE_SECONDS = 0.01  # smoothing that finds where a measured decay drowns in noise
_MAX_TAIL_RATE = 10000  # reflections per second at most in a diffuse tail, as in pyroomacoustics


@dataclass(frozen=True)
class Shoebox:
    """A rectangular room with one source and one microphone, lengths in metres."""

    size: tuple[float, float, float]
    t60: float  # asked for, seconds
    source: tuple[float, float, float]
    microphone: tuple[float, float, float]
    seed: int  # of the tail

    @property
    def room(self) -> str:
        """Id of the room: the same walls have the same id, wherever source and microphone stand."""
        text = ":".join(f"{value:.6f}" for value in (*self.size, self.t60))
        return "sim-" + hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Response:
    """A room impulse response and what it shows. Waves are float64 [samples] at the rate it was asked for."""

    room: str
    wave: np.ndarray
    direct: np.ndarray  # the direct sound alone, with its delay
    delay: int  # samples up to the direct sound
    t60: float  # measured, seconds; NaN where the decay is too short to be seen
    drr_db: float


# ------------------------------------------------------------------------------------------- simulated


def draw_room(rooms: SimulatedRooms, seed: int) -> Shoebox:
    """Size, T60, microphone and source of a room, each uniform in its range; they keep off the walls.

    A source nearer to the microphone or farther from it than `rooms.distance` allows is drawn again.
    ValueError when a hundred draws find none.
    """
    rng = np.random.default_rng([seed, 3])
    t60 = float(rng.uniform(*rooms.t60))
    size = tuple(float(rng.uniform(*extent)) for extent in (rooms.length, rooms.width, rooms.height))
    keep = [min(rooms.wall_distance, extent / 2) for extent in size]  # low rooms leave the middle
    for _ in range(100):
        places = [
            tuple(float(rng.uniform(low, extent - low)) for low, extent in zip(keep, size, strict=True))
            for _ in range(2)
        ]
        if rooms.distance[0] <= math.dist(*places) <= rooms.distance[1]:
            return Shoebox(size, t60, places[1], places[0], int(rng.integers(1 << 63)))
    raise ValueError(f"no place for a source at {rooms.distance} m from the microphone in a room of {size} m")


def simulate(room: Shoebox, rate: int, max_order: int = 3) -> Response:
    """Response of `room` at `rate` Hz: image sources up to `max_order`, ray tracing behind them.

    Absorption follows from T60 by Sabine's formula, which real decays do not obey exactly: the T60 that the
    response shows is `Response.t60`. The numbers are those of pyroomacoustics with the same seed. ValueError
    when no walls give this T60.
    """
    import pyroomacoustics as pra
    from scipy.signal import sosfiltfilt

    absorption, order = pra.inverse_sabine(room.t60, room.size)
    box = pra.ShoeBox(
        room.size, rate, materials=pra.Material(absorption), max_order=min(max_order, order), ray_tracing=True
    )
    box.set_ray_tracing()
    box.add_source(list(room.source))
    box.add_microphone(list(room.microphone))
    rng = _seeded(room.seed)
    box.image_source_model()
    box.ray_tracing()
    direct, early = _image_sources(box, order=0), _image_sources(box, order=None)
    tail = _tail(box, math.dist(room.source, room.microphone) / box.c, rng)
    wave = np.zeros(max(len(early), len(tail)))
    wave[: len(early)] += early
    wave[: len(tail)] += tail
    highpass = _highpass(rate)  # all reflections are positive, which leaves an offset that no room has
    wave, direct = sosfiltfilt(highpass, wave), sosfiltfilt(highpass, np.pad(direct, (0, rate // 50)))
    delay = int(np.argmax(np.abs(direct)))
    return Response(room.room, wave, direct, delay, measure_t60(wave, rate), drr_db(wave, rate, delay))


def _seeded(seed: int) -> np.random.Generator:
    """Generator of the tail. The one inside pyroomacoustics is a global of its C++ part."""
    from pyroomacoustics import libroom

    rng = np.random.default_rng(seed)
    libroom.set_rng_seed(int(rng.integers(2**64 - 1, size=(), dtype=np.uint64)))
    return rng


@lru_cache(maxsize=4)
def _highpass(rate: int) -> np.ndarray:
    from pyroomacoustics.parameters import constants
    from pyroomacoustics.utilities import design_highpass_filter_sos

    return design_highpass_filter_sos(rate, constants.get("rir_hpf_fc"), **constants.get("rir_hpf_kwargs"))


def _image_sources(box, order: int | None) -> np.ndarray:
    """Response of the images of exactly this order, or of all of them."""
    from pyroomacoustics.parameters import constants
    from pyroomacoustics.simulation import compute_ism_rir

    source, seen = box.sources[0], box.visibility[0][0, :].astype(bool)
    if order is not None:
        seen = seen & (source.orders == order)
    place, ways = box.mic_array.R[:, 0], source.directions[0]
    threads = constants.get("num_threads")
    constants.set("num_threads", 1)  # more of them add the images in another order
    try:
        length = constants.get("frac_delay_length")
        return compute_ism_rir(source, place, None, ways, seen, length, box.c, box.fs, box.octave_bands)
    finally:
        constants.set("num_threads", threads)


def _tail(box, t0: float, rng: np.random.Generator) -> np.ndarray:
    """Diffuse tail: random pulses under the envelope of the traced rays.

    pyroomacoustics places the pulses one by one in Python, which takes nine tenths of a simulation; the draws
    here are the same in the same order, and so are the numbers.
    """
    from pyroomacoustics.parameters import constants
    from pyroomacoustics.simulation.rt import interp_hist, seq_rolling_power

    histogram = np.asarray(box.rt_histograms[0][0][0])[0]
    filled = np.flatnonzero(histogram)
    pad = constants.get("frac_delay_length") // 2  # the delay of the image sources' filters
    if not filled.size:
        return np.zeros(pad)
    step = box.rt_args["hist_bin_size_samples"]
    n = math.ceil((filled[-1] + 1) * box.rt_args["hist_bin_size"] * box.fs / step) * step
    histogram = np.pad(histogram, (0, max(0, n // step - len(histogram))))[: n // step]
    times = _pulse_times(rng, t0, n / box.fs, box.volume, box.c)
    places = (times * box.fs).astype(np.int64)
    pulses = np.zeros(places[-1] + 1)
    pulses[places] = rng.choice([1, -1], size=len(places))
    power = seq_rolling_power(pulses, int(box.rt_args["hist_bin_size"] * box.fs), filter_length_mult=2)
    rng.uniform(size=len(places))  # the directions of a directional microphone
    signs = rng.choice([1, -1], size=len(places))
    sequence = np.zeros(places[-1] + 2)
    heights = np.where(power > 1e-10, 1.0 / np.where(power > 1e-10, power, 1.0), 0.0)
    np.add.at(sequence, places, signs * np.sqrt(heights[places]))
    envelope = np.sqrt(np.maximum(interp_hist(histogram, n), 0.0))
    return np.pad(sequence[:n] * envelope, (pad, 0))


def _pulse_times(
    rng: np.random.Generator, t0: float, duration: float, volume: np.floating, c: float
) -> np.ndarray:
    """Times of a Poisson process whose rate grows as that of reflections in a room, 4 pi c^3 t^2 / V."""
    growth = float(4.0 * math.pi * c**3 / volume)  # in the precision in which pyroomacoustics has the volume
    times, time, end = [t0], t0, t0 + duration
    while time < end and (rate := growth * (t0 + time) ** 2) < _MAX_TAIL_RATE:
        time += math.log(1.0 / rng.random()) / rate
        times.append(time)
    # From here on the rate is constant: draw more than are needed, and give the rest back.
    drawn = 0 if time >= end else math.ceil((end - time) * _MAX_TAIL_RATE * 1.2) + 200
    steps = np.log(1.0 / rng.random(drawn)) / _MAX_TAIL_RATE
    late = np.cumsum(np.concatenate([[time], steps]))[1:]
    used = min(int(np.searchsorted(late, end)) + 1, drawn)
    rng.bit_generator.advance(used - drawn)
    return np.concatenate([times, late[:used]])


# -------------------------------------------------------------------------------------------- measured


def measured(path: Path | str, rate: int, room: str, channel: int = 0) -> Response:
    """Response in a file at `rate` Hz. Its direct sound is taken to be its largest sample.

    AudioError: not readable, fewer channels, silent.
    """
    waves, from_rate = audio.read(path)
    if channel >= len(waves):
        raise AudioError(path, f"has {len(waves)} channels; channel {channel} was asked for")
    wave = audio.resample(waves[channel], from_rate, rate).astype(np.float64)
    delay = int(np.argmax(np.abs(wave)))
    if not wave[delay]:
        raise AudioError(path, "is no impulse response: silent")
    direct = np.zeros(delay + 1)
    direct[delay] = wave[delay]
    return Response(room, wave, direct, delay, measure_t60(wave, rate), drr_db(wave, rate, delay))


# --------------------------------------------------------------------------------------------- measures


def measure_t60(response: np.ndarray, rate: int) -> float:
    """Reverberation time in seconds: Schroeder's backward integration, straight line from -5 dB on.

    Fitted over 30 dB (T30) where the decay stands 45 dB out of the noise, else over 20 or 10 dB; NaN where it
    does not stand out by 25 dB. The integration ends where the decay drowns in the noise of its last tenth.
    (ISO 3382-2; Schroeder, J. Acoust. Soc. Am. 37, 1965.)
    """
    energy = np.square(response[int(np.argmax(np.abs(response))) :], dtype=np.float64)
    end, reach = _drowned(energy, rate)
    left = np.cumsum(energy[:end][::-1])[::-1]
    if not len(left) or left[0] <= 0.0:
        return math.nan
    curve = 10.0 * np.log10(np.maximum(left / left[0], 1e-30))
    span = next((span for span, needed in _DECAYS if reach >= needed), None)
    return math.nan if span is None else _slope_t60(curve, rate, span)


def _slope_t60(curve: np.ndarray, rate: int, span: float) -> float:
    inside = np.flatnonzero((curve <= -5.0) & (curve >= -5.0 - span))
    if len(inside) < 3:
        return math.nan
    slope = np.polyfit(inside / rate, curve[inside], 1)[0]
    return float(-60.0 / slope) if slope < 0.0 else math.nan


def _drowned(energy: np.ndarray, rate: int) -> tuple[int, float]:
    """(samples up to where the smoothed energy comes within 3 dB of the last tenth's, dB between the two)."""
    window = max(1, int(_ENVELOPE_SECONDS * rate))
    noise = float(np.mean(energy[-max(1, len(energy) // 10) :]))
    blocks = len(energy) // window
    if blocks < 3 or noise <= 0.0:
        return len(energy), math.inf
    smooth = energy[: blocks * window].reshape(blocks, window).mean(axis=1)
    below = np.flatnonzero(smooth < 2.0 * noise)
    reach = 10.0 * math.log10(float(smooth.max()) / noise)
    return int(below[0]) * window if below.size else len(energy), reach


def drr_db(response: np.ndarray, rate: int, delay: int) -> float:
    """Direct-to-reverberant ratio in dB: energy within 2.5 ms of the direct sound over all behind it."""
    span = int(DIRECT_SECONDS * rate)
    energy = np.square(response, dtype=np.float64)
    direct, rest = energy[max(0, delay - span) : delay + span + 1].sum(), energy[delay + span + 1 :].sum()
    return float(10.0 * math.log10(direct / rest)) if direct > 0.0 and rest > 0.0 else math.inf


# ---------------------------------------------------------------------------------------------- speech


def reverberate(
    dry: np.ndarray,
    response: Response,
    rate: int,
    target: Literal["anechoic", "early"] = "anechoic",
    early_ms: float = 50.0,
    keep_delay: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """(target, reverberant), both float64 [samples] like `dry`: speech in a room, and what is to come out.

    `anechoic`: the direct sound alone; `early`: with the reflections of the first `early_ms` milliseconds
    behind it. Both keep the delay to each other, and, unless `keep_delay`, lose the one of the direct sound,
    so that they are aligned with `dry`. The direct sound has gain 1. Append zeros to `dry` to keep the tail.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    wanted = response.direct
    if target == "early":
        wanted = response.wave[: response.delay + 1 + round(early_ms * rate / 1000.0)]
    # by energy: between two samples, the direct sound's largest one is less than its gain
    unit = math.copysign(float(np.sqrt(np.sum(np.square(response.direct)))), response.direct[response.delay])
    n = next_fast_len(len(dry) + max(len(response.wave), len(wanted)) - 1, real=True)
    spectrum = rfft(dry.astype(np.float64), n)
    first = 0 if keep_delay else response.delay
    signals = (irfft(spectrum * rfft(filter_ / unit, n), n) for filter_ in (wanted, response.wave))
    clean, wet = (signal[first : first + len(dry)] for signal in signals)
    return clean, wet
