"""Forward pass and training step of the three published networks on a CPU, next to their plain form.

    python benchmarks/networks.py [--networks ncsnpp ncsnppm mp_adm] [--frames 256] [--rounds 2] [--out FILE]

Published size, batch 1, one thread. The plain form (`reference/networks.py`) has the same weights; it runs with
the C library's own way to give memory back and direct convolutions, diffse with `pages.keep()`, Winograd's
algorithm where the CPU gains by it, and its forward pass with the order of memory that `Enhancer` gives a
network. Both take turns in one process, so that a busy machine slows both. Times are CPU times; ratios are
medians over rounds. Before, outputs and gradients are compared. Then the bytes that autograd holds for the
backward pass, with and without `recompute`, and, on a CPU with units for it, the forward pass in bfloat16 as
`enhance.precision: bfloat16` runs it.
"""

import argparse
import contextlib
import copy
import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from reference.networks import plain, resampling_plainly
from torch import Tensor, nn

from diffse import costs, ema, pages, recipes, settings, storage, winograd
from diffse.networks.recomputation import recompute
from diffse.precision import autocast, cpu_has_bfloat16
from diffse.presets import table
from diffse.settings_reader import build

RESULT = Path(__file__).parent / "results" / "networks.json"
PRESETS = {"ncsnpp": "m1", "ncsnppm": "sgmse_m", "mp_adm": "edm2se"}
TOLERANCE = 2e-5  # of output and gradients, relative; one convolution by Winograd's algorithm differs by 5e-6
GMAC_PER_S_SIZE = 2048


def network_of(name: str) -> nn.Module:
    """The network of a preset, with values where its weights start at zero."""
    train = build(settings.Train, table()[PRESETS[name]].value["train"])
    torch.manual_seed(0)
    network = recipes.build_network(train, train.stft or settings.Stft())
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad and parameter.abs().max() < 1e-3:
                parameter.normal_(0, 0.02)
    return network


