"""bfloat16 where the machine has units for it, and never by itself on a CPU."""

import warnings

import numpy as np
import pytest
import soundfile
import torch
from test_enhancer import make_checkpoint
from tiny import voice

from diffse import cli, precision
from diffse.enhancer import Enhancer
from diffse.errors import DiffseError

CPU = torch.device("cpu")
needs_units = pytest.mark.skipif(not precision.cpu_has_bfloat16(), reason="this CPU has no bfloat16 units")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("model"))


def dtype_inside(context) -> torch.dtype:
    a = torch.ones(4, 4)
    with context:
        return (a @ a).dtype


@pytest.mark.parametrize("name", ["auto", "float32"])
def test_a_cpu_computes_in_single_precision_by_itself(name):
    assert dtype_inside(precision.autocast(CPU, name)) == torch.float32


def test_auto_is_bfloat16_on_a_gpu():
    with warnings.catch_warnings(action="ignore"):  # where there is none, torch says so
        context = precision.autocast(torch.device("cuda"), "auto")
    assert (context.device, context.fast_dtype) == ("cuda", torch.bfloat16)


def test_a_cpu_without_units_is_told_so(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    with pytest.raises(DiffseError, match="no units for it"):
        Enhancer.from_checkpoint(folder, "cpu", precision="bfloat16")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noisy").mkdir()
    soundfile.write(tmp_path / "noisy/a.wav", voice(1, 0.5), 16000)
    options = ["--checkpoint", str(folder), "--precision", "bfloat16", "--device", "cpu"]
    code = cli.main(["enhance", "noisy", "out", *options])
    assert code == 2
    assert capsys.readouterr().err.startswith("diffse: precision is bfloat16, but this CPU")


@needs_units
def test_half_the_digits_change_the_result_a_little_and_no_more(folder):
    wave = voice(1, 0.5)
    exact = Enhancer.from_checkpoint(folder, "cpu")(wave, 16000)
    near = Enhancer.from_checkpoint(folder, "cpu", precision="bfloat16")(wave, 16000)
    apart = np.linalg.norm(near - exact) / np.linalg.norm(exact)
    assert near.dtype == np.float32
    assert 1e-5 < apart < 0.05


@needs_units
def test_bfloat16_is_the_same_batched_and_alone(folder):
    enhancer = Enhancer.from_checkpoint(folder, "cpu", precision="bfloat16")
    waves = [voice(1, 0.5), voice(2, 0.5)]
    together = enhancer.many(waves, 16000, ["a", "b"])
    for wave, key, expected in zip(waves, "ab", together, strict=True):
        np.testing.assert_allclose(enhancer(wave, 16000, key), expected, atol=0.02 * np.abs(expected).max())
