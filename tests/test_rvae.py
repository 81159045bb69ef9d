"""The variational baseline: its network, its bound, and enhancement with it."""

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from diffse.networks.rvae import RVAE
from diffse.prediction import si_sdr
from diffse.spectrogram import Spectrogram
from diffse.variational import ELBO, kl_divergence, latent_noise, power, vem

SPECTROGRAM = Spectrogram(n_fft=62, hop=16)  # 32 bins
SAMPLES = 1023  # of every signal: 64 frames


def complex_noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def drawing(like: Tensor, seed: int = 0) -> Callable[[], Tensor]:
    """Draws as enhancement makes them: every file from a generator of its own."""
    generators = [torch.Generator().manual_seed(seed + place) for place in range(len(like))]
    return lambda: torch.stack(
        [torch.randn(like.shape[1:], dtype=like.dtype, generator=generator) for generator in generators]
    )


def voices(count: int, seed: int) -> Tensor:
    """Gliding harmonic tones that come and go, [count, SAMPLES]."""
    rng, t = np.random.default_rng(seed), np.arange(SAMPLES) / SAMPLES
    waves = []
    for _ in range(count):
        pitch = rng.uniform(0.035, 0.06) * (
            1 + 0.2 * np.sin(2 * np.pi * (rng.uniform(1, 2) * t + rng.random()))
        )
        phase = 2 * np.pi * np.cumsum(pitch)
        envelope = np.clip(np.sin(2 * np.pi * (rng.uniform(2, 4) * t + rng.random())), 0.02, None)
        waves.append(envelope * sum(np.sin(k * phase + 6 * rng.random()) / k for k in range(1, 7)))
    return torch.tensor(np.stack(waves), dtype=torch.float32) / 2


def fit(features: str, steps: int = 120) -> tuple[RVAE, list[float]]:
    """A small autoencoder trained on voices, and its losses."""
    torch.manual_seed(0)
    network = RVAE(freq_bins=32, latent=4, hidden=32, features=features)
    objective, optimiser = ELBO(network, SPECTROGRAM), torch.optim.Adam(network.parameters(), lr=5e-3)
    x_0 = SPECTROGRAM.analyse(voices(16, seed=0))[:, None]
    losses = []
    for step in range(steps):
        crop = x_0[:, ..., (step % 3) * 16 :][..., :32]
        z = complex_noise(*crop.shape, seed=step)
        loss = objective.loss(crop, crop, torch.ones(16), z).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    optimiser.zero_grad()
    return network.eval().requires_grad_(False), losses


@pytest.fixture(scope="module")
def trained() -> tuple[RVAE, list[float]]:
    return fit("log")


# ------------------------------------------------------------------------------------------------ network


def small(features: str = "power") -> RVAE:
    torch.manual_seed(1)
    return RVAE(freq_bins=32, latent=4, hidden=8, features=features)


def test_encoder_draws_each_frame_from_what_was_drawn_before():
    """Changing the noise of frame 5 changes z from there on, and the mean from frame 6 on."""
    network, P = small(), torch.rand(2, 32, 12) + 0.1
    noise = torch.randn(2, 12, 4)
    changed = noise.clone()
    changed[:, 5] += 1
    z, mean, log_var = network.encode(P, noise)
    z_2, mean_2, _ = network.encode(P, changed)
    assert z.shape == mean.shape == log_var.shape == (2, 12, 4)
    assert torch.equal(mean[:, :6], mean_2[:, :6])
    assert (mean[:, 6] != mean_2[:, 6]).all()
    assert torch.equal(z[:, :5], z_2[:, :5]) and (z[:, 5] != z_2[:, 5]).all()
    assert torch.allclose(z, mean + torch.exp(log_var / 2) * noise)


def test_encoder_and_decoder_see_past_and_future():
    network, P, none = small(), torch.rand(1, 32, 12) + 0.1, torch.zeros(1, 12, 4)
    louder = P.clone()
    louder[..., 11] += 5
    assert (network.encode(P, none)[1][:, 0] != network.encode(louder, none)[1][:, 0]).all()
    z = torch.randn(1, 12, 4)
    late = z.clone()
    late[:, 11] += 1
    log_v = network.decode(z)
    assert log_v.shape == (1, 32, 12)
    assert (log_v[..., 0] != network.decode(late)[..., 0]).any()


