"""The built-in corpus: voices, noises, texts, and the same bytes every time."""

import importlib.util
import itertools
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffse import audio, paths, storage
from diffse.data import manifest, prepare
from diffse.data.corpora import demo, demo_noises, espeak
from diffse.data.parallel import Workers
from diffse.errors import DiffseError
from diffse.settings import DemoCorpus, Params

TEXTS = Path(__file__).resolve().parents[1] / "sources" / "demo"
SMALL = DemoCorpus(seed=20, utterances_per_voice=2, noise_seconds=4.0, processes=2)
KINDS = {"babble", "clicks", "coloured", "hum", "modulated", "traffic"}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="the extra 'demo' is not installed"
)


def find(settings: DemoCorpus, folder: Path):
    with Workers(settings.processes) as workers:
        return demo.find(settings, TEXTS, folder, workers)


def sums(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): storage.sha256_file(path) for path in folder.rglob("*.wav")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, recordings) of a small demo corpus."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, find(SMALL, folder)


@pytest.fixture(scope="module")
def long_readings():
    """Every voice reading the same long text: what differs is the voice."""
    text = "The gardener dug a shallow trench, and then we watched the clouds gather above the valley."
    waves = {}
    for voice in demo.VOICES:
        (wave,), rate = espeak.speak(
            voice.espeak, [espeak.Line(text, 1, voice.pitch, voice.range, voice.speed)]
        )
        waves[voice.name] = audio.resample(wave, rate, 16000)
    return waves


def test_voices_and_splits(made):
    _, found = made
    assert len(demo.VOICES) >= 12
    assert len({voice.name for voice in demo.VOICES}) == len(demo.VOICES)
    assert len({voice.espeak for voice in demo.VOICES}) == len(demo.VOICES)
    per_split = defaultdict(set)
    for item in found.speech:
        per_split[item.split].add(item.speaker)
        assert item.gender in ("f", "m")
    assert {split: len(voices) for split, voices in per_split.items()} == {"train": 10, "valid": 2, "test": 3}
    for voices in per_split.values():
        genders = {voice.gender for voice in demo.VOICES if voice.name in voices}
        assert genders == {"f", "m"}


def test_babble_voices_speak_nowhere_else():
    babble = [voice for voices in demo.BABBLE.values() for voice in voices]
    assert len(set(babble)) == len(babble)
    variants = {voice.espeak.partition("+")[2] for voice in demo.VOICES}
    assert not variants & {voice.partition("+")[2] for voice in babble}


def test_six_kinds_of_noise_each_recorded_anew_for_each_split(made):
    _, found = made
    kinds = defaultdict(set)
    for noise in found.noise:
        kinds[noise.split].add(noise.kind)
        scan = audio.scan(noise.path)
        assert scan.samples == 4 * 16000
        assert -35.0 < scan.level_dbfs < -20.0
    assert dict(kinds) == {split: KINDS for split in manifest.SPLITS}
    assert len({storage.sha256_file(noise.path) for noise in found.noise}) == 18


def test_utterances_are_short_sentences_at_a_speaking_level(made):
    _, found = made
    for item in found.speech:
        scan = audio.scan(item.path)
        assert 1.2 < scan.samples / scan.rate < 5.0, item.source
        assert -32.0 < scan.level_dbfs < -17.0, item.source
        wave, _ = audio.read(item.path)
        assert np.max(np.abs(wave)) < 0.96
        edges = max(np.max(np.abs(wave[0, :400])), np.max(np.abs(wave[0, -400:])))
        assert edges < 0.05 * np.max(np.abs(wave)), "it must not begin or end within a word"


def test_same_bytes_from_the_same_seed_for_any_number_of_processes(made, tmp_path):
    """espeak-ng keeps state between utterances; a process of its own for each voice hides that."""
    folder, _ = made
    find(replace(SMALL, processes=1), tmp_path)
    assert sums(tmp_path) == sums(folder)
    assert len(sums(folder)) == 2 * 15 + 18 + 3 * 4 * 2


