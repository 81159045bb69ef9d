"""EDM2SE's objective: published numbers, and what unit variance demands."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_mp_adm import (
    SMALL,
    as_complex,
    complex_noise,
    load_recipe_weights,
    published_objective,
    recipe,  # noqa: F401 - a fixture
    relative,
)
from torch import Tensor

from diffse.edm2se import EDM2SE
from diffse.errors import DiffseError
from diffse.networks.mp_adm import MPADM
from diffse.processes import SBVE, expand, perturb
from diffse.samplers import bridge_ode, bridge_sde
from diffse.spectrogram import Spectrogram

BRIDGE = SBVE(per_channel=True)
T = torch.tensor([0.02, 0.5, 1.0])
SKIPS = pytest.mark.parametrize("skip", [1, 0])


class Answer:
    """A network that always says the same; it remembers what it was asked."""

    def __init__(self, output: Tensor, u: float = 0.0) -> None:
        self.output, self.u, self.asked = output, u, []

    def __call__(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        self.asked.append((x, y, t))
        return self.output

    def logvar(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.u)


def linear_spectrogram() -> Spectrogram:
    """Without compression: an error of the spectrogram is the spectrogram of the waveform's error."""
    return Spectrogram(n_fft=62, hop=16, transform="none")


def objective_of(network, **options) -> EDM2SE:
    return EDM2SE(network, BRIDGE, linear_spectrogram(), **options)


# ------------------------------------------------------------------------------------ published numbers


@SKIPS
def test_published_coefficients(skip, golden):
    numbers = np.load(golden / "edm2se_coefficients.npz")
    t = torch.from_numpy(numbers["t"])
    objective = published_objective(Answer(t), skip=skip)
    process = objective.process
    ours = objective.coefficients(t)
    found = {
        "sigma": process.sigma(t),
        "sigma_bar": process.sigma_bar(t),
        "std": process.std(t) / math.sqrt(2),
        "w_x": process.a(t),
        "w_y": process.b(t),
        "c_in": ours.c_in,
        "c_skip": ours.c_skip,
        "c_out": ours.c_out,
    }
    for name, value in found.items():
        expected = torch.from_numpy(numbers[f"cs{skip}_{name}"]).double()
        # Published times and roots are in single precision; sigma_0 is 1e-4 there, and 0 in our process.
        tolerance = 2e-4 if name in ("sigma", "sigma_bar", "std") else 1e-6
        assert torch.allclose(value, expected, rtol=1e-5, atol=tolerance), name
    assert torch.allclose(4 * ours.c_noise[[0, -1]], torch.tensor(1e-4).log().double())


@pytest.fixture
def published_batch(golden, recipe):  # noqa: F811
    """The recorded batch (x_0, y, t, z), the recorded losses and the network they belong to."""
    numbers = {
        name: torch.from_numpy(value) for name, value in np.load(golden / "edm2se_loss_batch.npz").items()
    }
    x_0, y, z = (as_complex(numbers[name]) for name in ("X", "Y", "z"))
    network = MPADM(**SMALL)
    shapes = torch.load(golden / "edm2se_cs1_small.pt", weights_only=True)["state_dict"]
    load_recipe_weights(network, recipe, {name: value.shape for name, value in shapes.items()})
    network.normalise_weights_()  # recorded in training mode
    losses = json.loads((golden / "edm2se_losses.json").read_text())["losses"]
    return (x_0, y, numbers["t"], z / math.sqrt(2)), losses, network


@SKIPS
def test_published_losses_and_gradients(skip, published_batch):
    batch, losses, network = published_batch
    expected = losses[f"c_s={skip}"]
    objective = published_objective(network, skip=skip)
    own = objective.loss(*batch)
    assert own.shape == (3,)
    assert own.tolist() == pytest.approx(expected["intended_per_example"], rel=1e-4)
    every = replace(objective, across_batch=True).loss(*batch)
    assert float(every.detach().sum()) == pytest.approx(expected["loss_sum"], rel=1e-5)
    every.sum().backward()
    norm = torch.stack([p.grad.norm() for p in network.parameters()]).norm()
    assert float(norm) == pytest.approx(expected["grad_norm"], rel=1e-4)
    unweighted = replace(objective, uncertainty=False).loss(*batch) / objective.weight(batch[2])
    assert unweighted.tolist() == pytest.approx(expected["unscaled_loss"], rel=1e-4)