def test_features_are_power_or_its_logarithm():
    P, none = torch.rand(1, 32, 12) + 0.1, torch.zeros(1, 12, 4)
    of_power, of_log = small("power"), small("log")
    assert torch.equal(of_power.encode(P.log(), none)[1], of_log.encode(P, none)[1])


def test_wrong_size_is_refused():
    with pytest.raises(ValueError, match="32 frequency bins, not 31"):
        small().encode(torch.rand(1, 31, 12), torch.zeros(1, 12, 4))
    assert (small().freq_bins, small().frame_multiple) == (32, 1)


def test_decoder_stays_differentiable_on_a_gpu_in_evaluation():
    network = small().eval()
    assert not network.training and not network.encoder.training
    assert network.decoder.training
    assert not any(isinstance(module, torch.nn.Dropout) for module in network.modules())


# -------------------------------------------------------------------------------------------------- bound


def test_divergence_is_zero_where_the_posterior_is_the_prior():
    assert torch.equal(kl_divergence(torch.zeros(3, 5, 4), torch.zeros(3, 5, 4)), torch.zeros(3))
    mean, log_var = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    q = torch.distributions.Normal(mean, torch.exp(log_var / 2))
    p = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    expected = torch.distributions.kl_divergence(q, p).sum((1, 2))
    assert torch.allclose(kl_divergence(mean, log_var), expected, rtol=1e-5)


def test_latent_noise_is_standard_normal():
    noise = latent_noise(complex_noise(4, 1, 64, 300), latent=16)
    assert noise.shape == (4, 300, 16)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.var()) == pytest.approx(1, abs=0.03)


