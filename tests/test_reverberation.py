"""Rooms: the same numbers as pyroomacoustics, from the seed alone; decays, ratios and aligned speech."""

import hashlib
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from diffse import audio
from diffse.audio import AudioError
from diffse.data import reverberation
from diffse.data.reverberation import Response
from diffse.settings_corpora import SimulatedRooms

RATE = 16000
SMALL = SimulatedRooms(
    t60=(0.2, 0.4), length=(4.0, 6.0), width=(3.0, 5.0), height=(2.5, 3.0), wall_distance=0.5
)


def decay(t60: float, seconds: float = 1.5, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Gaussian noise under an exponential decay, after a direct sound at sample 100."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    response = np.pad(rng.standard_normal(len(time)) * 10.0 ** (-3.0 * time / t60), (100, 0))
    response[100] = 5.0
    return response + noise * rng.standard_normal(len(response))


def speech(seconds: float = 1.0) -> np.ndarray:
    return 0.1 * np.random.default_rng(7).standard_normal(int(seconds * RATE))


# ------------------------------------------------------------------------------------------- simulated


def plain(room, rate: int, max_order: int) -> np.ndarray:
    """What pyroomacoustics itself gives."""
    import pyroomacoustics as pra

    absorption, order = pra.inverse_sabine(room.t60, room.size)
    box = pra.ShoeBox(
        room.size, rate, materials=pra.Material(absorption), max_order=min(max_order, order), ray_tracing=True
    )
    box.set_ray_tracing()
    box.add_source(list(room.source))
    box.add_microphone(list(room.microphone))
    pra.random.seed(room.seed)
    box.compute_rir()
    return box.rir[0][0]


@pytest.mark.parametrize(("seed", "rate", "max_order"), [(1, 16000, 3), (2, 16000, 0), (3, 48000, 2)])
def test_a_room_is_that_of_pyroomacoustics(seed, rate, max_order):
    room = reverberation.draw_room(SMALL, seed)
    ours, theirs = reverberation.simulate(room, rate, max_order).wave, plain(room, rate, max_order)
    assert len(ours) == len(theirs)
    # its threads add the images, float32, in an order of their own
    assert np.max(np.abs(ours - theirs)) < 1e-6 * np.max(np.abs(theirs))


def test_a_room_depends_on_its_seed_alone():
    room = reverberation.draw_room(SMALL, 4)
    first = reverberation.simulate(room, RATE)
    reverberation.simulate(reverberation.draw_room(SMALL, 5), RATE)  # leaves the global generators elsewhere
    again = reverberation.simulate(room, RATE)
    assert first.wave.tobytes() == again.wave.tobytes()
    other = reverberation.simulate(replace(room, seed=room.seed + 1), RATE)
    assert np.max(np.abs(other.wave - first.wave)) > 1e-3 * np.max(np.abs(first.wave))


def test_a_room_is_the_same_in_another_process_with_more_threads():
    code = (
        "import hashlib, pyroomacoustics; from diffse.data import reverberation as r; "
        "from diffse.settings_corpora import SimulatedRooms; pyroomacoustics.constants.set('num_threads', 3); "
        f"room = r.draw_room({SMALL!r}, 4); "
        f"print(hashlib.sha256(r.simulate(room, {RATE}).wave.tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wave = reverberation.simulate(reverberation.draw_room(SMALL, 4), RATE).wave
    assert done.stdout.split()[-1] == hashlib.sha256(wave.tobytes()).hexdigest()


def test_rooms_are_drawn_from_their_ranges():
    near = replace(SMALL, distance=(0.5, 1.5))
    rooms = [reverberation.draw_room(near, seed) for seed in range(200)]
    sizes, t60s = np.array([room.size for room in rooms]), np.array([room.t60 for room in rooms])
    assert (sizes.min(axis=0) >= [4.0, 3.0, 2.5]).all()
    assert (sizes.max(axis=0) <= [6.0, 5.0, 3.0]).all()
    assert np.allclose(np.quantile(t60s, [0.1, 0.5, 0.9]), [0.22, 0.3, 0.38], atol=0.03)
    for room in rooms:
        assert 0.5 <= math.dist(room.source, room.microphone) <= 1.5
        for place in (room.source, room.microphone):
            assert all(0.5 <= x <= extent - 0.5 for x, extent in zip(place, room.size, strict=True))
    assert len({room.room for room in rooms}) == 200
    with pytest.raises(ValueError, match="no place"):
        reverberation.draw_room(replace(SMALL, distance=(50.0, 60.0)), 0)


def test_the_id_is_that_of_the_walls():
    room = reverberation.draw_room(SMALL, 4)
    assert room.room == replace(room, source=(1.0, 1.0, 1.0), seed=9).room
    assert room.room != replace(room, t60=room.t60 + 0.01).room
    assert room.room.startswith("sim-")


def test_direct_sound_comes_when_it_must():
    room = reverberation.draw_room(SMALL, 4)
    response = reverberation.simulate(room, RATE)
    travel = math.dist(room.source, room.microphone) / 343.0 * RATE
    assert response.delay == pytest.approx(travel + 40, abs=1.0)  # 40: half the fractional delay's filter
    assert response.t60 > 0.15
    assert math.isfinite(response.drr_db)


# --------------------------------------------------------------------------------------------- measures


@pytest.mark.parametrize("t60", [0.15, 0.4, 0.9])
def test_t60_of_an_exponential_decay(t60):
    assert reverberation.measure_t60(decay(t60), RATE) == pytest.approx(t60, rel=0.05)


@pytest.mark.parametrize("noise", [1e-3, 1e-2])
def test_noise_behind_the_decay_does_not_lengthen_it(noise):
    assert reverberation.measure_t60(decay(0.4, noise=noise), RATE) == pytest.approx(0.4, rel=0.06)


def test_a_decay_that_drowns_has_no_t60():
    assert math.isnan(reverberation.measure_t60(decay(0.4, noise=0.3), RATE))
    assert math.isnan(reverberation.measure_t60(np.zeros(100), RATE))


def test_direct_to_reverberant_ratio():
    response = np.zeros(4000)
    response[100], response[1000] = 1.0, 0.5
    assert reverberation.drr_db(response, RATE, 100) == pytest.approx(20 * math.log10(2))
    assert reverberation.drr_db(response[:500], RATE, 100) == math.inf


def test_measured_rooms(corpus):
    """Room A of Surrey has a T30 of 0.25 to 0.3 s; the other one is a hall."""
    for name, low, high in (("iosr_roomA_az000_L", 0.25, 0.32), ("spatialaudio_brir_sweep_L", 0.5, 0.8)):
        response = reverberation.measured(corpus / "rir" / f"{name}.wav", RATE, name)
        assert low < response.t60 < high
        assert response.delay == 40  # placed at 2.5 ms
        assert response.room == name


def test_measured_responses_that_cannot_be_used(tmp_path):
    audio.write(tmp_path / "zero.wav", np.zeros(100, np.float32), RATE)
    with pytest.raises(AudioError, match="silent"):
        reverberation.measured(tmp_path / "zero.wav", RATE, "x")
    with pytest.raises(AudioError, match="channel 1"):
        reverberation.measured(tmp_path / "zero.wav", RATE, "x", channel=1)


# ---------------------------------------------------------------------------------------------- speech


def response_of(wave: np.ndarray, delay: int) -> Response:
    direct = np.zeros(delay + 1)
    direct[delay] = wave[delay]
    return Response("x", wave, direct, delay, 0.3, 0.0)


def test_speech_is_convolved_and_aligned():
    wave = decay(0.3, 0.4)
    dry = speech()
    clean, wet = reverberation.reverberate(dry, response_of(wave, 100), RATE)
    assert np.allclose(clean, dry, atol=1e-12)  # the direct sound alone, gain 1, no delay
    assert np.allclose(wet, np.convolve(dry, wave / wave[100])[100 : 100 + len(dry)], atol=1e-12)
    delayed, _ = reverberation.reverberate(dry, response_of(wave, 100), RATE, keep_delay=True)
    assert np.allclose(delayed[100:], dry[:-100], atol=1e-12)


def test_early_reflections_as_the_target():
    wave = decay(0.3, 0.4)
    dry = speech()
    clean, wet = reverberation.reverberate(dry, response_of(wave, 100), RATE, "early", early_ms=50.0)
    early = wave[: 100 + 1 + 800] / wave[100]
    assert np.allclose(clean, np.convolve(dry, early)[100 : 100 + len(dry)], atol=1e-12)
    late, _ = reverberation.reverberate(dry, response_of(wave, 100), RATE, "early", early_ms=10_000.0)
    assert np.allclose(late, wet, atol=1e-12)


def test_target_and_speech_in_a_simulated_room_are_aligned():
    response = reverberation.simulate(reverberation.draw_room(SMALL, 4), RATE)
    dry = speech()
    clean, wet = reverberation.reverberate(dry, response, RATE)
    for signal in (clean, wet):
        lags = np.correlate(signal[200:-200], dry, mode="valid")
        assert abs(int(np.argmax(lags)) - 200) <= 1
    assert 20 * math.log10(np.std(clean) / np.std(dry)) == pytest.approx(0.0, abs=1.0)