@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_sampler_takes_the_published_steps(kind, golden):
    """At the previous time, down to 0, giving the last estimate; the model is closed-form."""
    numbers = {
        name: torch.from_numpy(value)
        for name, value in np.load(golden / f"edm2se_traj_sb_{kind}_N50.npz").items()
    }
    y, mu_0, s_0 = as_complex(numbers["y"]), as_complex(numbers["mu0"]), float(numbers["s0"])
    process, calls = SBVE(per_channel=True, epsilon=1e-8), []
    draws = iter(as_complex(numbers["noise"]) / math.sqrt(2))

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        w_x, w_y = expand(process.a(t), y), expand(process.b(t), y)
        variance = expand(process.std(t) ** 2 / 2, y)  # of one real channel
        estimate = mu_0 + w_x * s_0**2 / (w_x**2 * s_0**2 + variance) * (x_t - w_x * mu_0 - w_y * y)
        calls.append((x_t, t, estimate))
        return estimate

    options = dict(steps=50, t_eps=0.0, evaluate_at="previous", result="estimate")
    if kind == "ode":
        result = bridge_ode(model, process, y, **options)
    else:
        result = bridge_sde(model, process, y, lambda: next(draws), **options)
    assert len(calls) == 50
    tolerance = 2e-3 if kind == "ode" else 2e-5  # the recorded schedule is in single precision
    for call, x_t, t, estimate in zip(calls, *(numbers[f"eval_{n}"] for n in ("x", "t", "out")), strict=True):
        assert float((call[0] - as_complex(x_t)).abs().max()) < tolerance
        assert torch.allclose(call[1], t, atol=1e-6)
        assert float((call[2] - as_complex(estimate)).abs().max()) < tolerance
    assert float((result - as_complex(numbers["result"])).abs().max()) < tolerance * 0.75


# ----------------------------------------------------------------------------------- preconditioning


@SKIPS
def test_inputs_and_target_of_the_network_have_unit_variance(skip):
    """For Gaussian speech and noise of the stated sizes, at every time, per real channel."""
    sigma_x, sigma_n = 0.5, 0.2
    x_0 = complex_noise(0, 3, 1, 256, 256) * sigma_x * math.sqrt(2)
    y = x_0 + complex_noise(1, 3, 1, 256, 256) * sigma_n * math.sqrt(2)
    t = torch.tensor([0.02, 0.5, 0.97])
    x_t = perturb(BRIDGE, x_0, y, t, complex_noise(2, 3, 1, 256, 256))
    network = Answer(torch.zeros_like(y))
    objective = objective_of(network, sigma_x=sigma_x, sigma_n=sigma_n, skip=skip)
    objective.denoise(x_t, objective.prepare(y), t)
    seen_x, seen_y, _ = network.asked[0]
    parts = objective.coefficients(t)
    target = (x_0 - expand(parts.c_skip, x_0) * x_t) / expand(parts.c_out, x_0)
    for signal in (seen_x, seen_y, target):
        variance = torch.view_as_real(signal).square().mean((1, 2, 3, 4))
        assert torch.allclose(variance, torch.ones(3), atol=0.02)


def test_constants_of_the_paper():
    """Eqs. 21-25 with the numbers of VoiceBank-DEMAND at t = 1, where x_T = y."""
    noise, speech = (objective_of(Answer(T), skip=skip) for skip in (1, 0))
    assert float(noise.coefficients(T).c_in[-1]) == pytest.approx((0.402**2 + 0.342**2) ** -0.5, rel=1e-6)
    assert float(noise.coefficients(T).c_in[-1]) == pytest.approx(1.8947, abs=1e-4)
    published = replace(noise, c_in="published").coefficients(T).c_in
    assert torch.allclose(published, noise.coefficients(T).c_in ** 2)
    assert float(noise.weight(T)[-1]) == pytest.approx(1 / 0.342**2, rel=1e-6)
    assert torch.allclose(speech.weight(T), torch.full((3,), 1 / 0.402**2).double())
    assert torch.allclose(replace(noise, weighting="published").weight(T), noise.weight(T).sqrt())
    assert torch.equal(replace(speech, weighting="published").weight(T), speech.weight(T))


