"""What a corpus can say about a recording: which part and channel of it, and what is known of its content."""

from dataclasses import replace

import numpy as np
import pytest

from diffse import audio
from diffse.audio import AudioError
from diffse.data import mixing, shards
from diffse.data.mixing import Task
from diffse.data.recordings import ANY_CHANNEL, Noise, Speech

RATE = 16000


def tone(frequency: float, seconds: float) -> np.ndarray:
    return (0.2 * np.sin(2.0 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def test_a_part_of_a_file_on_one_of_its_channels(tmp_path):
    wave = np.stack([tone(300.0, 3.0), tone(900.0, 3.0)])
    audio.write(tmp_path / "long.wav", wave, RATE, "FLOAT")
    audio.write(tmp_path / "noise.wav", wave[0], RATE, "FLOAT")
    noise = Noise("train", "hum", tmp_path / "noise.wav", "noise.wav", wave.shape[1], RATE)
    speech = Speech("a", "train", "s", tmp_path / "long.wav", "long.wav", channel=1, start=8000, samples=16000)
    task = Task("a", "own", 1, RATE, 0.5, replace(speech, text="hello"), noise, 5.0)
    made = mixing.make(task)
    assert np.max(np.abs(shards.to_float(made.stored)[0] - wave[1, 8000:24000])) < 1e-6
    assert (made.facts["clean_offset"], made.facts["n_samples"], made.facts["text"]) == (8000, 16000, "hello")
    assert mixing.planned_samples(task) == 16001
    refused = mixing.make(replace(task, speech=replace(speech, channel=2)))
    assert refused.reason == "has 2 channels; channel 3 was asked for"
    assert (
        "24000 to 56000 were asked for"
        in mixing.make(replace(task, speech=replace(speech, start=24000, samples=32000))).reason
    )


def test_the_ends_of_a_noise_recording_can_be_left_out(tmp_path):
    wave = np.concatenate([np.zeros(RATE), tone(500.0, 2.0), np.zeros(RATE)]).astype(np.float32)
    audio.write(tmp_path / "noise.wav", wave, RATE)
    noise = Noise("train", "k", tmp_path / "noise.wav", "noise.wav", len(wave), RATE, start=1.0, stop=1.0)
    for seed in range(20):
        part, offset = mixing._noise_part(noise, 12000, RATE, seed)
        assert RATE <= offset <= 3 * RATE - 12000
        assert np.array_equal(part, audio.read(noise.path, offset, 12000)[0][0])
    part, _ = mixing._noise_part(noise, 3 * RATE, RATE, 1)  # repeated, without the silent ends
    assert audio.rms_dbfs(part) == pytest.approx(audio.rms_dbfs(tone(500.0, 2.0)), abs=0.1)
    with pytest.raises(AudioError, match="shorter than what is to be left out"):
        mixing._noise_part(replace(noise, start=3.0), 12000, RATE, 1)


def test_a_channel_drawn_for_each_mixture(tmp_path):
    wave = np.stack([tone(300.0, 2.0), 0.5 * tone(300.0, 2.0)])
    audio.write(tmp_path / "noise.wav", wave, RATE)
    noise = Noise("train", "k", tmp_path / "noise.wav", "n", wave.shape[1], RATE, channel=ANY_CHANNEL)
    levels = {round(audio.rms_dbfs(mixing._noise_part(noise, 8000, RATE, seed)[0])) for seed in range(30)}
    assert len(levels) == 2
    fixed = {mixing._chosen(replace(noise, channel=1), 2, seed) for seed in range(30)}
    assert fixed == {1}
