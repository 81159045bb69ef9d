"""Predictive systems and the adapter for networks that work on waveforms."""

import json

import pytest
import torch
from test_networks import PREDICTOR_M
from test_objectives import batch, complex_noise, gradient_norm, published_network, recipe  # noqa: F401
from torch import Tensor, nn

from diffse.metrics import intrusive
from diffse.prediction import InWaveform, Regression, si_sdr, waveforms
from diffse.spectrogram import Spectrogram

T = torch.tensor([0.03, 0.4, 1.0])
LINEAR = Spectrogram(n_fft=62, hop=16, transform="none")
COMPRESSED = Spectrogram(n_fft=62, hop=16)


def real_noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------------------------------- regression


def test_predictor_alone_has_the_published_loss_and_gradient(golden, published_network):  # noqa: F811
    """StoRM's predictive baseline, NCSN++M."""
    expected = json.loads((golden / "storm_losses.json").read_text())["losses"]["disc_mse"]
    network = published_network("dnn.", **PREDICTOR_M)
    loss = Regression(network).loss(*batch(golden / "storm_loss_batch.npz")).mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected["loss"], rel=1e-4)
    assert gradient_norm(network) == pytest.approx(expected["grad_norm"], rel=1e-3)


def test_network_sees_the_noisy_input_alone():
    y, x_t = complex_noise(0, 3, 1, 32, 17), complex_noise(1, 3, 1, 32, 17)
    called = []

    def network(x, seen, t):
        called.append((x, seen, t))
        return 2 * x

    objective = Regression(network)
    assert torch.equal(objective.denoise(x_t, objective.prepare(y), T), 2 * y)
    x, seen, t = called[0]
    assert torch.equal(x, y)
    assert seen.shape == (3, 0, 32, 17)
    assert torch.equal(t, torch.ones(3))


def test_errors_are_their_formulas_and_know_neither_time_nor_noise():
    x_0, y, z = (complex_noise(seed, 3, 1, 32, 17) for seed in range(3))
    error = 0.5 * y - x_0
    for kind, expected in (("squared", error.abs().square()), ("absolute", error.abs())):
        objective = Regression(lambda x, seen, t: 0.5 * x, kind)
        loss = objective.loss(x_0, y, T, z)
        assert torch.allclose(loss, 0.5 * expected.sum(dim=(1, 2, 3)), rtol=1e-5)
        assert torch.equal(objective.loss(x_0, y, 0.5 * T, -z), loss)


def test_si_sdr_is_the_metric_and_its_loss_the_negative():
    clean, estimate = 0.1 * real_noise(0, 3, 640), 0.1 * real_noise(1, 3, 640)
    estimate = 0.7 * clean + torch.tensor([0.01, 0.1, 1.0])[:, None] * estimate
    expected = [
        intrusive.si_sdr(s.numpy(), s_hat.numpy(), s.numpy(), 16000)
        for s, s_hat in zip(clean, estimate, strict=True)
    ]
    assert torch.allclose(si_sdr(clean, estimate), torch.tensor(expected), atol=0.01)
    x_0, y = (COMPRESSED.analyse(wave[:, None]) for wave in (clean, estimate))
    objective = Regression(lambda x, seen, t: x, "si_sdr", COMPRESSED)
    assert torch.allclose(objective.loss(x_0, y, T, y), -torch.tensor(expected), atol=0.01)


def test_silence_has_a_finite_si_sdr_and_gradient():
    clean, silence = 0.1 * real_noise(0, 2, 640), torch.zeros(2, 640)
    for reference, estimate in ((clean, silence), (silence, clean), (silence, silence), (clean, clean)):
        estimate = estimate.clone().requires_grad_()
        value = si_sdr(reference, estimate)
        value.sum().backward()
        assert torch.isfinite(value).all()
        assert torch.isfinite(estimate.grad).all()


# --------------------------------------------------------------------------------------------- waveforms


class Gain(nn.Module):
    """A waveform network with a parameter: the sum of its inputs, louder."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, wave: Tensor) -> Tensor:
        self.length = wave.shape[-1]
        return self.gain * wave.sum(1, keepdim=True)


@pytest.mark.parametrize("frames", [1, 2, 3, 17])
def test_any_number_of_frames_comes_back(frames):
    network = Gain()
    x = LINEAR.stft(real_noise(0, 3, 1, max((frames - 1) * 16, 1)))[..., :frames]
    output = InWaveform(network, LINEAR)(x, x[:, :0], T)
    assert output.shape == (3, 1, 32, frames)
    assert network.length == max((frames - 1) * 16, 1)
    assert (
        torch.allclose(output, 2 * x, atol=1e-4) or frames < 4
    )  # the ends of so short a signal are all there is


def test_waveforms_are_those_of_the_spectrograms():
    waves = real_noise(0, 3, 2, 256)
    X = COMPRESSED.analyse(waves)
    assert torch.allclose(waveforms(COMPRESSED, X), waves, atol=1e-4)
    output = InWaveform(Gain(), COMPRESSED)(X[:, :1], X[:, 1:], T)
    assert torch.allclose(waveforms(COMPRESSED, output)[:, 0], 2 * waves.sum(1), atol=1e-3)


def test_adapter_has_the_interface_of_a_network():
    network = InWaveform(Gain(), LINEAR)
    assert list(network.state_dict()) == ["network.gain"]
    assert (network.freq_bins, network.frame_multiple) == (32, 1)
    x = complex_noise(0, 3, 1, 30, 17)
    with pytest.raises(ValueError, match=r"32 frequency bins, not 30"):
        network(x, x[:, :0], T)


def test_gradients_pass_the_adapter():
    network = InWaveform(Gain(), COMPRESSED)
    x_0, y = complex_noise(0, 3, 1, 32, 17), complex_noise(1, 3, 1, 32, 17)
    Regression(network).loss(x_0, y, T, y).sum().backward()
    assert float(network.network.gain.grad.abs()) > 0
