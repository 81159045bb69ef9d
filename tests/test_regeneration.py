"""StoRM and stochastic refinement: numbers of the published code, and what the definitions demand."""

import importlib.util
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_networks import PREDICTOR_M, SCORE_M, load_recipe_weights
from torch import Tensor, nn

from diffse.networks.ncsnpp import NCSNpp
from diffse.objectives import DataPrediction, ScoreMatching
from diffse.processes import OUVE, SBVE, expand, perturb
from diffse.regeneration import Pair, Regeneration, published_names, swapped
from diffse.samplers import bridge_ode, predictor_corrector
from diffse.spectrogram import Spectrogram

PROCESS = OUVE()
T = torch.tensor([0.03, 0.4, 1.0])
CONDITIONINGS = ("both", "noisy", "estimate")


def complex_noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def batch(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """x_0, y and z [3, 1, *shape]."""
    x_0, n, z = (complex_noise(seed, 3, 1, *shape) for seed in range(3))
    return x_0, x_0 + 0.5 * n, z


# ------------------------------------------------------------------------------------ published numbers


@pytest.fixture(scope="module")
def recipe(golden):
    spec = importlib.util.spec_from_file_location("recipe", golden / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def published(golden):
    """The published batch (x_0, y, t, z) and what the published code made of it."""
    numbers = np.load(golden / "storm_loss_batch.npz")
    losses = json.loads((golden / "storm_losses.json").read_text())["losses"]
    return [torch.from_numpy(numbers[key]) for key in ("X", "Y", "t", "z")], losses


def published_pair(recipe, conditioning: str) -> Pair:
    options = SCORE_M | {"inputs": 3 if conditioning == "both" else 2}
    pair = Pair(NCSNpp(nf=16, **PREDICTOR_M), NCSNpp(nf=16, **options))
    names, state = published_names(pair), pair.state_dict()
    arrays = {own: recipe.weight(names[own], tuple(state[own].shape)) for own in state}
    pair.load_state_dict({own: torch.from_numpy(array) for own, array in arrays.items()})
    return pair


def published_score(network: Callable) -> ScoreMatching:
    return ScoreMatching(network, PROCESS, scaling="none", sign=-1)


def expect(value: Tensor, network: nn.Module, expected: dict) -> None:
    value.backward()
    gradients = [p.grad for p in network.parameters() if p.requires_grad]
    assert float(value.detach()) == pytest.approx(expected["loss"], rel=1e-4)
    assert float(torch.stack([g.norm() for g in gradients]).norm()) == pytest.approx(
        expected["grad_norm"], rel=1e-3
    )


PUBLISHED_CONDITIONING = {"both": "both", "post_denoiser": "estimate", "noisy": "noisy"}


@pytest.mark.parametrize("name", PUBLISHED_CONDITIONING)
def test_joint_loss_and_gradient_are_the_published_ones(name, recipe, published):
    conditioning = PUBLISHED_CONDITIONING[name]
    pair = published_pair(recipe, conditioning)
    objective = Regeneration(
        pair.predictor, published_score(pair.score), conditioning=conditioning, published=True
    )
    numbers, losses = published
    loss = objective.loss(*numbers)
    assert loss.shape == (3,)
    expect(loss.mean(), pair, losses[f"storm_joint_{name}"])


@pytest.mark.parametrize("name", PUBLISHED_CONDITIONING)
def test_both_terms_are_the_published_ones(name, recipe, published):
    """Its code records both sums over the batch before it halves them."""
    conditioning = PUBLISHED_CONDITIONING[name]
    pair = published_pair(recipe, conditioning)
    (x_0, y, t, z), losses = published
    _, score_term, predictor_term = losses[f"storm_joint_{name}"]["parts"]
    objective = Regeneration(pair.predictor, published_score(pair.score), conditioning, supervision=0.0)
    with torch.inference_mode():
        assert float(objective.loss(x_0, y, t, z).sum()) == pytest.approx(score_term, rel=1e-4)
        assert float(objective.pretrain_loss(x_0, y, t, z).sum()) == pytest.approx(predictor_term, rel=1e-4)


def test_predictor_alone_has_the_published_loss_and_gradient(recipe, published):
    network = NCSNpp(nf=16, **PREDICTOR_M)
    load_recipe_weights(network, recipe, "dnn.")
    numbers, losses = published
    expect(Regeneration(network, None).pretrain_loss(*numbers).mean(), network, losses["disc_mse"])


def test_score_network_alone_has_the_published_loss_and_gradient(recipe, published):
    """SGMSE+M, the generative baseline."""
    network = NCSNpp(nf=16, **(SCORE_M | {"inputs": 2}))
    load_recipe_weights(network, recipe, "dnn.")
    numbers, losses = published
    expect(published_score(network).loss(*numbers).mean(), network, losses["score_mse"])


def test_published_sizes_of_the_pair():
    """27.8 million parameters for the score network; the predictor without its unused ones."""
    with torch.device("meta"):
        pair = Pair(NCSNpp(**PREDICTOR_M), NCSNpp(**SCORE_M))
    counts = [sum(p.numel() for p in network.parameters()) for network in (pair.predictor, pair.score)]
    assert counts == [27_342_350 - 2_363_904 - 128, 27_776_038]
    prefixes = [name.split(".")[0] for name in published_names(pair).values()]
    assert prefixes == sorted(prefixes)  # denoiser_net before score_net, as averages are stored by position
    assert list(published_names(pair)) == list(pair.state_dict())


# ------------------------------------------------------------------------------------------ regeneration


def linear_score(x_t: Tensor, seen: Tensor, t: Tensor) -> Tensor:
    """A score network without weights that uses all it is given."""
    return 0.3 * x_t - 0.2 * seen.mean(1, keepdim=True) * expand(t, x_t)


INNER = {
    "score matching": ScoreMatching(linear_score, PROCESS),
    "bridge": DataPrediction(linear_score, SBVE(), Spectrogram(), 0.0),
}


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_perfect_predictor_makes_it_the_inner_objective_with_clean_speech_as_noisy(inner):
    x_0, y, z = batch(8, 6)
    objective = Regeneration(lambda y, seen, t: x_0, inner, conditioning="estimate")
    assert torch.equal(objective.loss(x_0, y, T, z), inner.loss(x_0, x_0, T, z))
    x_t = complex_noise(3, *x_0.shape)
    expected = inner.denoise(x_t, inner.prepare(x_0), T)
    assert torch.equal(objective.denoise(x_t, objective.prepare(y), T), expected)


def test_predictor_that_does_nothing_makes_it_score_matching():
    x_0, y, z = batch(8, 6)
    inner = ScoreMatching(linear_score, PROCESS)
    for conditioning in CONDITIONINGS:
        objective = Regeneration(lambda y, seen, t: y, inner, conditioning, supervision=0.0)
        assert torch.allclose(objective.loss(x_0, y, T, z), inner.loss(x_0, y, T, z), rtol=1e-6)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("refine", [False, True])
def test_score_network_sees_what_conditioning_says_and_the_state_ends_in_the_estimate(conditioning, refine):
    x_0, y, z = batch(8, 6)
    calls = []

    def score(x_t, seen, t):
        calls.append((x_t, seen))
        return x_t

    objective = Regeneration(
        lambda y, seen, t: 0.5 * y, ScoreMatching(score, PROCESS), conditioning, refine=refine
    )
    objective.loss(x_0, y, T, z)
    x_t, seen = calls[0]
    expected = {"both": [y, 0.5 * y], "noisy": [y], "estimate": [0.5 * y]}[conditioning]
    assert torch.equal(seen, torch.cat(expected, 1))
    ends = (x_0 - 0.5 * y, y - 0.5 * y) if refine else (x_0, 0.5 * y)
    assert torch.equal(x_t, perturb(PROCESS, *ends, T, z))


@pytest.mark.parametrize("refine", [False, True])
def test_loss_is_both_terms_and_supervision_weighs_the_second(refine):
    x_0, y, z = batch(8, 6)
    inner = ScoreMatching(linear_score, PROCESS)

    def loss(**options) -> Tensor:
        return Regeneration(lambda y, seen, t: 0.5 * y, inner, refine=refine, **options).loss(x_0, y, T, z)

    supervised = 0.5 * (0.5 * y - x_0).abs().square().sum(dim=(1, 2, 3))
    alone = loss(supervision=0.0)
    assert torch.allclose(loss(), alone + supervised, rtol=1e-5)
    assert torch.allclose(loss(supervision=0.3), alone + 0.3 * supervised, rtol=1e-5)
    assert torch.equal(loss(fine_tune=False), alone)  # a term that trains nothing
    assert torch.allclose(loss(published=True), 3 * (alone + supervised) / 2, rtol=1e-5)
    pretraining = Regeneration(lambda y, seen, t: 0.5 * y, inner, refine=refine).pretrain_loss(x_0, y, T, z)
    assert torch.allclose(pretraining, supervised, rtol=1e-5)


def test_predictor_is_called_once_and_like_every_network():
    x_0, y, z = batch(8, 6)
    calls = []

    def predictor(y, seen, t):
        calls.append((y, seen, t))
        return 0.5 * y

    objective = Regeneration(predictor, ScoreMatching(linear_score, PROCESS))
    objective.loss(x_0, y, T, z)
    assert len(calls) == 1
    conditions = objective.prepare(y)
    for _ in range(3):
        objective.denoise(z, conditions, T)
    objective.loss_given(x_0, conditions, T, z)
    assert len(calls) == 2
    assert calls[1][0] is y
    assert calls[1][1].shape == (3, 0, 8, 6)
    assert torch.equal(calls[1][2], torch.ones(3))


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("bridge", [False, True])
def test_sampling_with_the_true_answer_returns_clean_speech(refine, bridge):
    """A score network that knows x_0 (or the residual): D(y) is far from it, the result is not."""
    x_0, y, _ = batch(8, 6)
    estimate = 0.5 * y
    answer = x_0 - estimate if refine else x_0
    if bridge:
        inner = DataPrediction(lambda x_t, seen, t: answer, SBVE(), Spectrogram(), 0.0)
    else:
        inner = ScoreMatching(oracle_score(answer, y - estimate if refine else estimate), PROCESS)
    objective = Regeneration(lambda y, seen, t: estimate, inner, refine=refine)
    conditions = objective.prepare(y)
    assert (conditions.offset is not None) == refine

    def denoise(x_t, t):
        return objective.denoise(x_t, conditions, t)

    if bridge:
        result, tolerance = bridge_ode(denoise, SBVE(), conditions.end, steps=8, t_eps=1e-6), 1e-3
    else:
        noise = iter(range(1000))
        result = predictor_corrector(
            denoise, PROCESS, conditions.end, lambda: complex_noise(next(noise), *y.shape), steps=200
        )
        tolerance = 0.05
    if refine:
        assert conditions.offset is estimate
        result = result + conditions.offset
    error = float((result - x_0).abs().square().mean().sqrt())
    assert error < tolerance
    assert float((estimate - x_0).abs().square().mean().sqrt()) > 0.3


def oracle_score(x_0: Tensor, end: Tensor) -> Callable:
    """The network output, the score times s(t), that stands for x_0."""

    def network(x_t, seen, t):
        mean = expand(PROCESS.a(t), x_t) * x_0 + expand(PROCESS.b(t), x_t) * end
        return (mean - x_t) / expand(PROCESS.std(t), x_t)

    return network


# ------------------------------------------------------------------------------------------- two networks


def tiny(**options) -> NCSNpp:
    """Some 20,000 weights for 64 bins in folds of 8."""
    shape = dict(nf=8, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), bottleneck_attention=False)
    return NCSNpp(**(shape | dict(stem=8, freq_bins=64, zero_output=True) | options))


def tiny_pair(**options) -> Pair:
    torch.manual_seed(0)
    return Pair(tiny(inputs=1, conditional=False, **options), tiny(inputs=3))


def has_gradient(network: nn.Module) -> list[bool]:
    return [p.grad is not None and bool(p.grad.any()) for p in network.parameters() if p.requires_grad]


@pytest.mark.parametrize("refine", [False, True])
def test_gradients_reach_the_networks_that_are_trained_and_no_other(refine):
    x_0, y, z = batch(64, 4)

    def gradients(method: str, **options) -> tuple[list[bool], list[bool]]:
        pair = tiny_pair(dropout=0.0)
        for parameter in pair.parameters():  # a zero layer would hide what is behind it
            parameter.data += 0.1 * torch.randn_like(parameter)
        objective = Regeneration(pair.predictor, ScoreMatching(pair.score, PROCESS), refine=refine, **options)
        getattr(objective, method)(x_0, y, T, z).mean().backward()
        return has_gradient(pair.predictor), has_gradient(pair.score)

    for options in ({}, {"supervision": 0.0}):  # it then learns through the score network alone
        predictor, score = gradients("loss", **options)
        assert all(predictor)
        assert all(score)
    predictor, score = gradients("loss", fine_tune=False)
    assert not any(predictor)
    assert all(score)
    predictor, score = gradients("pretrain_loss", fine_tune=False)  # comes before it is left alone
    assert all(predictor)
    assert not any(score)


class Noisy(nn.Module):
    """A predictor with the two layers that behave differently in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm2d(1), nn.Dropout(0.5)

    def forward(self, y: Tensor, seen: Tensor, t: Tensor) -> Tensor:
        return torch.complex(self.dropout(self.norm(y.real)), y.imag)


def test_predictor_that_is_left_alone_does_not_change_in_training():
    _, y, _ = batch(8, 6)
    network = Noisy().train()
    inner = ScoreMatching(linear_score, PROCESS)
    frozen = Regeneration(network, inner, fine_tune=False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first, second = frozen.prepare(y).end, frozen.prepare(y).end
    assert torch.equal(first, second)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training
    assert network.norm.training
    tuned = Regeneration(network, inner)
    assert not torch.equal(tuned.prepare(y).end, tuned.prepare(y).end)
    assert any(not torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_pair_fits_both_networks_and_a_predictor_can_be_exchanged():
    pair = Pair(tiny(inputs=1, conditional=False, ch_mult=(1, 1, 1)), tiny(inputs=3)).eval()
    assert (pair.freq_bins, pair.frame_multiple) == (64, 4)
    other = tiny(inputs=1, conditional=False)
    changed = swapped(pair, other)
    assert changed.frame_multiple == 2
    assert changed.predictor is other
    assert changed.score is pair.score
    assert not changed.training
    assert not other.training
    assert pair.predictor is not other
    _, y, _ = batch(64, 4)
    inner = ScoreMatching(pair.score, PROCESS)
    ends = [Regeneration(network.predictor, inner).prepare(y).end for network in (pair, changed)]
    assert torch.equal(ends[1], other(y, y[:, :0], torch.ones(3)))
    assert not torch.equal(*ends)
    with pytest.raises(ValueError, match="takes 256 frequency bins, the score network 64"):
        swapped(pair, tiny(freq_bins=256, inputs=1, conditional=False))


def synthetic(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """One phase per example, and noise all over: x_0 and y [count, 1, 16, 8]."""
    x_0 = complex_noise(seed, count, 1, 1, 1).sgn().expand(count, 1, 16, 8)
    return x_0, x_0 + 0.7 * complex_noise(seed + 1, count, 1, 16, 8)


def test_tiny_networks_learn():
    """Both terms fall, and a few steps of sampling give better spectrograms than the noisy ones."""
    torch.manual_seed(0)
    shape = dict(ch_mult=(1,), stem=1, freq_bins=16)
    pair = Pair(tiny(inputs=1, conditional=False, **shape), tiny(inputs=3, **shape))
    objective = Regeneration(pair.predictor, ScoreMatching(pair.score, PROCESS))
    optimiser = torch.optim.Adam(pair.parameters(), lr=5e-3)
    for step in range(200):
        x_0, y = synthetic(8, 10 + 2 * step)
        t, z = 0.03 + 0.97 * torch.rand(8), torch.randn(8, 1, 16, 8, dtype=torch.complex64)
        optimiser.zero_grad()
        (objective.pretrain_loss if step < 30 else objective.loss)(x_0, y, t, z).mean().backward()
        optimiser.step()
    x_0, y = synthetic(8, 0)
    seeds = iter(range(1000, 2000))
    with torch.inference_mode():
        conditions, t = objective.prepare(y), torch.linspace(0.03, 1, 8)
        score_term = objective.inner.loss_given(x_0, conditions, t, complex_noise(5, *y.shape)).mean()
        result = predictor_corrector(
            lambda x_t, t: objective.denoise(x_t, conditions, t),
            PROCESS, conditions.end, lambda: complex_noise(next(seeds), *y.shape), corrector="none",
        )  # fmt: skip
    noisy, predicted, sampled = ((x - x_0).abs().square().mean() for x in (y, conditions.end, result))
    assert score_term < 0.4 * 0.5 * 16 * 8  # what a network without weights leaves of the noise
    assert predicted < 0.1 * noisy
    assert sampled < 0.75 * noisy
