"""DNSMOS over overlapping windows: shared work changes no score, and networks are cut where asked."""

import numpy as np
import pytest
import soundfile

from diffse.metrics import non_intrusive, onnx_parts, p835
from diffse.metrics.mel import mel_filters

RATE, WINDOW = 16000, 144160
MODEL = non_intrusive._folder() / "sig_bak_ovr.onnx"


@pytest.fixture(scope="module")
def speech(corpus) -> np.ndarray:
    """Noisy speech without a pause between its recordings, float32 [samples]."""
    paths = sorted((corpus / "pairs/noisy").iterdir())[:3]
    return np.concatenate([soundfile.read(path, dtype="float32")[0] for path in paths])


def test_windows_score_as_the_whole_network_scores_them(speech):
    whole = p835.session(str(MODEL))
    windows = [speech[start : start + WINDOW] for start in (0, RATE, 2 * RATE)]
    expected = np.concatenate([whole.run(None, {"input_1": window[None]})[0] for window in windows])
    assert np.ptp(expected, axis=0).min() > 0.01  # they do differ
    assert p835.raw_scores(windows, MODEL) == pytest.approx(expected, abs=1e-5)
    assert p835.raw_scores(windows[:1], MODEL) == pytest.approx(expected[:1], abs=1e-5)


def test_a_repeated_signal_scores_as_all_its_windows(speech):
    """4 s are doubled to 16 s, 7 windows; the same 16 s as a signal of its own are not taken for repeated."""
    wave = speech[: 4 * RATE]
    repeated = np.tile(wave, 4)
    expected = non_intrusive.dnsmos(repeated, repeated, repeated, RATE)
    assert non_intrusive.dnsmos(wave, wave, wave, RATE) == pytest.approx(expected, abs=1e-5)


def test_mel_features_are_those_of_the_fast_transform(speech):
    wave = speech[:RATE]
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave.astype(float), 160), 321)[::160]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(321) / 321)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2 @ mel_filters(RATE, 321, 120, RATE / 2).T
    decibels = 10 * np.log10(power / power.max())
    assert non_intrusive.mel_features(wave) == pytest.approx((np.maximum(decibels, -80) + 40) / 40, abs=1e-4)


def test_a_part_that_is_not_there_is_refused():
    model = MODEL.read_bytes()
    for start, end in (("nothing", "Identity:0"), ("input_1", "nothing"), ("Identity:0", "input_1")):
        with pytest.raises(ValueError, match=f"the network has no part from {start} to {end}"):
            onnx_parts.between(model, start, end)
    with pytest.raises(ValueError, match="not a protocol buffer"):
        onnx_parts.between(b"\x0f" + model, "input_1", "Identity:0")