def test_another_seed_gives_other_recordings(made, tmp_path):
    folder, _ = made
    find(replace(SMALL, seed=21), tmp_path)
    ours, theirs = sums(folder), sums(tmp_path)
    assert ours.keys() == theirs.keys()
    assert all(ours[name] != theirs[name] for name in ours)


def test_more_utterances_leave_the_first_ones_as_they_are(made, tmp_path):
    folder, _ = made
    find(replace(SMALL, utterances_per_voice=3, noise_seconds=2.0), tmp_path)
    ours, theirs = sums(folder / "speech"), sums(tmp_path / "speech")
    assert len(theirs) == 45
    assert sum(ours[name] == theirs[name] for name in ours) == len(ours)


def fundamental(wave: np.ndarray, rate: int = 16000) -> float:
    """Median fundamental frequency in Hz, by autocorrelation of voiced frames."""
    found = []
    for start in range(0, len(wave) - 800, 320):
        frame = wave[start : start + 800] - np.mean(wave[start : start + 800])
        if np.sqrt(np.mean(frame**2)) < 0.02:
            continue
        correlation = np.correlate(frame, frame, "full")[799:]
        lag = rate // 400 + int(np.argmax(correlation[rate // 400 : rate // 60]))
        if correlation[lag] > 0.5 * correlation[0]:
            found.append(rate / lag)
    return float(np.median(found))


