"""STFT and compression: golden numbers of the published code, exact inverses, safe gradients."""

import numpy as np
import pytest
import torch

from diffse.errors import DiffseError
from diffse.spectrogram import Spectrogram, pad_frames

SETTINGS = {
    "exp": Spectrogram(),
    "log": Spectrogram(transform="log"),
    "none": Spectrogram(transform="none"),
    "k48": Spectrogram(n_fft=1534, hop=384, exponent=0.667, factor=0.065),
    "sqrthann": Spectrogram(window="sqrthann"),
}


def relative(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("tag", SETTINGS)
def test_matches_the_published_transform(golden, tag):
    numbers = np.load(golden / "sgmse_stft.npz")
    spectrogram, wave = SETTINGS[tag], torch.from_numpy(numbers["wav"])
    X = spectrogram.stft(wave)
    assert relative(X, numbers[f"{tag}_stft"]) < 1e-5
    compressed = spectrogram.compress(X)
    assert relative(compressed, numbers[f"{tag}_fwd"]) < 1e-4
    assert relative(spectrogram.decompress(compressed), numbers[f"{tag}_back"]) < 1e-4
    assert relative(spectrogram.synthesise(compressed, wave.shape[-1]), numbers[f"{tag}_wav"]) < 1e-4


def test_matches_the_published_transform_of_storm(golden):
    numbers = np.load(golden / "storm_stft.npz")
    spectrogram, wave = Spectrogram(factor=0.33), torch.from_numpy(numbers["wav"])
    assert relative(spectrogram.stft(wave), numbers["stft"]) < 1e-5
    compressed = spectrogram.analyse(wave)
    assert relative(compressed, numbers["fwd"]) < 1e-4
    assert relative(spectrogram.decompress(compressed), numbers["back"]) < 1e-4
    assert relative(spectrogram.synthesise(compressed, wave.shape[-1]), numbers["wav_rt"]) < 1e-4


@pytest.mark.parametrize(
    ("mode", "name"),
    [("zero", "zero_pad"), ("reflection", "reflection"), ("replication", "replication")],
)
def test_frame_padding_matches_the_published_one(golden, mode, name):
    numbers = np.load(golden / "sgmse_stft.npz")
    compressed = torch.from_numpy(numbers["exp_fwd"])[:, None]
    assert relative(pad_frames(compressed, 64, mode), numbers[f"pad_{name}"]) < 1e-6


@pytest.mark.parametrize("mode", ["zero", "reflection", "replication"])
@pytest.mark.parametrize("frames", [1, 2, 3, 20, 63, 64, 65])
def test_frame_padding_works_for_any_number_of_frames(mode, frames):
    X = torch.randn(2, 1, 5, frames, dtype=torch.complex64)
    padded = pad_frames(X, 64, mode)
    assert padded.shape == (2, 1, 5, -(-frames // 64) * 64)
    assert torch.equal(padded[..., :frames], X)
    if mode == "reflection" and 1 < frames < 64:
        assert torch.equal(padded[..., frames], X[..., frames - 2])
        assert set(padded[0, 0, 0].tolist()) == set(X[0, 0, 0].tolist())


@pytest.mark.parametrize("tag", SETTINGS)
@pytest.mark.parametrize("length", [1, 2, 127, 128, 255, 256, 257, 766, 767, 768, 769, 5000])
def test_inverse_is_exact_for_every_length(tag, length):
    spectrogram = SETTINGS[tag]
    wave = torch.randn(2, 3, length, dtype=torch.float64)
    X = spectrogram.analyse(wave)
    assert X.shape == (2, 3, spectrogram.freq_bins, spectrogram.frames(length))
    assert torch.allclose(spectrogram.synthesise(X, length), wave, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tag", ["exp", "log", "k48"])
@pytest.mark.parametrize("size", [1e-9, 1e-4, 1.0, 100.0])
def test_decompression_inverts_compression_at_every_level(tag, size):
    spectrogram = SETTINGS[tag]
    X = size * torch.randn(1000, dtype=torch.complex64)
    restored = spectrogram.decompress(spectrogram.compress(X))
    assert torch.allclose(restored, X, rtol=1e-5, atol=0)


@pytest.mark.parametrize("tag", SETTINGS)
def test_silence_stays_exactly_silent_and_has_finite_gradients(tag):
    spectrogram = SETTINGS[tag]
    X = torch.zeros(1, 1, spectrogram.freq_bins, 4, dtype=torch.complex64, requires_grad=True)
    wave = spectrogram.synthesise(X, 3 * spectrogram.hop)
    assert torch.equal(wave, torch.zeros_like(wave))
    (wave - 1).abs().sum().backward()
    assert torch.isfinite(torch.view_as_real(X.grad)).all()
    silence = torch.zeros(1, 1000, requires_grad=True)
    compressed = spectrogram.analyse(silence)
    assert torch.equal(compressed, torch.zeros_like(compressed))
    torch.view_as_real(compressed).sum().backward()
    assert torch.isfinite(silence.grad).all()


@pytest.mark.parametrize("tag", ["exp", "log", "k48"])
def test_gradients_are_those_of_the_formula(tag):
    spectrogram = SETTINGS[tag]
    X = torch.randn(7, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(spectrogram.compress, (X,))
    assert torch.autograd.gradcheck(spectrogram.decompress, (X,))


def test_a_window_made_in_inference_mode_serves_training_too():
    spectrogram = Spectrogram(n_fft=62, hop=16)  # a length that no other test has cached
    with torch.inference_mode():
        spectrogram.analyse(torch.randn(1, 500))
    wave = torch.randn(1, 500, requires_grad=True)
    torch.view_as_real(spectrogram.analyse(wave)).sum().backward()
    assert torch.isfinite(wave.grad).all()


@pytest.mark.parametrize("wrong", [{"hop": 0}, {"hop": 256}, {"exponent": 0.0}, {"factor": -1.0}])
def test_settings_without_an_inverse_are_refused(wrong):
    with pytest.raises(DiffseError, match=str(next(iter(wrong.values())))):
        Spectrogram(**wrong)
