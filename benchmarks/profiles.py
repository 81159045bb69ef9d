"""Where the time of each stage goes: its top costs, by share, on one thread of a CPU.

    python benchmarks/profiles.py [--stages forward train ...] [--out benchmarks/results/profiles.json]

Networks (NCSN++ at published size, 64 frames; a bridge sampled in its small form) run under torch's profiler,
which counts each operator without those that it calls. The other stages run under Python's profiler, which
counts each function without those that it calls, C functions of libraries among them; it makes Python code
about twice as slow and leaves C code as it is, so that shares of Python functions are upper bounds.
"""

import argparse
import cProfile
import os
import platform
import pstats
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import data_path
import mixing
import networks
import numpy as np
import torch
from systems import waken

from diffse import pages, paths, presets, recipes, settings, storage
from diffse.data.batches import cached_crops
from diffse.enhancer import Enhancer
from diffse.metrics.score import score_pair
from diffse.settings_reader import build

RESULT = Path(__file__).parent / "results" / "profiles.json"
TOP = 8
Costs = dict[str, float]  # name -> seconds


def operators(work: Callable[[], object]) -> Costs:
    """Seconds of each of torch's operators, and of all else as 'outside operators'."""
    from torch.profiler import ProfilerActivity, profile

    work()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    return {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}


def functions(work: Callable[[], object]) -> Costs:
    """Seconds of each function by itself."""
    work()
    profile = cProfile.Profile()
    profile.runcall(work)
    found: Costs = {}
    for (file, _, name), (*_, own, _, _) in pstats.Stats(profile).stats.items():
        place = Path(file)
        label = name if file == "~" else f"{place.parent.name}/{place.name}: {name}"
        found[label] = found.get(label, 0.0) + own
    return found


# ------------------------------------------------------------------------------------------- the stages


def forward() -> Costs:
    """One forward pass of NCSN++."""
    step, x = network_step()
    return operators(lambda: step.forward(x))


def train() -> Costs:
    """One training step of NCSN++: forward, backward, Adam and average."""
    step, x = network_step()
    return operators(lambda: step.train(x))


def network_step() -> tuple[networks.Step, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 256, 64, dtype=torch.complex64, generator=generator)
    return networks.Step(networks.network_of("ncsnpp"), fused=True), x


def sampling() -> Costs:
    """A recording of 4 s enhanced by the small bridge in five steps: transforms and sampler included."""
    node = presets.table()["m5_small"].value
    train, enhance = build(settings.Train, node["train"]), build(settings.Enhance, node["enhance"])
    network = recipes.build_network(train, settings.Stft())
    waken(network)
    enhancer = Enhancer(recipes.assemble(train, settings.Stft(), enhance, network, {}))
    (wave,) = data_path_waves(1)
    return operators(lambda: enhancer(wave.astype(np.float32), mixing.RATE, "a"))


def crops() -> Costs:
    """400 training crops from the cache."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data_path.write_corpus(root, 40, 4.0)
        data_path.build(root, "spectrogram")
        frames, factor = data_path.FRAMES, data_path.FACTOR
        source = cached_crops(paths.cache(root, "bench"), "train", frames, factor, 0, settings.Stft())
        return functions(lambda: data_path.read_all(source, 400 // data_path.BATCH))


def mixtures() -> Costs:
    """300 mixtures of 4 s in one process."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        mixing.write_sources(paths.source(root, "bench"))
        return functions(lambda: mixing.mix(root, 5, 1))


def evaluation() -> Costs:
    """PESQ, ESTOI, SI-SDR, SI-SIR, SI-SAR and DNSMOS of six recordings of 4 s."""
    metrics = ("pesq", "estoi", "si_sdr", "si_sir", "si_sar", "dnsmos")
    rng = np.random.default_rng(1)
    pairs = [(wave, wave + 0.02 * rng.standard_normal(len(wave))) for wave in data_path_waves(6)]

    def work() -> None:
        for clean, noisy in pairs:
            score_pair(clean, noisy, 0.5 * (clean + noisy), mixing.RATE, metrics)

    return functions(work)


def data_path_waves(count: int) -> list[np.ndarray]:
    """Noise under a syllable-like envelope, 4 s each."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(int(mixing.SECONDS * mixing.RATE)) / mixing.RATE
    envelope = np.abs(np.sin(2 * np.pi * 3 * time_axis))
    return [0.1 * envelope * rng.standard_normal(len(time_axis)) for _ in range(count)]


STAGES: dict[str, Callable[[], Costs]] = {
    "forward": forward,
    "train": train,
    "sampling": sampling,
    "crops": crops,
    "mixtures": mixtures,
    "evaluation": evaluation,
}


def measure(stage: str) -> dict:
    began = time.perf_counter()
    costs = STAGES[stage]()
    total = sum(costs.values())
    first = sorted(costs.items(), key=lambda item: -item[1])[:TOP]
    return {
        "what": STAGES[stage].__doc__,
        "seconds": total,
        "top": {name: seconds / total for name, seconds in first},
        "rest": 1.0 - sum(seconds for _, seconds in first) / total,
        "wall_s": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pages.keep()
    result = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__},
        "load_before": os.getloadavg()[0],
        "stages": {},
    }
    for stage in args.stages:
        result["stages"][stage] = row = measure(stage)
        print(f"{stage}: {row['what']} {row['seconds']:.2f} s")
        for name, share in row["top"].items():
            print(f"  {share:6.1%}  {name}")
        print(f"  {row['rest']:6.1%}  all else", flush=True)
    storage.write_json(args.out, result)


if __name__ == "__main__":
    main()