def spectrum(wave: np.ndarray) -> np.ndarray:
    """Long-term level in 24 bands from 100 Hz to 7 kHz, in dB about its mean."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    frequency = np.fft.rfftfreq(len(wave), 1.0 / 16000.0)
    edges = np.geomspace(100.0, 7000.0, 25)
    bands = [power[(frequency >= a) & (frequency < b)].sum() for a, b in itertools.pairwise(edges)]
    level = 10.0 * np.log10(np.array(bands))
    return level - level.mean()


def test_voices_are_clearly_different(long_readings):
    """Any two differ by a semitone in pitch or by 3 dB RMS in their long-term spectrum."""
    traits = {name: (fundamental(wave), spectrum(wave)) for name, wave in long_readings.items()}
    women = [traits[voice.name][0] for voice in demo.VOICES if voice.gender == "f"]
    men = [traits[voice.name][0] for voice in demo.VOICES if voice.gender == "m"]
    assert min(women) > 140.0 > max(men), (women, men)
    for first, second in itertools.combinations(sorted(traits), 2):
        (f_a, s_a), (f_b, s_b) = traits[first], traits[second]
        pitch = 12.0 * abs(np.log2(f_a / f_b))
        colour = float(np.sqrt(np.mean((s_a - s_b) ** 2)))
        assert pitch > 1.0 or colour > 3.0, (first, second, pitch, colour)


def test_no_sentence_is_in_two_splits():
    texts = demo._texts(SMALL, TEXTS / demo.SENTENCES)
    flat = [text for split in manifest.SPLITS for text in texts[split]]
    assert len(set(flat)) == len(flat) >= 90
    assert all(5 <= len(text.split()) <= 12 for text in flat)
    assert all(len(texts[split]) >= DemoCorpus().utterances_per_voice for split in manifest.SPLITS)


@pytest.mark.parametrize("kind", sorted(demo_noises.MAKERS))
@pytest.mark.parametrize(("seconds", "rate"), [(0.3, 16000), (2.0, 48000)])
def test_noise_makers_at_any_length_and_rate(kind, seconds, rate):
    n = int(seconds * rate)
    first, second = (demo_noises.MAKERS[kind](np.random.default_rng(seed), n, rate) for seed in (1, 2))
    assert first.shape == (n,)
    assert np.all(np.isfinite(first))
    assert np.std(first) > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.9


def centroid(wave: np.ndarray, rate: int = 16000) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float(np.sum(power * np.fft.rfftfreq(len(wave), 1.0 / rate)) / np.sum(power))


def crest_db(wave: np.ndarray) -> float:
    return 20.0 * float(np.log10(np.max(np.abs(wave)) / np.std(wave)))


def test_noises_are_what_their_names_say():
    made = {
        kind: maker(np.random.default_rng(3), 20 * 16000, 16000) for kind, maker in demo_noises.MAKERS.items()
    }
    assert crest_db(made["clicks"]) > 20.0, "impulses stand out"
    assert max(crest_db(made[kind]) for kind in ("coloured", "hum")) < 18.0
    assert centroid(made["traffic"]) < 500.0, "a low rumble"
    power = np.abs(np.fft.rfft(made["hum"])) ** 2
    frequency = np.fft.rfftfreq(len(made["hum"]), 1.0 / 16000.0)
    shares = [
        sum(power[np.abs(frequency - h * mains) < 2.0].sum() for h in range(1, 25)) for mains in (50.0, 60.0)
    ]
    assert max(shares) > 0.9 * power.sum(), "harmonics of the mains"
    frames = made["modulated"][: 200 * 1600].reshape(200, 1600).std(axis=1)
    assert np.percentile(frames, 95) > 2.5 * np.percentile(frames, 5), "its level pulsates"


# -------------------------------------------------------------------------------------- through prepare


def project(root: Path, settings: DemoCorpus) -> Params:
    (root / "sources").mkdir(exist_ok=True)
    if not (root / "sources/demo").exists():
        shutil.copytree(TEXTS, root / "sources/demo")
    return Params(("demo",), (), (), {"demo": settings}, {}, {})


def test_prepare_demo_twice(tmp_path):
    results = []
    for processes in (1, 2):
        counts = prepare.run(project(tmp_path, replace(SMALL, processes=processes)), "demo", tmp_path)
        folder = paths.mixtures(tmp_path, "demo")
        results.append({path.name: storage.sha256_file(path) for path in folder.iterdir()})
    assert results[0] == results[1]
    assert counts["utterances"] == {"train": 20, "valid": 4, "test": 6}
    assert counts["rejected"] == 0
    frame = manifest.read(folder)
    assert set(frame["gender"]) == {"f", "m"}
    assert set(frame["noise_kind"]) <= KINDS
    assert frame["clean_source"].str.startswith("speech/").all()
    assert (frame["snr_db"] - frame["snr_measured_db"]).abs().max() < 0.01
    assert sorted(path.name for path in (tmp_path / "data/demo").iterdir()) == [".lock", "mixtures"]


def fails(tmp_path: Path, settings: DemoCorpus, *words: str) -> None:
    with pytest.raises(DiffseError) as caught:
        prepare.run(project(tmp_path, settings), "demo", tmp_path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert not paths.mixtures(tmp_path, "demo").exists()


def test_missing_espeak_says_what_to_install(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "espeakng_loader" else real(name, *rest),
    )
    fails(tmp_path, SMALL, "pip install 'diffse[demo]'")


def test_bad_text_lists(tmp_path):
    fails(
        tmp_path, replace(SMALL, utterances_per_voice=50), "sentences.txt: gives", "utterances_per_voice (50)"
    )
    path = tmp_path / "sources/demo/sentences.txt"
    path.write_bytes(b"\xff\xfe")
    fails(tmp_path, SMALL, "sentences.txt: not UTF-8 text")
    path.unlink()
    fails(tmp_path, SMALL, "sentences.txt: no such file")


@pytest.mark.parametrize("processes", [1, 2])
def test_voice_that_espeak_does_not_have(tmp_path, monkeypatch, processes):
    with pytest.raises(DiffseError, match="the voice 'xx-none': espeak-ng has no voice"):
        espeak.speak("xx-none", [espeak.Line("Hello.", 1)])
    monkeypatch.setitem(demo.BABBLE, "test", ("xx-none",) * 4)
    fails(tmp_path, replace(SMALL, processes=processes), "espeak-ng has no voice 'xx-none'")


def test_crash_of_espeak_is_one_line(tmp_path, monkeypatch):
    program = tmp_path / "crash.py"
    program.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(espeak, "_PROGRAM", program)
    with pytest.raises(DiffseError, match=r"^speech synthesis failed for the voice 'en-us': it crashed"):
        espeak.speak("en-us", [espeak.Line("Hello.", 1)])
