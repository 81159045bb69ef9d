"""Non-negative matrix factorisation of noise power: what its definition and its users demand."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffse import nmf


def complex_noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def drawing(like: Tensor) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda: torch.randn(like.shape, dtype=like.dtype, generator=generator)


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def factors(rank: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Power P of structured noise and a random start W, H, for 2 files."""
    generator = torch.Generator().manual_seed(0)
    W, H = (torch.rand(shape, generator=generator) for shape in ((2, 1, 16, rank), (2, 1, rank, 20)))
    power = (W @ H).roll(3, -2) * complex_noise(2, 1, 16, 20).abs().square() + 1e-6
    return power, W, H


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("added", [False, True])
def test_update_never_raises_the_divergence(exponent, added):
    P, W, H = factors()
    speech = torch.rand(P.shape, generator=torch.Generator().manual_seed(1)) * 0.2 if added else None
    values = []
    for _ in range(60):
        values.append(nmf.divergence(P, W @ H + (0 if speech is None else speech)))
        W, H = nmf.update(P, W, H, speech, exponent)
    assert all((after <= before * (1 + 1e-5)).all() for before, after in pairwise(values))
    assert (values[-1] < 0.8 * values[0]).all()
    assert torch.allclose(W.sum(-2), torch.ones(2, 1, 3))


def test_divergence_of_a_perfect_model_is_zero_and_the_slopes_are_its_gradient():
    P, W, H = factors()
    V = (W @ H).requires_grad_()
    assert float(nmf.divergence(P, P).abs().max()) < 1e-4
    (gradient,) = torch.autograd.grad(nmf.divergence(P, V).sum(), V)
    numerator, denominator = nmf.slopes(P, V.detach())
    assert relative(denominator - numerator, gradient) < 1e-4


def test_samples_of_added_power_are_averaged_and_equal_ones_change_nothing():
    P, W, H = factors()
    speech = torch.rand(2, *P.shape, generator=torch.Generator().manual_seed(1))
    once = nmf.update(P, W, H, speech[0])
    twice = nmf.update(P, W, H, torch.stack([speech[0], speech[0]]))
    mixed = nmf.update(P, W, H, speech)
    assert torch.allclose(once[0], twice[0], rtol=1e-5)
    assert not torch.allclose(once[0], mixed[0], rtol=1e-3)


def test_zero_power_leaves_the_factors_finite():
    """Frames of padding have none at all."""
    P, W, H = factors()
    P[..., 10:] = 0
    for _ in range(200):
        W, H = nmf.update(P, W, H)
    assert torch.isfinite(W @ H).all()
    assert (H > 0).all() and (W > 0).all()


def test_initial_factors_are_uniform_and_made_for_any_size():
    like = torch.zeros(2, 1, 64, 50, dtype=torch.complex64)
    W, H = nmf.initial(drawing(like), rank=40)
    assert W.shape == (2, 1, 64, 40) and H.shape == (2, 1, 40, 50)
    for values in (W, H):
        quantiles = torch.quantile(values.flatten(), torch.tensor([0.1, 0.5, 0.9]))
        assert torch.allclose(quantiles, torch.tensor([0.1, 0.5, 0.9]), atol=0.04)
    W, H = nmf.initial(drawing(torch.zeros(2, 1, 6, 2, dtype=torch.complex64)), rank=7)
    assert W.shape == (2, 1, 6, 7) and H.shape == (2, 1, 7, 2)
    assert not torch.equal(W[..., 0], W[..., 2])  # columns beyond one draw are new ones