@SKIPS
def test_the_right_answer_gives_x_0_and_a_wrong_one_its_error(skip):
    x_0, y, z = (complex_noise(seed, 3, 1, 32, 17) for seed in range(3))
    x_t = perturb(BRIDGE, x_0, y, T, z)
    network = Answer(x_0)
    objective = objective_of(network, skip=skip, l1_weight=0.0)
    parts = objective.coefficients(T)
    right = (x_0 - skip * x_t) / expand(parts.c_out, x_0)
    network.output = right
    assert relative(objective.denoise(x_t, objective.prepare(y), T), x_0) < 1e-5
    assert float(objective.loss(x_0, y, T, z).max()) < 1e-8
    network.output = right + (1 + 1j)  # one in every real channel, so that lambda c_out^2 = 1 remains
    assert torch.allclose(objective.loss(x_0, y, T, z), torch.ones(3), rtol=1e-4)


def test_what_the_network_is_asked():
    x_0, y, z = (complex_noise(seed, 3, 1, 32, 17) for seed in range(3))
    network = Answer(x_0)
    objective = objective_of(network)
    objective.loss(x_0, y, T, z)
    x, condition, label = network.asked[0]
    parts = objective.coefficients(T)
    assert torch.allclose(x, expand(parts.c_in, y) * perturb(BRIDGE, x_0, y, T, z))
    assert torch.allclose(condition, objective.coefficients(torch.ones(1)).c_in.float() * y)
    sigma = BRIDGE.std(torch.tensor(0.5)) / math.sqrt(2)
    assert float(sigma) == pytest.approx(0.4918045, abs=1e-6)  # the published kernel at t = 1/2
    assert label.dtype == torch.float32
    assert label[1:].tolist() == pytest.approx([math.log(sigma) / 4, math.log(1e-4) / 4], rel=1e-6)


@SKIPS
def test_both_ends_are_finite(skip):
    x_0, y, z = (complex_noise(seed, 2, 1, 32, 17) for seed in range(3))
    ends = torch.tensor([0.0, 1.0])
    objective = objective_of(Answer(torch.ones_like(x_0)), skip=skip)
    assert objective.denoise(y, objective.prepare(y), ends).isfinite().all()
    assert objective.loss(x_0, y, ends, z).isfinite().all()
    assert all(part.isfinite().all() for part in objective.coefficients(ends))


# -------------------------------------------------------------------------------------------------- loss


def test_loss_is_its_formula():
    """Mean squared error of two real channels plus the weighted mean absolute error of the waveform."""
    spectrogram, frames = linear_spectrogram(), 17
    length = (frames - 1) * spectrogram.hop
    error_wave = torch.randn(3, 1, length, generator=torch.Generator().manual_seed(0))
    error = spectrogram.stft(error_wave)
    y, z = (complex_noise(seed, *error.shape) for seed in (1, 2))
    x_0 = spectrogram.stft(torch.randn(3, 1, length, generator=torch.Generator().manual_seed(3)))
    for weight in (0.0, 0.001, 10.0):
        network = Answer((x_0 + error) / 0.402, u=0.3)
        objective = objective_of(network, skip=0, l1_weight=weight)
        expected = error.abs().square().mean((1, 2, 3)) / 2 + weight * error_wave.abs().mean((1, 2))
        expected = expected / 0.402**2
        loss = objective.loss(x_0, y, T, z)
        assert torch.allclose(loss, expected * math.exp(-0.3) + 0.3, rtol=1e-4)
        assert torch.allclose(replace(objective, uncertainty=False).loss(x_0, y, T, z), expected, rtol=1e-4)