class Step:
    """Forward pass and training step (loss, backward, Adam, average) of one network."""

    def __init__(self, network: nn.Module, fused: bool) -> None:
        self.network, self.average = network, ema.EMA(network, 0.999)
        trainable = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trainable, lr=0.0, fused=fused)  # the weights stay comparable

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.network(x, x, torch.full((len(x),), 0.5))

    def backward(self, x: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.network(x, x, torch.full((len(x),), 0.5)).abs().square().mean().backward()

    def train(self, x: Tensor) -> None:
        self.backward(x)
        self.optimizer.step()
        self.average.update(self.network)


@contextlib.contextmanager
def pages_given_back() -> Iterator[None]:
    """Inside, glibc works as it does by itself."""
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(-4, 65536), mallopt(-1, 128 * 1024), mallopt(-2, 128 * 1024)
    ctypes.CDLL(None).malloc_trim(0)
    try:
        with resampling_plainly():
            yield
    finally:
        pages.keep()


def measure(name: str, frames: int, rounds: int) -> dict:
    network = network_of(name)
    x = torch.randn(1, 1, 256, frames, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    ours, other = Step(network, fused=True), Step(plain(network), fused=False)
    serving = Step.__new__(Step)
    serving.network = copy.deepcopy(ours.network).to(memory_format=winograd.memory_format(ours.network))
    agreement = agree(name, ours, serving, other, x)
    row = {"parameters": recipes.count_parameters(network), "agreement": agreement}
    row["gmac"] = macs(network, x)
    row["forward"] = take_turns(serving.forward, other.forward, x, rounds)
    row["train"] = take_turns(ours.train, other.train, x, rounds)
    if cpu_has_bfloat16():
        row["forward_bfloat16"] = in_bfloat16(serving, other, x, rounds)
    row["held_mb"] = held(ours, x)
    recompute(network)
    row["held_recomputing_mb"] = held(ours, x)
    row["recomputing_over_keeping"] = cpu(ours.train, x) / row["train"]["ours_s"]["median"]
    return row


def agree(name: str, ours: Step, serving: Step, other: Step, x: Tensor) -> dict[str, float]:
    """Relative distances of outputs and gradients; SystemExit beyond the tolerance."""
    with resampling_plainly():
        expected = other.forward(x)
        other.backward(x)
    found = {"output": max(distance([step.forward(x)], [expected]) for step in (ours, serving))}
    ours.backward(x)
    gradients = ([p.grad for p in step.network.parameters() if p.grad is not None] for step in (ours, other))
    found["gradients"] = distance(*gradients)
    if max(found.values()) > TOLERANCE:
        raise SystemExit(f"{name}: plain and own form differ by {found}; nothing can be compared")
    return found


def distance(own: list[Tensor], other: list[Tensor]) -> float:
    apart = sum(float((a - b).abs().square().sum()) for a, b in zip(own, other, strict=True))
    return (apart / sum(float(b.abs().square().sum()) for b in other)) ** 0.5


def in_bfloat16(serving: Step, other: Step, x: Tensor, rounds: int) -> dict:
    """Times of both forms' forward passes, ours in bfloat16, and how far its output is from float32's."""

    def forward(x: Tensor) -> Tensor:
        with autocast(torch.device("cpu"), "bfloat16"):
            return serving.forward(x)

    found = take_turns(forward, other.forward, x, rounds)
    return found | {"from_float32": distance([forward(x)], [serving.forward(x)])}


def macs(network: nn.Module, x: Tensor) -> float:
    """Multiply-accumulates of one forward pass, in billions."""
    with costs.counter() as counted, torch.no_grad():
        network(x, x, torch.full((len(x),), 0.5))
    return counted.get_total_flops() / 2e9


def held(step: Step, x: Tensor) -> float:
    """Megabytes of features kept for the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in step.network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        stored = tensor.untyped_storage()
        if stored.data_ptr() not in weights:
            kept[stored.data_ptr()] = stored.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = step.network(x, x, torch.full((len(x),), 0.5))
    del out
    return sum(kept.values()) / 2**20


def cpu(action: Callable[[Tensor], object], x: Tensor) -> float:
    began = time.process_time()
    action(x)
    return time.process_time() - began


def take_turns(ours: Callable, other: Callable, x: Tensor, rounds: int) -> dict:
    """CPU seconds of both per round, and plain / ours; the first round of each does not count."""
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(rounds + 1):
        own = cpu(ours, x)
        with pages_given_back():
            plainly = cpu(other, x)
        if number:
            times["ours"].append(own)
            times["plain"].append(plainly)
    ratios = [b / a for a, b in zip(times["ours"], times["plain"], strict=True)]
    return {f"{name}_s": spread(values) for name, values in times.items()} | {"plain_over_ours": spread(ratios)}


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def peak() -> float:
    """Multiply-accumulates per second and thread of a large float32 matrix product, in billions."""
    a = torch.randn(GMAC_PER_S_SIZE, GMAC_PER_S_SIZE)
    seconds = min(cpu(lambda x: x @ x, a) for _ in range(5))
    return GMAC_PER_S_SIZE**3 / 1e9 / seconds


def line(name: str, row: dict, best: float) -> str:
    cells = [name, f"{row['gmac']:.0f}"]
    for part, times in (("forward", 1), ("train", 3)):
        found = row[part]
        ratio = found["plain_over_ours"]
        cells += [f"{found['ours_s']['median']:.2f}", f"{found['plain_s']['median']:.2f}"]
        cells.append(f"{ratio['median']:.2f} ({ratio['least']:.2f}-{ratio['most']:.2f})")
        cells.append(f"{times * row['gmac'] / found['ours_s']['median'] / best:.0%}")
    quick = row.get("forward_bfloat16")
    cells.append(f"{quick['plain_over_ours']['median']:.2f}" if quick else "no units")
    cells += [f"{row['held_mb']:.0f}", f"{row['held_recomputing_mb']:.0f}"]
    return "| " + " | ".join([*cells, f"{row['recomputing_over_keeping']:.2f}"]) + " |"


HEADER = (
    "| network | GMAC | forward: ours s | plain s | plain / ours | of the peak "
    "| training step: ours s | plain s | plain / ours | of the peak "
    "| forward in bfloat16: plain / ours | features held MB | recomputing MB | recomputing / keeping, time |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=PRESETS, default=list(PRESETS), metavar="NAME")
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load_before = os.getloadavg()[0]
    pages.keep()
    best, rows = max(peak() for _ in range(5)), {}
    print(f"peak: {best:.1f} GMAC/s on one thread", HEADER, "|---" * 14 + "|", sep="\n", flush=True)
    for name in args.networks:
        rows[name] = measure(name, args.frames, args.rounds)
        print(line(name, rows[name], best), flush=True)
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    setting = {"batch": 1, "frames": args.frames, "threads": 1, "rounds": args.rounds}
    about = {"setting": setting, "machine": machine, "load_before": load_before, "peak_gmac_per_s": best}
    storage.write_json(args.out, about | {"networks": rows})


if __name__ == "__main__":
    main()
