"""Rooms, levels and augmentation: what they do to mixtures, what the manifest says of it, the same bytes."""

import math
import random
from dataclasses import replace

import numpy as np
import pyloudnorm
import pytest
from own_recordings import MIX, RATE, build, contents, fails, params, rejected, run, sound, table

from diffse import audio, paths, settings, storage
from diffse.data import augmentation, levels, manifest, mixing, prepare, shards
from diffse.data.augmentation import Drawn
from diffse.errors import DiffseError
from diffse.settings import Augmentation, Levels, Rooms, SimulatedRooms, SplitCounts

TINY = SimulatedRooms(t60=(0.1, 0.2), length=(3.0, 4.0), width=(2.0, 3.0), height=(2.2, 2.5), wall_distance=0.3)
SIMULATED = Rooms("simulated", simulated=TINY, tail_seconds=0.1)
EVERYTHING = replace(
    MIX,
    mixtures_per_utterance=SplitCounts(train=2),
    levels=Levels("active"),
    rooms=replace(SIMULATED, share=0.7),
    augmentation=Augmentation(level_db=(-6.0, 3.0), band_share=0.5, codec_share=0.5),
)


@pytest.fixture
def own(tmp_path):
    return build(tmp_path)


def talk(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise-like syllables with long pauses."""
    time = np.arange(int(seconds * rate)) / rate
    spoken = (np.sin(2 * np.pi * 0.4 * time) > 0.2) * np.abs(np.sin(2 * np.pi * 4 * time))
    return (0.2 * spoken * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


def write_rirs(source, rooms=6) -> None:
    for k in range(rooms):
        rng = np.random.default_rng(k)
        time = np.arange(4000) / RATE
        response = rng.standard_normal(4000) * 10.0 ** (-3.0 * time / 0.15)
        response[30] = 8.0
        audio.write(source / f"rir/room{k}/a.wav", (response / 9.0).astype(np.float32), RATE, "FLOAT")


# ------------------------------------------------------------------------------------------ the defaults


def test_defaults_leave_every_byte_as_it_was(own, tmp_path):
    """Shards and manifest as of version 0.1, before there were rooms."""
    run(tmp_path)
    frame = table(tmp_path)
    assert list(frame.columns) == list(manifest.COLUMNS)
    sums = storage.sha256_file(paths.mixtures(tmp_path, "own") / "manifest.parquet")
    assert mixing.Task("a", "b", 0, RATE, 0.5, None).plain
    for row in frame.itertuples():
        source, _ = audio.read(own / row.clean_source)
        noise, _ = audio.read(own / row.noise_source, row.noise_offset, row.n_samples)
        power = [np.mean(np.square(x, dtype=np.float64)) for x in (source[0], noise[0])]
        gain = np.float32(math.sqrt(power[0] / power[1] / 10.0 ** (row.snr_db / 10.0)))
        pair = np.stack([source[0], source[0] + noise[0] * gain]) * np.float32(row.gain)
        stored, _ = shards.quantise(pair)
        assert shards.item_sha256(stored) == row.sha256
    run(tmp_path, replace(MIX, processes=2))
    assert storage.sha256_file(paths.mixtures(tmp_path, "own") / "manifest.parquet") == sums


# ---------------------------------------------------------------------------------- the same bytes always


def test_everything_at_once_gives_the_same_bytes_in_any_process_and_order(own, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "MAX_BYTES", 300_000)
    seen = []
    make_shard = mixing.make_shard
    monkeypatch.setattr(mixing, "make_shard", lambda batch: seen.append(batch) or make_shard(batch))
    run(tmp_path, EVERYTHING)
    one = contents(tmp_path)
    sums = table(tmp_path).set_index("id")["sha256"].to_dict()
    tasks = [task for batch in seen for task in batch.tasks]
    random.Random(4).shuffle(tasks)
    assert {task.id: mixing.make(task).facts["sha256"] for task in tasks[:8]}.items() <= sums.items()
    monkeypatch.setattr(mixing, "make_shard", make_shard)
    run(tmp_path, replace(EVERYTHING, processes=2))
    assert contents(tmp_path) == one
    frame = table(tmp_path)
    assert {"f", "m"} & set(frame["gender"]) == set()
    assert 0 < (frame["room"] != "").mean() < 1
    assert frame.loc[frame["room"] == "", "t60"].isna().all()
    assert frame.loc[frame["room"] != "", "t60"].between(0.03, 0.5).all()
    assert (frame["snr_mixed_db"] - frame["snr_db"]).abs().max() < 0.05
    assert (frame["snr_kind"] == "active").all()
    assert (frame.loc[frame["split"] != "train", "level_db"] == 0).all()
    assert frame.loc[frame["split"] == "train", "level_db"].between(-6, 3).all()
    assert frame.loc[frame["split"] == "train", "done"].str.contains("limited to|through").any()
    assert (frame.loc[frame["split"] != "train", "done"] == "").all()


# ------------------------------------------------------------------------------------------------- rooms


def test_speech_in_simulated_rooms(own, tmp_path):
    run(tmp_path, replace(MIX, rooms=SIMULATED))
    frame = table(tmp_path)
    assert frame["room"].str.startswith("sim-").all()
    assert frame["room"].is_unique
    assert (frame["target"] == "anechoic").all()
    for row in frame.itertuples():
        clean, _ = shards.read_pair(paths.mixtures(tmp_path, "own"), row)
        dry = audio.read(own / row.clean_source)[0][0]
        assert row.n_samples == len(dry) + 1600
        assert np.argmax(np.correlate(clean, dry, "valid")) == pytest.approx(0, abs=1)
        assert np.corrcoef(clean[: len(dry)], dry)[0, 1] > 0.6  # late by up to half a sample


def test_rooms_alone_and_measured_responses(own, tmp_path):
    write_rirs(own)
    settings_ = replace(MIX, noise="", rooms=Rooms("measured", target="early", early_ms=10.0, level="loudness"))
    run(tmp_path, settings_)
    frame = table(tmp_path)
    assert frame["room"].str.fullmatch(r"room\d").all()
    assert (frame.groupby("room")["split"].nunique() == 1).all()
    assert frame["snr_db"].isna().all()
    assert (frame["noise_source"] == "").all()
    assert frame["t60"].between(0.1, 0.2).all()
    for row in frame.itertuples():
        clean, noisy = (x / row.gain for x in shards.read_pair(paths.mixtures(tmp_path, "own"), row))
        meter, dry = pyloudnorm.Meter(RATE), audio.read(own / row.clean_source)[0][0].astype(np.float64)
        wanted = meter.integrated_loudness(dry)
        assert meter.integrated_loudness(noisy.astype(np.float64)) == pytest.approx(wanted, abs=0.05)
        assert not np.array_equal(clean, noisy)


def test_peak_of_speech_in_a_room(own, tmp_path):
    run(tmp_path, replace(MIX, noise="", rooms=replace(SIMULATED, level="peak")))
    assert np.allclose(table(tmp_path)["peak"], 0.9, atol=1e-5)


def test_measured_responses_that_do_not_fit_are_listed(own, tmp_path):
    write_rirs(own)
    long = np.random.default_rng(0).standard_normal(40000) * 10.0 ** (-3.0 * np.arange(40000) / RATE / 2.0)
    audio.write(own / "rir/hall/a.wav", (long / 9).astype(np.float32), RATE, "FLOAT")
    (own / "rir/room0/broken.wav").write_bytes(b"RIFF")
    run(tmp_path, replace(MIX, max_rejected=0.2, rooms=Rooms("measured", max_t60=1.0)))
    listed = rejected(paths.mixtures(tmp_path, "own") / "rejected.csv")
    assert listed.keys() == {"rir/hall/a.wav", "rir/room0/broken.wav"}
    assert "decays too slowly (T60 " in listed["rir/hall/a.wav"]
    assert "hall" not in set(table(tmp_path)["room"])


def test_too_few_rooms(own, tmp_path):
    write_rirs(own, rooms=2)
    fails(tmp_path, replace(MIX, rooms=Rooms("measured")), "2 rooms, too few for 3 splits", "rooms.lists")


def test_a_room_without_noise_lists_no_pairs(tmp_path):
    """Settings that do not fit are refused when they are read."""
    wrong = {
        "ready pairs": replace(MIX, layout="pairs", rooms=SIMULATED),
        "nothing disturbs": replace(MIX, noise=""),
        "speech outside a room is clean": replace(MIX, noise="", rooms=replace(SIMULATED, share=0.5)),
        "lower value first": replace(MIX, rooms=replace(SIMULATED, simulated=replace(TINY, t60=(1.0, 0.5)))),
        "level_db is": replace(MIX, augmentation=Augmentation(level_db=(3.0, 0.0))),
        "codecs: name one": replace(MIX, augmentation=Augmentation(codec_share=0.5, codecs=())),
    }
    for words, corpus in wrong.items():
        with pytest.raises(DiffseError, match=words):
            settings.settings_checks.check(params(corpus), "params.yaml")
    settings.settings_checks.check(params(EVERYTHING), "params.yaml")


# ------------------------------------------------------------------------------------------------ levels


def test_active_level_is_that_of_the_active_part():
    """Half of it silence: 3 dB more than the RMS; all of it noise: the RMS."""
    steady = sound(3, seconds=4.0)
    assert levels.active_level_db(steady, RATE) == pytest.approx(audio.rms_dbfs(steady), abs=0.1)
    half = np.concatenate([steady, np.zeros_like(steady)])
    assert levels.active_level_db(half, RATE) == pytest.approx(audio.rms_dbfs(steady), abs=0.3)
    assert levels.active_level_db(np.zeros(100, np.float32), RATE) == -math.inf


def test_active_level_follows_a_gain_exactly():
    wave = talk(5.0)
    base = levels.active_level_db(wave, RATE)
    for gain in (0.013, 0.5, 3.3):
        moved = levels.active_level_db((wave * np.float32(gain)).astype(np.float32), RATE)
        assert moved == pytest.approx(base + 20 * math.log10(gain), abs=1e-3)


def test_active_level_of_real_speech(corpus):
    """Speech that is spoken for most of the time lies a little above its RMS; pauses change it little."""
    file = sorted((corpus / "speech").glob("ls*/*.flac"))[0]
    wave, rate = audio.read(file)
    level = levels.active_level_db(wave[0], rate)
    assert 0.0 < level - audio.rms_dbfs(wave) < 3.0
    padded = np.pad(wave[0], 5 * rate)
    assert levels.active_level_db(padded, rate) == pytest.approx(level, abs=0.3)


@pytest.mark.parametrize("kind", ["power", "active", "loudness"])
@pytest.mark.parametrize("wanted", [-5.0, 0.0, 17.5])
def test_every_kind_of_snr_is_what_was_asked_for(kind, wanted):
    speech, noise = talk(3.0), sound(5, seconds=3.0)
    gain = levels.noise_gain(kind, speech, noise, wanted, RATE)
    assert levels.snr_db(kind, speech, noise * gain, RATE) == pytest.approx(wanted, abs=0.01)
    if kind == "loudness":
        meter = pyloudnorm.Meter(RATE)
        apart = meter.integrated_loudness(speech.astype(float)) - meter.integrated_loudness(noise * float(gain))
        assert apart == pytest.approx(wanted, abs=0.01)


def test_speech_without_a_loudness_is_listed(own, tmp_path):
    audio.write(own / "clean/s0/short.wav", sound(5, seconds=0.3), RATE)
    run(tmp_path, replace(MIX, min_seconds=0.1, max_rejected=0.1, levels=Levels("loudness")))
    listed = rejected(paths.mixtures(tmp_path, "own") / "rejected.csv")
    assert listed == {"clean/s0/short.wav": "shorter than 0.4 s, which loudness needs"}


def test_snr_is_raised_where_a_mixture_would_clip(own, tmp_path):
    for path in own.glob("clean/*/*"):
        audio.write(path, 2.0 * sound(1, 0.8), RATE, None)
    quiet = settings.SnrRanges((-20.0, -15.0), (-20.0, -15.0), (-20.0, -15.0))
    run(tmp_path, replace(MIX, snr_db=quiet, levels=Levels(peak="raise_snr")))
    frame = table(tmp_path)
    assert (frame["snr_db"] > -15.0).all()
    assert frame["done"].str.match(r"SNR raised from -1\d\.\d\d dB against clipping").all()
    assert (frame["gain"] > 0.98).all()  # what is left is between 0.99 and 1
    assert (frame["snr_measured_db"] - frame["snr_db"]).abs().max() < 0.01


# ------------------------------------------------------------------------------------------ augmentation


def test_augmentation_draws_from_the_seed_and_for_its_splits():
    changes = Augmentation(level_db=(-3.0, 3.0), band_share=0.3, codec_share=0.4)
    drawn = [augmentation.draw(changes, "train", seed) for seed in range(600)]
    assert drawn == [augmentation.draw(changes, "train", seed) for seed in range(600)]
    assert np.mean([bool(item.band_hz) for item in drawn]) == pytest.approx(0.3, abs=0.07)
    assert np.mean([bool(item.codec) for item in drawn]) == pytest.approx(0.4, abs=0.07)
    assert {item.codec for item in drawn} == {"", *changes.codecs}
    assert all(-3.0 <= item.gain_db <= 3.0 for item in drawn)
    assert {augmentation.draw(changes, split, 3) for split in ("valid", "test")} == {Drawn()}
    assert {augmentation.draw(Augmentation(), "train", seed) for seed in range(50)} == {Drawn()}


def test_band_limits_take_away_what_is_above():
    wave = sound(3, seconds=2.0)
    narrow = augmentation.band_limited(wave, RATE, 3000.0)
    spectrum = np.abs(np.fft.rfft(narrow)) ** 2
    cut = int(3000 / RATE * len(narrow))
    assert spectrum[: int(0.95 * cut)].mean() > 1e6 * spectrum[int(1.05 * cut) :].mean()
    low = np.fft.irfft(np.where(np.arange(len(spectrum)) < 0.9 * cut, np.fft.rfft(wave), 0))
    assert np.argmax(np.correlate(narrow, low[1000:-1000], "valid")) == 1000  # no delay
    assert augmentation.band_limited(wave, RATE, 8000.0) is wave


@pytest.mark.parametrize("rate", [16000, 48000])
@pytest.mark.parametrize("codec", ["mp3", "vorbis", "opus", "mulaw", "alaw", "gsm", "adpcm"])
def test_codecs_are_heard_and_do_not_move_the_signal(codec, rate):
    wave = np.convolve(sound(3, 1.0, rate), np.hanning(15), "same").astype(np.float32)
    answer = augmentation.coded(wave, rate, codec, 0.5)
    assert answer.shape == wave.shape
    assert answer.dtype == np.float32
    assert 0.002 < np.std(answer - wave) / np.std(wave) < 0.6
    inner = slice(rate // 10, -rate // 10)
    lags = np.correlate(answer[rate // 10 - 50 : 50 - rate // 10], wave[inner], "valid")
    assert np.argmax(lags) == 50
    assert answer.tobytes() == augmentation.coded(wave, rate, codec, 0.5).tobytes()


def test_the_delay_of_a_codec_is_cut_off(monkeypatch):
    """One that is late by 321 samples comes out in time."""
    monkeypatch.setattr(augmentation, "_through", lambda wave, *_: np.pad(wave, (321, 0)))
    augmentation.delay.cache_clear()
    wave = sound(3, 0.5)
    assert augmentation.delay(RATE, "mp3") == 321
    assert np.array_equal(augmentation.coded(wave, RATE, "mp3", 0.5), wave)
    augmentation.delay.cache_clear()


def test_a_codec_that_is_not_there(monkeypatch):
    monkeypatch.setitem(augmentation._CODECS, "gsm", ("WAV", "NOT_A_CODEC", False, ()))
    with pytest.raises(DiffseError, match="codec 'gsm' does not work here"):
        augmentation.coded(sound(3, 0.5), RATE, "gsm", 0.5)


# ----------------------------------------------------------------------------------------------- speakers


def test_gender_comes_from_a_table(own, tmp_path):
    (own / "people.tsv").write_text("s0\tF\ns1\tm\n")
    run(tmp_path, replace(MIX, speakers="people.tsv"))
    genders = dict(table(tmp_path)[["speaker", "gender"]].values)
    assert genders == {"s0": "f", "s1": "m", "s2": "", "s3": "", "s4": ""}
    (own / "people.tsv").write_text("s0\n")
    fails(
        tmp_path, replace(MIX, speakers="people.tsv"), "people.tsv, line 1: write a speaker, a tab, and f or m"
    )
