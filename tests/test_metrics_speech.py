"""STOI, ESTOI, segmental SNR, LSD, composite measures and narrow-band PESQ, against independent formulas."""

import numpy as np
import pesq
import pystoi
import pytest
import soundfile

from benchmarks.reference import metrics as plain
from diffse import audio
from diffse.metrics import composite, frames, intelligibility, intrusive, segmental
from diffse.metrics.checks import Missing
from diffse.metrics.score import score_pair

RATE = 16000


@pytest.fixture(scope="module")
def pairs(corpus) -> list[tuple[np.ndarray, np.ndarray]]:
    """(clean, noisy) of two real recordings at 16 kHz."""
    return [
        tuple(soundfile.read(corpus / f"pairs/{side}/{name}.flac")[0] for side in ("clean", "noisy"))
        for name in ("p232_006", "p257_054")
    ]


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("rate", [8000, 10000, 11025, RATE, 44100, 48000, 16001])
def test_intelligibility_is_that_of_pystoi(pairs, rate, extended):
    clean, noisy = (audio.resample(wave, RATE, rate) for wave in pairs[0])
    compute = intelligibility.estoi if extended else intelligibility.stoi
    expected = pystoi.stoi(clean, noisy, rate, extended=extended)
    assert compute(clean, noisy, noisy, rate) == pytest.approx(expected, abs=1e-9)


def test_intelligibility_of_the_clean_signal_is_one(pairs):
    clean, _ = pairs[0]
    assert intelligibility.estoi(clean, 0.3 * clean, clean, RATE) == pytest.approx(1, abs=1e-9)
    assert intelligibility.stoi(clean, clean, clean, RATE) == pytest.approx(1, abs=1e-9)


def test_estoi_of_digital_silence_is_what_pystoi_scatters_around(pairs):
    """pystoi's own noise decides there; over many draws its mean is our value."""
    clean, noisy = pairs[0]
    enhanced = noisy.copy()
    enhanced[: len(enhanced) // 2] = 0
    found = intelligibility.estoi(clean, enhanced, noisy, RATE)
    state = np.random.get_state()
    draws = [pystoi.stoi(clean, enhanced, RATE, extended=True) for _ in range(12)]
    np.random.set_state(state)
    assert np.std(draws) > 1e-4
    assert found == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / np.sqrt(12))


def test_narrow_band_pesq_is_that_of_its_library(pairs):
    clean, noisy = pairs[0]
    found = intrusive.pesq_nb(clean, noisy, noisy, RATE)
    assert found == pytest.approx(pesq.pesq(RATE, clean, noisy, "nb"), abs=1e-6)
    assert found > intrusive.pesq(clean, noisy, noisy, RATE)


def test_segmental_measures_are_those_of_the_published_loops(pairs):
    for clean, noisy in pairs:
        assert segmental.seg_snr(clean, noisy, noisy, RATE) == pytest.approx(
            plain.segmental_snr(clean, noisy, RATE), abs=1e-9
        )
        np.testing.assert_allclose(segmental.llr(clean, noisy, RATE), plain.llr(clean, noisy, RATE), atol=1e-6)
        np.testing.assert_allclose(segmental.wss(clean, noisy, RATE), plain.wss(clean, noisy, RATE), atol=1e-8)


def test_composite_measures_are_those_of_the_published_loops(pairs):
    clean, noisy = pairs[0]
    row = score_pair(clean, noisy, noisy, RATE, ("composite",))
    found = [row[name] for name in ("csig", "cbak", "covl")]
    assert found == pytest.approx(plain.composite(clean, noisy, RATE), abs=1e-5)
    assert set(row) == {name + end for name in ("csig", "cbak", "covl") for end in ("", "_reason")}


def test_composite_of_the_clean_signal_is_the_best(pairs):
    clean, noisy = pairs[0]
    found = composite.composite(clean, clean, noisy, RATE, pesq=4.64)
    assert found == (5.0, 5.0, 5.0)


def test_composite_says_why_pesq_is_missing(pairs):
    _, noisy = pairs[0]
    clean = np.zeros_like(noisy)
    clean[30000:31000] = 0.1 * np.random.default_rng(0).standard_normal(1000)
    row = score_pair(clean, noisy, noisy, RATE, ("composite",))
    assert np.isnan(row["csig"])
    assert "No utterances detected" in row["covl_reason"]


def test_segmental_snr_of_scaled_noise_is_known():
    """Noise 20 dB below a signal in every frame; and the limits of -10 and 35 dB."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal(RATE)
    for gain, expected in ((0.1, 20.0), (1e-3, 35.0), (10.0, -10.0)):
        found = segmental.seg_snr(signal, signal * (1 + gain), signal, RATE)
        assert found == pytest.approx(expected, abs=1e-6)


def test_log_spectral_distance_of_a_gain_is_the_gain():
    signal = np.random.default_rng(0).standard_normal(RATE)
    assert segmental.lsd(signal, signal * 10 ** (-6 / 20), signal, RATE) == pytest.approx(6, abs=1e-6)
    assert segmental.lsd(signal, -signal, signal, RATE) == 0


def test_log_spectral_distance_follows_its_formula(pairs):
    clean, noisy = pairs[0]
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, 513) / 513))
    power = [
        np.array([np.abs(np.fft.rfft(x[k : k + 512] * window)) ** 2 for k in range(0, len(x) - 511, 128)])
        for x in (clean, noisy)
    ]
    s, s_hat = (10 * np.log10(np.maximum(part, power[0].max() * 1e-8)) for part in power)
    expected = np.mean(np.sqrt(np.mean((s - s_hat) ** 2, axis=1)))
    assert segmental.lsd(clean, noisy, noisy, RATE) == pytest.approx(expected, abs=1e-9)


def test_linear_prediction_finds_the_filter_that_made_the_signal():
    """An autoregressive process of order 2, and white noise, which cannot be predicted."""
    rng, a = np.random.default_rng(0), (1.0, -1.2, 0.8)
    x = np.zeros(20000)
    for k, e in enumerate(rng.standard_normal(len(x))):
        x[k] = e - a[1] * x[k - 1] - a[2] * x[k - 2] if k > 1 else e
    R = frames.autocorrelation(np.stack([x, rng.standard_normal(len(x))]), 4)
    A = frames.linear_prediction(R)
    np.testing.assert_allclose(A, [[*a, 0, 0], [1, 0, 0, 0, 0]], atol=0.03)
    assert frames.quadratic_form(A, R)[0] < R[0, 0]


@pytest.mark.parametrize("metric", ["seg_snr", "lsd", "composite", "stoi", "estoi", "pesq_nb"])
def test_signals_of_a_few_samples_are_missing(metric):
    short = np.random.default_rng(0).standard_normal(400)
    row = score_pair(short, short, short, RATE, (metric,))
    values = [value for name, value in row.items() if not name.endswith("_reason")]
    assert np.isnan(values).all()
    assert all(value for name, value in row.items() if name.endswith("_reason"))


def test_half_silent_estimates_have_composite_measures(pairs):
    """Frames of digital silence have no prediction; they must neither crash nor make the mean NaN."""
    clean, noisy = pairs[0]
    enhanced = noisy.copy()
    enhanced[: len(enhanced) // 2] = 0
    assert np.isfinite(composite.composite(clean, enhanced, noisy, RATE, pesq=2.0)).all()
    with pytest.raises(Missing, match="clean signal is silent"):
        composite.composite(0 * clean, enhanced, noisy, RATE, pesq=2.0)
