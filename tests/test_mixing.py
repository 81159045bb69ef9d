"""One row at a time: seeds, draws, SNR, crops, gains, and what is refused."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffse import audio, storage
from diffse.data import levels, mixing, shards
from diffse.data.mixing import Made, Task
from diffse.data.prepare import scan_noise
from diffse.data.recordings import Noise, Rejected, Speech

RATE = 16000


def wave(n: int, seed: int, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def save(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    audio.write(path, samples, rate, "FLOAT" if path.suffix == ".wav" else None)
    return path


def noise_of(path: Path, kind: str = "fan") -> Noise:
    scanned = scan_noise(Noise("train", kind, path, f"noise/{path.name}"))
    assert isinstance(scanned, Noise)
    return scanned


@pytest.fixture
def task(tmp_path):
    """Two seconds of speech and five of noise."""
    clean = save(tmp_path / "clean.wav", wave(2 * RATE, 1))
    noise = noise_of(save(tmp_path / "fan.wav", wave(5 * RATE, 2)))
    speech = Speech("a_clean", "train", "a", clean, "clean/a/clean.wav")
    return Task("a_clean", "test", mixing.row_seed(0, "a_clean"), RATE, 0.5, speech, noise, 3.0)


def made(task: Task) -> Made:
    result = mixing.make(task)
    assert isinstance(result, Made), result
    return result


def refused(task: Task) -> Rejected:
    result = mixing.make(task)
    assert isinstance(result, Rejected), result
    return result


# ------------------------------------------------------------------------------------- seeds and draws


def test_seed_of_a_row_is_fixed_for_ever():
    """A changed rule would change every prepared corpus without a word."""
    assert mixing.row_seed(0, "p232_001") == 7975622157547983153
    assert mixing.row_seed(20, "ada_001-2") == 3579148758772911494


def test_seeds_differ_by_id_and_by_corpus_seed_and_fit_63_bits():
    seeds = {mixing.row_seed(seed, f"id_{k}") for seed in (0, 1) for k in range(500)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert max(seeds) > 1 << 62


def fake_noises(kind: str, count: int) -> list[Noise]:
    return [Noise("train", kind, Path(f"{kind}{k}"), f"{kind}{k}") for k in range(count)]


def test_every_kind_is_as_likely_however_many_recordings_it_has():
    kinds = {"rain": fake_noises("rain", 60), "hum": fake_noises("hum", 1), "cafe": fake_noises("cafe", 5)}
    drawn = [mixing.draw(mixing.row_seed(3, str(k)), kinds, (0.0, 10.0)) for k in range(3000)]
    counts = Counter(noise.kind for noise, _ in drawn)
    # 3000 draws at 1/3: standard deviation 26
    assert all(abs(count - 1000) < 130 for count in counts.values()), counts
    cafes = Counter(noise.source for noise, _ in drawn if noise.kind == "cafe")
    assert len(cafes) == 5
    assert all(abs(count - counts["cafe"] / 5) < 70 for count in cafes.values()), cafes


def test_snr_is_uniform_over_its_range():
    kinds = {"hum": fake_noises("hum", 1)}
    values = np.array([mixing.draw(mixing.row_seed(0, str(k)), kinds, (-5.0, 15.0))[1] for k in range(3000)])
    assert values.min() >= -5.0
    assert values.max() <= 15.0
    assert np.allclose(np.quantile(values, [0.1, 0.5, 0.9]), [-3.0, 5.0, 13.0], atol=0.8)


def test_draw_depends_on_seed_alone():
    kinds = {"rain": fake_noises("rain", 6), "hum": fake_noises("hum", 2)}
    backwards = dict(reversed(kinds.items()))
    for seed in range(50):
        assert mixing.draw(seed, kinds, (0.0, 10.0)) == mixing.draw(seed, backwards, (0.0, 10.0))


# ------------------------------------------------------------------------------------------------- SNR


@settings(max_examples=50, deadline=None)
@given(
    snr_db=st.floats(-30.0, 40.0),
    clean_level=st.floats(1e-3, 1.0),
    noise_level=st.floats(1e-3, 1.0),
    n=st.integers(1, 4000),
)
def test_gain_gives_the_snr_asked_for(snr_db, clean_level, noise_level, n):
    clean, noise = wave(n, 1, clean_level), wave(n, 2, noise_level)
    scaled = (noise * levels.noise_gain("power", clean, noise, snr_db, RATE)).astype(np.float64)
    measured = 10.0 * math.log10(np.sum(clean.astype(np.float64) ** 2) / np.sum(scaled**2))
    assert measured == pytest.approx(snr_db, abs=1e-4)


@pytest.mark.parametrize("snr_db", [-20.0, -5.0, 0.0, 15.0, 40.0])
def test_measured_snr_is_that_of_the_stored_signals(task, snr_db):
    result = made(replace(task, snr_db=snr_db))
    clean, noisy = shards.to_float(result.stored).astype(np.float64)
    measured = 10.0 * math.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2))
    assert result.facts["snr_db"] == snr_db
    assert result.facts["snr_measured_db"] == pytest.approx(measured, abs=1e-9)
    assert measured == pytest.approx(snr_db, abs=0.01)


# --------------------------------------------------------------------------------- crops of the noise


def noise_in(result: Made) -> np.ndarray:
    """The noise of a row, RMS 1."""
    clean, noisy = shards.to_float(result.stored)
    noise = noisy - clean
    return noise / np.sqrt(np.mean(noise**2))


def test_long_noise_is_cropped_where_the_row_says(task):
    facts = (result := made(task)).facts
    offset = facts["noise_offset"]
    assert 0 <= offset <= 3 * RATE
    part = wave(5 * RATE, 2)[offset : offset + 2 * RATE]
    assert np.allclose(noise_in(result), part / np.sqrt(np.mean(part**2)), atol=1e-4)


def test_short_noise_is_repeated_from_a_random_start(task, tmp_path):
    short = wave(7001, 3)
    task = replace(task, noise=noise_of(save(tmp_path / "short.wav", short)))
    offset = (result := made(task)).facts["noise_offset"]
    assert 0 < offset < 7001
    part = short[(offset + np.arange(2 * RATE)) % 7001]
    assert np.allclose(noise_in(result), part / np.sqrt(np.mean(part**2)), atol=1e-4)


def test_noise_of_exactly_the_length_of_the_speech(task, tmp_path):
    task = replace(task, noise=noise_of(save(tmp_path / "same.wav", wave(2 * RATE, 3))))
    assert made(task).facts["noise_offset"] == 0


@pytest.mark.parametrize(("rate", "seconds"), [(44100, 5.0), (48000, 0.7), (8000, 3.0)])
def test_noise_of_another_rate_is_resampled(task, tmp_path, rate, seconds):
    """A tone keeps its frequency; the offset counts samples of the recording itself."""
    tone = np.sin(2.0 * np.pi * 1000.0 * np.arange(int(rate * seconds)) / rate).astype(np.float32)
    task = replace(task, noise=noise_of(save(tmp_path / "tone.wav", 0.3 * tone, rate)))
    result = made(task)
    noise = noise_in(result)
    assert len(noise) == 2 * RATE
    peak = np.argmax(np.abs(np.fft.rfft(noise))) * RATE / len(noise)
    assert peak == pytest.approx(1000.0, abs=2.0)
    assert result.facts["noise_offset"] <= rate * seconds


def test_silent_parts_of_a_noise_are_passed_over(task, tmp_path):
    """One second of sound in ten: most first choices would be silent."""
    mostly_silent = np.zeros(20 * RATE, np.float32)
    mostly_silent[9 * RATE : 13 * RATE] = wave(4 * RATE, 5)
    noise = noise_of(save(tmp_path / "rare.wav", mostly_silent))
    offsets = set()
    for k in range(20):
        result = mixing.make(replace(task, seed=k, noise=noise))
        if isinstance(result, Made):
            offset = result.facts["noise_offset"]
            assert audio.rms_dbfs(mostly_silent[offset : offset + 2 * RATE]) >= mixing.SILENT_DBFS
            assert mixing.make(replace(task, seed=k, noise=noise)).facts == result.facts
            offsets.add(offset)
    assert len(offsets) >= 15


def test_noise_without_sound_where_it_is_needed_is_refused(task, tmp_path):
    click = np.zeros(600 * RATE, np.float32)
    click[5] = 1.0
    noise = Noise("train", "click", save(tmp_path / "click.wav", click), "noise/click.wav", len(click), RATE)
    assert refused(replace(task, noise=noise)) == Rejected("noise/click.wav", "silent in 10 places tried")


# ---------------------------------------------------------------------------------- gains and the facts


def test_loud_mixture_is_scaled_as_a_whole(task, tmp_path):
    loud = save(tmp_path / "loud.wav", wave(2 * RATE, 1, level=0.5))
    task = replace(task, speech=replace(task.speech, path=loud), snr_db=-10.0)
    result = made(task)
    gain = result.facts["gain"]
    assert gain < 0.5
    clean, noisy = shards.to_float(result.stored)
    assert np.max(np.abs(noisy)) == pytest.approx(mixing.PEAK, abs=1e-6)
    assert np.max(np.abs(clean - gain * wave(2 * RATE, 1, level=0.5))) < 1e-6
    assert result.facts["snr_measured_db"] == pytest.approx(-10.0, abs=1e-3)
    assert result.facts["clipped"] == pytest.approx(np.mean(np.abs(wave(2 * RATE, 1, 0.5)) >= 0.999))
    assert result.facts["clipped"] > 0.03


def test_quiet_mixture_is_left_alone(task):
    result = made(task)
    assert result.facts["gain"] == 1.0
    clean, _ = shards.to_float(result.stored)
    assert np.max(np.abs(clean - wave(2 * RATE, 1))) <= 2.0**-24


def test_a_row_can_be_made_again_from_its_own_facts(task):
    facts = (result := made(task)).facts
    clean = wave(2 * RATE, 1)
    noise = wave(5 * RATE, 2)[facts["noise_offset"] :][: facts["n_samples"]]
    factor = np.sqrt(np.mean(clean**2) / np.mean(noise**2) / 10.0 ** (facts["snr_db"] / 10.0))
    again = facts["gain"] * (clean + factor * noise)
    assert np.max(np.abs(shards.to_float(result.stored)[1] - again)) < 1e-6


def test_facts_describe_what_is_stored(task):
    result = made(task)
    facts = result.facts
    clean, noisy = shards.to_float(result.stored)
    assert facts["n_samples"] == len(clean) == 2 * RATE
    assert facts["seconds"] == 2.0
    assert facts["peak"] == np.max(np.abs(noisy))
    assert facts["level_dbfs"] == audio.rms_dbfs(clean)
    assert facts["noisy_dbfs"] == audio.rms_dbfs(noisy)
    assert facts["sha256"] == shards.item_sha256(result.stored)
    assert facts["clean_sha256"] == storage.sha256_file(task.speech.path)
    assert facts["noise_sha256"] == storage.sha256_file(task.noise.path)
    assert (facts["clean_source"], facts["noise_source"]) == ("clean/a/clean.wav", "noise/fan.wav")


# --------------------------------------------------------------------------------------- refused speech


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (wave(7999, 1), "too short (0.50 s; at least 0.5 s are needed)"),
        (np.zeros(RATE, np.float32), "no speech: silent (RMS -inf dBFS)"),
        (wave(RATE, 1, level=1e-4), "no speech: silent (RMS -80 dBFS)"),
        (wave(RATE, 1, level=1e37), "its samples are too large to be mixed"),
    ],
)
def test_unusable_speech_is_refused_with_its_reason(task, tmp_path, samples, reason):
    path = save(tmp_path / "bad.wav", samples)
    task = replace(task, snr_db=-60.0, speech=replace(task.speech, path=path, source="clean/a/bad.wav"))
    assert refused(task) == Rejected("clean/a/bad.wav", reason)


# ----------------------------------------------------------------------------------------- ready pairs


def pair(task: Task, tmp_path: Path, noisy: np.ndarray, rate: int = RATE) -> Task:
    path = save(tmp_path / "noisy.wav", noisy, rate)
    speech = replace(task.speech, noisy_path=path, noisy_source="noisy/clean.wav")
    return replace(task, noise=None, snr_db=None, speech=speech)


def test_ready_pair_is_kept_as_it_is(task, tmp_path):
    noisy = wave(2 * RATE, 1) + wave(2 * RATE, 9, level=0.05)
    result = made(pair(task, tmp_path, noisy))
    facts = result.facts
    assert np.max(np.abs(shards.to_float(result.stored)[1] - noisy)) <= 2.0**-24
    assert math.isnan(facts["snr_db"])
    assert facts["snr_measured_db"] == pytest.approx(20.0 * math.log10(2.0), abs=0.1)
    assert (facts["noise_source"], facts["noise_kind"]) == ("noisy/clean.wav", "")


@pytest.mark.parametrize(
    ("noisy", "rate", "reason"),
    [
        (wave(2 * RATE - 1, 4), RATE, "has 31999 samples, its clean partner 32000"),
        (wave(2 * RATE, 4), 48000, "has 48000 Hz, its clean partner 16000 Hz"),
        (wave(2 * RATE, 1), RATE, "is identical to its clean partner"),
    ],
)
def test_pair_that_does_not_fit_is_refused(task, tmp_path, noisy, rate, reason):
    assert refused(pair(task, tmp_path, noisy, rate)) == Rejected("noisy/clean.wav", reason)
