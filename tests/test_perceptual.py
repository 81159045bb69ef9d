"""The PESQ term: what it says about sounds, and that nothing makes it NaN."""

import builtins
import itertools

import pytest
import torch
from tiny import voice
from torch import Tensor

from diffse import perceptual
from diffse.errors import DiffseError
from diffse.perceptual import WORST, pesq_loss

RATE, LENGTH = 16000, 127 * 128


def voices(length: int = LENGTH) -> Tensor:
    return torch.stack([torch.from_numpy(voice(seed, 1.1))[:length] for seed in range(2)])


def noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(0))


def judged(reference: Tensor, estimate: Tensor, rate: int = RATE) -> tuple[Tensor, Tensor]:
    """Loss and gradient with respect to the estimate."""
    estimate = estimate.clone().requires_grad_()
    loss = pesq_loss(reference, estimate, rate)
    loss.sum().backward()
    return loss.detach(), estimate.grad


def test_loss_is_zero_for_equal_sounds_and_grows_with_the_noise():
    clean = voices()
    losses = [pesq_loss(clean, clean + amount * noise(clean), RATE) for amount in (0, 2e-4, 5e-4, 2e-3)]
    assert losses[0].shape == (2,)
    assert float(losses[0].max()) < 1e-6
    for quieter, louder in itertools.pairwise(losses):
        assert (louder > quieter + 0.1).all()
    assert float(losses[-1].max()) <= WORST + 1e-5


def test_levels_do_not_matter():
    clean = voices()
    estimate = clean + 1e-3 * noise(clean)
    expected = pesq_loss(clean, estimate, RATE)
    assert torch.allclose(pesq_loss(clean, 0.05 * estimate, RATE), expected, rtol=1e-2)
    assert torch.allclose(pesq_loss(0.05 * clean, 1e4 * estimate, RATE), expected, rtol=1e-2)


def test_a_step_against_the_gradient_improves_the_sound():
    clean = voices()
    estimate = clean + 1e-3 * noise(clean)
    loss, gradient = judged(clean, estimate)
    norm = gradient.norm(dim=1, keepdim=True)
    after = pesq_loss(clean, estimate - 1e-3 * gradient / norm, RATE)
    predicted = 1e-3 * norm[:, 0]
    assert (after < loss).all()
    assert torch.allclose(loss - after, predicted, rtol=0.3)


def test_an_example_does_not_depend_on_its_batch_however_silent_the_others_are():
    clean = voices()
    estimate = clean + 1e-3 * noise(clean)
    others = torch.zeros_like(clean)
    together, gradient = judged(torch.cat([others, clean, clean]), torch.cat([estimate, others, estimate]))
    alone, alone_gradient = judged(clean, estimate)
    assert torch.allclose(together[4:], alone, rtol=1e-3)
    assert torch.allclose(
        gradient[4:], alone_gradient, rtol=0.01, atol=0.01 * float(alone_gradient.abs().max())
    )
    assert torch.equal(together[:4], torch.tensor([0.0, 0.0, WORST, WORST]))
    assert not gradient[:4].any()


def with_silence(wave: Tensor) -> Tensor:
    """Digital silence from a third on, in which the package's filters ring down to denormal numbers."""
    return torch.where(torch.arange(wave.shape[1]) < wave.shape[1] // 3, wave, torch.zeros(()))


def impulse(wave: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(5000), wave.shape[1]).float().expand_as(wave)


def tone(wave: Tensor, frequency: float) -> Tensor:
    return torch.cos(2 * torch.pi * frequency / RATE * torch.arange(wave.shape[1])).expand_as(wave)


ESTIMATES = {
    "silent": torch.zeros_like,
    "inaudible": lambda wave: 1e-6 * wave,
    "partly silent": with_silence,
    "impulse": impulse,
    "offset": lambda wave: tone(wave, 0),
    "below the band": lambda wave: tone(wave, 20),
    "above the band": lambda wave: tone(wave, 7990),
    "huge": lambda wave: 1e6 * (wave + noise(wave)),
}


@pytest.mark.parametrize("other", ESTIMATES)
def test_no_estimate_or_reference_gives_anything_that_is_not_finite(other):
    clean = voices()
    strange = ESTIMATES[other](clean)
    for reference, estimate in ((clean, strange), (strange, clean), (strange, strange)):
        loss, gradient = judged(reference, estimate)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(gradient).all()
        assert float(gradient.abs().max()) < 1e3
        assert ((loss >= 0) & (loss <= WORST + 1e-5)).all()


def test_the_package_alone_gives_nan_where_the_guards_are():
    """Why they are needed: its loss of a silent signal, and its gradient where an estimate falls silent."""
    from torch_pesq import PesqLoss

    module, clean = PesqLoss(1.0, sample_rate=RATE), voices()
    assert module(clean, torch.zeros_like(clean)).isnan().all()
    estimate = with_silence(clean).requires_grad_()
    module(clean, estimate).sum().backward()
    assert estimate.grad.isnan().any()
    with pytest.raises(RuntimeError):  # fewer than 20 frames
        module(clean[:, :5000], clean[:, :5000])


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("length", [1, 300, 3968, 5376, 9000])
def test_short_crops_at_any_rate_have_a_loss(length, rate):
    clean = voices(length) + 0.01
    loss, gradient = judged(clean, clean + 0.02 * noise(clean), rate)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()
    if length >= 3968:
        assert float(loss.min()) > 0.1
        assert gradient.shape == clean.shape


def test_loss_built_without_gradients_serves_training():
    """The package's tables are kept; tables born in inference mode would refuse a later backward pass."""
    perceptual._module.cache_clear()
    clean = voices()
    with torch.inference_mode():
        pesq_loss(clean, clean + 1e-3 * noise(clean), RATE)
    _, gradient = judged(clean, clean + 1e-3 * noise(clean))
    assert float(gradient.abs().max()) > 0
    assert perceptual._module.cache_info().misses == 1


def test_mixed_precision_around_it_changes_nothing():
    clean = voices()
    estimate = clean + 1e-3 * noise(clean)
    expected = pesq_loss(clean, estimate, RATE)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(pesq_loss(clean, estimate, RATE), expected, rtol=1e-4)


def test_a_missing_package_is_named(monkeypatch):
    perceptual._module.cache_clear()
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "torch_pesq":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    clean = voices()
    with pytest.raises(DiffseError, match=r"torch-pesq.*diffse\[train\]"):
        pesq_loss(clean, clean, RATE)


@pytest.mark.gpu
def test_gpu_gives_what_the_cpu_gives():
    clean = voices()
    estimate = clean + 1e-3 * noise(clean)
    expected, expected_gradient = judged(clean, estimate)
    loss, gradient = judged(clean.cuda(), estimate.cuda())
    assert torch.allclose(loss.cpu(), expected, rtol=1e-2)
    assert float((gradient.cpu() - expected_gradient).norm() / expected_gradient.norm()) < 0.02