class Fixed:
    """An autoencoder that says the same of everything: variance v and a posterior N(mean, 1)."""

    latent = 2

    def __init__(self, v: Tensor, mean: float) -> None:
        self.v, self.mean = v, mean

    def __call__(self, P: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = torch.full_like(noise, self.mean)
        return self.v.log(), mean, torch.zeros_like(mean)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_loss_is_its_formula(beta):
    x_0 = complex_noise(3, 1, 32, 10)
    P = power(SPECTROGRAM, x_0)[:, 0]
    assert torch.allclose(P, (x_0[:, 0].abs() / 0.15) ** 4, rtol=1e-4)  # 0.15 |X|^(1/2) undone
    z = torch.zeros_like(x_0)
    perfect = ELBO(Fixed(P, 0.0), SPECTROGRAM, beta)
    assert torch.allclose(perfect.loss(x_0, x_0, torch.ones(3), z), torch.zeros(3), atol=1e-5)
    objective = ELBO(Fixed(2 * P, 0.5), SPECTROGRAM, beta)
    kl = 0.5 * 0.5**2 * 2 * 10  # 2 latent variables in 10 frames
    expected = 0.5 + math.log(2) - 1 + beta * kl / 320
    assert torch.allclose(objective.loss(x_0, x_0, torch.ones(3), z), torch.full((3,), expected), rtol=1e-4)


def test_loss_does_not_look_at_the_noisy_input_nor_at_other_examples():
    objective = ELBO(small(), SPECTROGRAM)
    x_0, z = complex_noise(3, 1, 32, 10), complex_noise(3, 1, 32, 10, seed=1)
    together = objective.loss(x_0, x_0, torch.ones(3), z)
    assert torch.equal(together, objective.loss(x_0, 5 * z, torch.zeros(3), z))
    alone = objective.loss(x_0[1:2], x_0[1:2], torch.ones(1), z[1:2])
    assert torch.allclose(alone, together[1:2], rtol=1e-5)
    assert objective.prepare(x_0).seen.shape == (3, 0, 32, 10)


@pytest.mark.parametrize("features", ["power", "log"])
def test_training_lowers_the_bound(features, trained):
    losses = trained[1] if features == "log" else fit("power")[1]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert np.isfinite(losses).all()


# -------------------------------------------------------------------------------------------- enhancement


@pytest.fixture(scope="module")
def mixtures() -> tuple[Tensor, Tensor, Tensor]:
    """Clean and noisy waveforms [4, SAMPLES] of unseen voices at 0 dB, and noisy spectrograms."""
    clean = voices(4, seed=9)
    white = torch.randn(4, SAMPLES, generator=torch.Generator().manual_seed(3))
    noise = white[:, :] - 0.9 * white.roll(1, -1)  # a hiss: stronger at high frequencies
    noise = noise * (clean.norm(dim=1) / noise.norm(dim=1))[:, None]
    noisy = clean + noise
    return clean, noisy, SPECTROGRAM.analyse(noisy)[:, None]


def enhanced(network: RVAE, y: Tensor, draw: Callable[[], Tensor] | None = None, **options) -> Tensor:
    """As the enhancer calls it: in inference mode."""
    with torch.inference_mode():
        return vem(network, SPECTROGRAM, y.clone(), draw or drawing(y), **{"rank": 2, **options})


def test_enhancement_raises_si_sdr(trained, mixtures):
    clean, noisy, y = mixtures
    result = SPECTROGRAM.synthesise(enhanced(trained[0], y)[:, 0], SAMPLES)
    gained = si_sdr(clean, result) - si_sdr(clean, noisy)
    assert float(gained.mean()) > 6
    untrained = SPECTROGRAM.synthesise(enhanced(small("log"), y)[:, 0], SAMPLES)
    assert float(gained.mean()) > float((si_sdr(clean, untrained) - si_sdr(clean, noisy)).mean()) + 1


def test_free_energy_falls(trained, mixtures):
    energies: list[Tensor] = []
    enhanced(trained[0], mixtures[2], observe=energies.append)
    averaged = torch.stack(energies).unflatten(0, (4, -1)).mean(1)  # each value is for one sample of z
    assert averaged.shape == (4, 4)
    assert all((after < before).all() for before, after in pairwise(averaged))


def test_result_is_the_noisy_signal_under_a_gain_between_0_and_1(trained, mixtures):
    y = mixtures[2]
    ratio = SPECTROGRAM.decompress(enhanced(trained[0], y)) / SPECTROGRAM.decompress(y)
    assert float(ratio.imag.abs().max()) < 1e-4  # the noisy phase
    assert float(ratio.real.min()) >= 0
    assert float(ratio.real.max()) <= 1 + 1e-4
    assert float(ratio.real.min()) < 0.1 and float(ratio.real.max()) > 0.9


def test_a_file_alone_gives_what_it_gives_in_a_batch(trained, mixtures):
    y = mixtures[2]
    together = enhanced(trained[0], y, iterations=10)
    for i in range(4):
        alone = enhanced(trained[0], y[i : i + 1], drawing(y[i : i + 1], seed=i), iterations=10)
        assert float((alone - together[i : i + 1]).abs().max() / together[i].abs().max()) < 1e-5


def test_level_of_noise_and_speech_are_fitted_to_the_file(trained, mixtures):
    """The gains take up a level that the autoencoder has not seen."""
    clean, noisy, _ = mixtures
    quiet = SPECTROGRAM.analyse(0.05 * noisy)[:, None]
    result = SPECTROGRAM.synthesise(enhanced(trained[0], quiet)[:, 0], SAMPLES)
    assert float((si_sdr(0.05 * clean, result) - si_sdr(clean, noisy)).mean()) > 3


def test_network_is_left_as_it_was_and_silence_is_finite(trained, mixtures):
    network, y = trained[0], mixtures[2]
    before = copy.deepcopy(network.state_dict())
    result = enhanced(network, torch.zeros_like(y), iterations=20)
    assert torch.equal(result, torch.zeros_like(y))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.gpu
def test_gpu_enhances_as_well_as_the_cpu(trained, mixtures):
    clean, noisy, y = mixtures
    draw = drawing(y)
    network = copy.deepcopy(trained[0]).cuda()
    result = enhanced(network, y.cuda(), lambda: draw().cuda())
    wave = SPECTROGRAM.synthesise(result[:, 0].cpu(), SAMPLES)
    assert float((si_sdr(clean, wave) - si_sdr(clean, noisy)).mean()) > 6
