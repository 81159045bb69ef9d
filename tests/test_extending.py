"""docs/extending.md: a network of one's own is one file and one entry."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from diffse import recipes, settings, settings_reader, training
from diffse.enhancer import Enhancer
from diffse.errors import DiffseError


@dataclass(frozen=True)
class ConvSettings:
    name: Literal["conv"] = "conv"
    width: int = 4
    freq_bins: int = 256


class Conv(nn.Module):
    """Two convolutions."""

    def __init__(self, inputs: int = 2, width: int = 4, freq_bins: int = 256) -> None:
        super().__init__()
        self.freq_bins, self.frame_multiple = freq_bins, 1
        self.layers = nn.Sequential(
            nn.Conv2d(2 * inputs, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, 2, 3, padding=1)
        )

    def forward(self, x, y, t):
        z = torch.cat([x, y], 1)
        out = self.layers(torch.cat([z.real, z.imag], 1)) * t[:, None, None, None]
        return torch.complex(out[:, :1], out[:, 1:])


@pytest.fixture
def registered():
    recipes.register(ConvSettings, Conv)
    yield
    del recipes.NETWORKS[ConvSettings]
    settings_reader._ADDED.clear()


def test_a_new_network_trains_and_enhances(tmp_path, registered):
    params = tiny.make_project(tmp_path, train__bridge__network={"name": "conv", "width": 6})
    training.run(params, "bridge.toy", tmp_path)
    enhancer = Enhancer.from_checkpoint(tmp_path / "models/bridge.toy")
    assert isinstance(enhancer.system.network, Conv)
    noisy = tiny.voice(0, 0.5)
    assert np.isfinite(enhancer(noisy, 16000)).all()


def test_an_unknown_network_is_refused_with_the_known_names(tmp_path):
    with pytest.raises(DiffseError, match=r"network.*allowed: ncsnpp, mp_adm") as error:
        tiny.write_params(tmp_path, train__bridge__network={"name": "conv"})
    assert "params.yaml, line" in str(error.value)


def test_networks_that_settings_name_are_built(registered):
    assert {kind.name for kind in recipes.NETWORKS} >= {"ncsnpp", "mp_adm", "dcunet", "gagnet", "rvae", "conv"}
    assert settings.NCSNpp in recipes.NETWORKS
