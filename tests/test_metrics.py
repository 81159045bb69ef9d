"""Metrics: exact where mathematics gives the answer, known numbers elsewhere, and gaps instead of lies."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from diffse import audio
from diffse.errors import DiffseError
from diffse.metrics import intelligibility, intrusive, non_intrusive, statistics, table
from diffse.metrics.checks import Missing
from diffse.metrics.score import score_pair

RATE = 16000
ALL = tuple(name for name, metric in table.METRICS.items() if not metric.takes)  # need signals alone


@pytest.fixture(scope="module")
def pair(corpus) -> tuple[np.ndarray, np.ndarray]:
    """(clean, noisy) of a real recording: 5.1 s at 16 kHz."""
    return tuple(
        soundfile.read(corpus / f"pairs/{side}/p232_006.flac", dtype="float32")[0]
        for side in ("clean", "noisy")
    )


# ---------------------------------------------------------------------------------- scale-invariant ratios


@pytest.fixture(scope="module")
def orthogonal() -> np.ndarray:
    """Three signals of unit energy, orthogonal to each other: [3, samples]."""
    return np.linalg.qr(np.random.default_rng(0).standard_normal((4000, 3)))[0].T


@pytest.mark.parametrize("gains", [(1.0, 0.1, 0.01), (0.5, 2.0, 0.3), (-3.0, 1e-3, 1e-4)])
def test_ratios_of_orthogonal_parts_are_those_of_their_gains(orthogonal, gains):
    s, n, artefact = orthogonal
    of_s, of_n, of_artefact = gains
    clean, noisy, enhanced = 0.7 * s, 0.7 * s + 0.2 * n, of_s * s + of_n * n + of_artefact * artefact
    expected = {
        "si_sdr": of_s**2 / (of_n**2 + of_artefact**2),
        "si_sir": of_s**2 / of_n**2,
        "si_sar": of_s**2 / of_artefact**2,
    }
    found = score_pair(clean, noisy, enhanced, RATE, tuple(expected))
    for name, ratio in expected.items():
        assert found[name] == pytest.approx(10 * np.log10(ratio), abs=1e-8)


def test_ratios_ignore_the_scale_and_count_an_offset_as_distortion(orthogonal):
    s, n, _ = orthogonal
    clean = s - s.mean()
    scaled, plain = (intrusive.si_sdr(clean, gain * (s + n), clean, RATE) for gain in (7.0, 1.0))
    assert scaled == pytest.approx(plain, abs=1e-9)
    # without its mean the estimate would be the clean signal itself
    expected = 10 * np.log10(clean @ clean / (len(s) * 0.01**2))
    assert intrusive.si_sdr(clean, clean + 0.01, clean, RATE) == pytest.approx(expected, abs=1e-9)


def test_parts_that_overlap_follow_the_formulas():
    """Against the formulas written out, on signals that are not orthogonal."""
    rng = np.random.default_rng(1)
    s, n, artefact = rng.standard_normal((3, 5000)) + 0.3
    y, s_hat = s + n, s + 0.3 * n + 0.2 * artefact
    target = (s_hat @ s) / (s @ s) * s
    e_noise = (s_hat @ n) / (n @ n) * n
    e_artefact = s_hat - target - e_noise
    found = score_pair(s, y, s_hat, RATE, ("si_sdr", "si_sir", "si_sar"))
    for name, rest in (("si_sdr", e_noise + e_artefact), ("si_sir", e_noise), ("si_sar", e_artefact)):
        assert found[name] == pytest.approx(10 * np.log10(np.sum(target**2) / np.sum(rest**2)), abs=1e-9)


# ------------------------------------------------------------------------------------- values from outside


# Means of `speechmos.dnsmos.run` (speechmos 0.0.1.1 with librosa 0.11): SIG, BAK, OVRL, P.808.
DNSMOS = {
    "p232_003": (3.5336549532776624, 3.7361402645588235, 3.084947223024616, 3.7604222297668457),
    "p232_006": (3.664800313082843, 3.2924310871451663, 2.967741273120747, 3.7214558124542236),
}


@pytest.mark.parametrize("name", DNSMOS)
def test_dnsmos_equals_the_reference_implementation(corpus, name):
    wave, _ = soundfile.read(corpus / f"pairs/noisy/{name}.flac", dtype="float32")
    assert non_intrusive.dnsmos(wave, wave, wave, RATE) == pytest.approx(DNSMOS[name], abs=1e-4)


def test_dnsmos_of_a_louder_signal_is_that_of_full_scale(pair):
    _, noisy = pair
    full = noisy / np.abs(noisy).max()
    assert non_intrusive.dnsmos(full, 3 * full, full, RATE) == pytest.approx(
        non_intrusive.dnsmos(full, full, full, RATE), abs=1e-4
    )


@pytest.mark.parametrize(("name", "tolerance"), [("pesq", 0.02), ("estoi", 0.005)])
def test_other_rates_are_resampled(pair, name, tolerance):
    clean, noisy = pair
    clean48, noisy48 = audio.resample(np.stack(pair), RATE, 48000)
    compute = table.METRICS[name].compute
    wide = compute(clean48, noisy48, noisy48, 48000)
    assert wide == pytest.approx(compute(clean, noisy, noisy, RATE), abs=tolerance)


# -------------------------------------------------------------------------------- what cannot be computed


def altered(wave: np.ndarray, value: float) -> np.ndarray:
    changed = wave.copy()
    changed[100] = value
    return changed


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (lambda clean, noisy: (clean, noisy, noisy * 0), "enhanced signal is silent"),
        (lambda clean, noisy: (clean, noisy, altered(noisy, np.nan)), "enhanced signal has NaN"),
        (lambda clean, noisy: (clean, noisy, altered(noisy, -np.inf)), "enhanced signal has NaN"),
        (lambda clean, noisy: (clean[:0], noisy[:0], noisy[:0]), "signal is empty"),
        (lambda clean, noisy: (clean * 0, noisy, noisy), "clean signal is silent"),
    ],
)
def test_silence_and_damage_are_missing_with_their_reason(pair, metric, case, reason):
    found = score_pair(*case(*pair), RATE, (metric,))
    for column in table.columns((metric,)):
        if metric == "dnsmos" and reason.startswith("clean"):  # it needs no clean signal
            assert 1 <= found[column.name] <= 5
            continue
        assert np.isnan(found[column.name])
        assert reason in found[f"{column.name}_reason"]


@pytest.mark.parametrize(
    ("metric", "samples", "reason"),
    [
        ("pesq", 3999, "shorter than 0.25 s"),
        ("estoi", 6500, "shorter than 0.41 s"),
        ("dnsmos", 15999, "shorter than 1 s"),
    ],
)
def test_short_signals_are_missing(pair, metric, samples, reason):
    clean, noisy = (wave[20000 : 20000 + samples] for wave in pair)
    found = score_pair(clean, noisy, noisy, RATE, (metric,))
    name = table.columns((metric,))[0].name
    assert np.isnan(found[name])
    assert found[f"{name}_reason"] == reason


def numbers(row: dict) -> dict[str, float]:
    return {name: value for name, value in row.items() if not name.endswith("_reason")}


def test_one_sample_breaks_nothing():
    one = np.array([0.5], np.float32)
    found = score_pair(one, one * 2, one, RATE, ALL)
    assert all(np.isnan(value) == bool(found[f"{name}_reason"]) for name, value in numbers(found).items())


def test_too_few_frames_with_speech_are_missing(pair):
    """pystoi itself returns 1e-5, which looks like a score."""
    clean, noisy = (wave.copy() for wave in pair)
    clean[4000:] = 0
    with pytest.raises(Missing, match="too few frames with speech"):
        intelligibility.estoi(clean, noisy, noisy, RATE)


def test_pesq_without_utterances_is_missing(pair):
    _, noisy = pair
    clean = np.zeros_like(noisy)
    clean[30000:31000] = 0.1 * np.random.default_rng(0).standard_normal(1000)  # too short for an utterance
    with pytest.raises(Missing, match="PESQ: No utterances detected"):
        intrusive.pesq(clean, noisy, noisy, RATE)


def test_pesq_of_more_utterances_than_it_holds_is_missing(pair):
    """The ITU code has 50 places and writes past them: wrong numbers, or the end of the process."""
    clean, noisy = (np.tile(np.pad(wave[16000:32000], (0, 8000)), 60) for wave in pair)
    with pytest.raises(Missing, match="more than the 50 utterances"):
        intrusive.pesq(clean, noisy, noisy, RATE)


def test_pesq_of_half_a_minute_of_speech_is_computed(corpus):
    names = [
        line.split("\t") for line in (corpus / "splits/pairs_vbd_test_subset.txt").read_text().splitlines()
    ]
    sides = zip(*names[:5], strict=True)
    clean, noisy = (np.concatenate([soundfile.read(corpus / name)[0] for name in side]) for side in sides)
    assert len(clean) > 25 * RATE
    assert 1.5 < intrusive.pesq(clean, noisy, noisy, RATE) < 3.5


def test_infinite_ratios_are_missing(pair):
    clean, _ = pair
    found = score_pair(clean, clean, clean, RATE, ("si_sdr", "si_sir", "si_sar"))
    assert "infinite" in found["si_sdr_reason"]
    assert found["si_sir_reason"] == found["si_sar_reason"] == "noisy signal equals the clean one"
    quarter = np.arange(RATE) * np.pi / 2
    found = score_pair(np.sin(quarter), np.sin(quarter) + np.cos(quarter), np.cos(quarter), RATE, ("si_sdr",))
    assert "minus infinity" in found["si_sdr_reason"]


def test_signals_of_different_lengths_are_a_mistake_of_the_caller(pair):
    clean, noisy = pair
    with pytest.raises(ValueError, match="differ in shape"):
        score_pair(clean, noisy, noisy[:-1], RATE, ("si_sdr",))


def test_an_unknown_metric_is_named():
    with pytest.raises(DiffseError, match=r"'pesk' is not a metric \(allowed: pesq, pesq_nb, estoi"):
        table.find("pesk")


def test_scoring_imports_little():
    code = (
        "import sys; from diffse.metrics import score, table; heavy = {'onnxruntime', 'pandas', 'pesq', "
        "'pystoi', 'torch', 'scipy', 'tqdm'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_every_column_is_described():
    columns = table.columns(tuple(table.METRICS))
    assert len({column.name for column in columns}) == len(columns) == 27
    for column in columns:
        assert column.low < column.high
        assert column.version.split()[0] == column.package
        assert column.version.split()[1][0].isdigit()
    assert [column.name for column in columns if not column.higher_is_better] == ["lsd", "wer"]


# ---------------------------------------------------------------------------------------------- statistics


def test_interval_of_many_values_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(5, 2, 2000)
    low, high = statistics.interval(values, 0.95, 4000, seed=0)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(400):
        low, high = statistics.interval(rng.exponential(1.0, 60), 0.9, 500, seed=trial)
        covered += low <= 1.0 <= high
    assert 0.84 < covered / 400 < 0.94


def test_summary_counts_only_what_is_there():
    found = statistics.summarise(np.array([1.0, np.nan, 3.0, np.inf]), 0.95, 100, 0)
    assert (found["mean"], found["std"], found["n"]) == (2.0, 1.0, 2)
    assert 1 <= found["low"] <= 2 <= found["high"] <= 3
    one = statistics.summarise(np.array([4.0]), 0.95, 100, 0)
    assert one == {"mean": 4.0, "std": 0.0, "low": None, "high": None, "n": 1}
    none = statistics.summarise(np.array([np.nan]), 0.95, 100, 0)
    assert none == {"mean": None, "std": None, "low": None, "high": None, "n": 0}


def test_bootstrap_in_pieces_is_the_bootstrap(monkeypatch):
    values = np.random.default_rng(0).normal(0, 1, 50)
    whole = statistics.interval(values, 0.95, 1000, seed=7)
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 500)
    assert statistics.interval(values, 0.95, 1000, seed=7) == whole
