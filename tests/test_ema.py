"""Moving average of the weights: the published rule, and taking it up again."""

import pytest
import torch
from torch import nn

from diffse.ema import EMA


def walk(network: nn.Linear, updates: int, decay: float) -> tuple[EMA, list[torch.Tensor]]:
    """An average over `updates` random steps of a network, and all the weights that it has seen."""
    ema, seen = EMA(network, decay), [network.weight.detach().clone()]
    for _ in range(updates):
        with torch.no_grad():
            network.weight += torch.randn_like(network.weight)
        ema.update(network)
        seen.append(network.weight.detach().clone())
    return ema, seen


@pytest.mark.parametrize("updates", [1, 2, 30])
def test_early_averages_follow_the_published_warm_up(updates):
    """With decay (1 + n) / (10 + n) after n updates; an exact sum, written without the recursion."""
    network = nn.Linear(3, 2).double()
    ema, seen = walk(network, updates, 0.999)
    rates = [(1 + n) / (10 + n) for n in range(1, updates + 1)]
    expected = torch.stack(shares(rates)) @ torch.stack(seen).flatten(1)
    assert torch.allclose(ema.shadow["weight"].flatten(), expected, rtol=1e-12)


def shares(rates: list[float]) -> list[torch.Tensor]:
    """Share of each of the weights seen: its own (1 - rate) times all later rates."""
    decays = torch.tensor([0.0, *rates], dtype=torch.float64)
    return [(1 - decays[i]) * decays[i + 1 :].prod() for i in range(len(decays))]


def test_late_averages_have_the_decay_asked_for():
    """(1 + n) / (10 + n) passes 0.5 after 8 updates; from then on the decay is 0.5."""
    network = nn.Linear(3, 2).double()
    ema, seen = walk(network, 40, 0.5)
    before = ema.shadow["weight"].clone()
    ema.update(network)
    assert torch.allclose(ema.shadow["weight"], 0.5 * before + 0.5 * seen[-1], rtol=1e-12)


def test_saved_average_continues_and_goes_into_a_network(tmp_path):
    network = nn.Linear(3, 2)
    ema, _ = walk(network, 5, 0.999)
    torch.save(ema.state_dict(), tmp_path / "ema.pt")
    other = EMA(nn.Linear(3, 2), 0.1)
    other.load_state_dict(torch.load(tmp_path / "ema.pt", weights_only=True))
    for average in (ema, other):
        average.update(network)
    target = nn.Linear(3, 2)
    other.copy_to(target)
    assert torch.equal(target.weight, ema.shadow["weight"])
    assert not torch.equal(target.weight, network.weight)