def test_uncertainty_is_smallest_at_the_logarithm_of_the_weighted_error():
    x_0, y, z = (complex_noise(seed, 1, 1, 32, 17) for seed in range(3))
    t, network = T[1:2], Answer(torch.zeros_like(x_0))
    objective = objective_of(network)
    best = float(replace(objective, uncertainty=False).loss(x_0, y, t, z).log())
    values = []
    for network.u in (best - 0.1, best, best + 0.1):
        values.append(float(objective.loss(x_0, y, t, z)))
    assert values[1] == min(values) == pytest.approx(1 + best, rel=1e-5)


def test_loss_of_an_example_depends_on_its_batch_only_across_the_batch():
    x_0, y, z = (complex_noise(seed, 3, 1, 32, 17) for seed in range(3))
    for across in (False, True):
        objective = objective_of(Answer(x_0[:1]), across_batch=across, l1_weight=1.0)
        together = objective.loss(x_0, y, T, z)
        alone = torch.cat([objective.loss(*(part[i : i + 1] for part in (x_0, y, T, z))) for i in range(3)])
        assert torch.allclose(together, alone, rtol=1e-5) == (not across)


def test_loss_given_uses_the_prepared_conditions():
    x_0, y, z = (complex_noise(seed, 3, 1, 32, 17) for seed in range(3))
    network = Answer(x_0)
    objective = objective_of(network)
    conditions = objective.prepare(y)
    assert conditions.end is y and conditions.seen is y and conditions.offset is None
    assert torch.equal(objective.loss_given(x_0, conditions, T, z), objective.loss(x_0, y, T, z))
    objective.loss_given(x_0, replace(conditions, seen=2 * y), T, z)
    assert torch.equal(network.asked[-1][0], network.asked[0][0])
    assert torch.equal(network.asked[-1][1], 2 * network.asked[0][1])


def test_impossible_settings_are_one_line():
    for options, said in (
        ({"sigma_x": 0.0}, "sigma_x 0.0 and sigma_n 0.342: both must be positive"),
        ({"sigma_n": -1.0}, "both must be positive"),
        ({"skip": 2}, "skip is 2; it is 1"),
        ({"c_in": "square"}, "c_in 'square'"),
        ({"weighting": "edm"}, "weighting 'edm'"),
    ):
        with pytest.raises(DiffseError, match=said) as caught:
            objective_of(Answer(T), **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(DiffseError, match="Identity has no log-variance head; use the mp_adm network"):
        objective_of(torch.nn.Identity())
    objective_of(torch.nn.Identity(), uncertainty=False)


# ---------------------------------------------------------------------------------------------- learning


@SKIPS
@pytest.mark.parametrize("stem", [1, 4])
def test_a_tiny_network_learns_one_batch(skip, stem):
    """Forty steps with normalised weights: the estimate comes close to x_0 from y and x_t."""
    torch.manual_seed(0)
    spectrogram = Spectrogram(n_fft=62, hop=16, factor=0.9375)
    time = torch.arange(16 * 15) / 16000
    clean = 0.3 * torch.stack([torch.sin(2 * math.pi * f * time) for f in (440.0, 1200.0)])[:, None]
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    x_0, y = spectrogram.analyse(clean), spectrogram.analyse(noisy)
    t, z = torch.tensor([0.3, 0.8]), complex_noise(2, *y.shape)
    network = MPADM(
        model_channels=16, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(), channels_per_head=16,
        freq_bins=32, stem=stem,
    )  # fmt: skip
    objective = EDM2SE(network, BRIDGE, spectrogram, skip=skip)
    plain = replace(objective, uncertainty=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02, betas=(0.9, 0.99))
    start = plain.loss(x_0, y, t, z).mean().item()
    losses = []
    for _ in range(40):
        loss = objective.loss(x_0, y, t, z).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        network.normalise_weights_()
        losses.append(loss.item())
    assert plain.loss(x_0, y, t, z).mean().item() < 0.2 * start
    assert losses[-1] < losses[0] - 0.5
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            sizes = weight.detach().flatten(1).square().mean(1).sqrt()
            assert torch.allclose(sizes, torch.ones(()), atol=1e-3), name
