"""What one GPU reaches with the published networks: training steps, sampling of a test set, memory.

    python benchmarks/gpu.py [--networks m1 sgmse_m edm2se] [--out benchmarks/results/gpu.json]
    python benchmarks/gpu.py --checkpoint models/m5.vbd --files data/vbd/mixtures   # both precisions, by score
    python benchmarks/gpu.py --tiny --device cpu --out FILE                         # does the script work?

Training: batch 16 of 256 frames, a step is draw, loss, backward, Adam and average; as published (float32 with
TF32 products) and in bfloat16, compiled too. Sampling: one test set of random noise of 1.5 to 6 s, with the
same number of network evaluations; as published (one file at a time, TF32), batched by length, in bfloat16,
compiled. Compiling is timed apart and not counted. Every time ends with a synchronisation; the share of the
peak is that of a large bfloat16 matrix product measured here.
"""

import argparse
import dataclasses
import functools
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from networks import macs
from systems import waken, with_scales

from diffse import compiling, ema, precision, recipes, settings, storage
from diffse.data import manifest, shards
from diffse.enhancer import Enhancer
from diffse.metrics.score import score_pair
from diffse.networks.recomputation import recompute
from diffse.presets import table
from diffse.settings_reader import build

RESULT = Path(__file__).parent / "results" / "gpu.json"
EVALUATIONS = 6


@dataclasses.dataclass(frozen=True)
class Way:
    """How a network computes."""

    precision: str = "float32"
    compile: bool = False
    recompute: bool = False
    batch: int | None = None  # of sampling; None: the setting's


TRAINING = {
    "as published": Way(),
    "bfloat16": Way("bfloat16"),
    "bfloat16, compiled": Way("bfloat16", compile=True),
    "bfloat16, recomputing": Way("bfloat16", recompute=True),
}
SAMPLING = {
    "as published": Way(batch=1),
    "batched": Way(),
    "batched, bfloat16": Way("bfloat16"),
    "batched, bfloat16, compiled": Way("bfloat16", compile=True),
}


def runnable(ways: dict[str, Way], device: torch.device) -> dict[str, Way]:
    """The ways as they are; on a CPU without bfloat16 units in float32, which tries the script all the same."""
    if has_bfloat16(device):
        return ways
    return {name: dataclasses.replace(way, precision="float32") for name, way in ways.items()}


def has_bfloat16(device: torch.device) -> bool:
    return device.type != "cpu" or precision.cpu_has_bfloat16()


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    batch: int
    frames: int
    files: int
    seconds: tuple[float, float]
    rounds: int
    matrix: int
    suffix: str = ""  # of the presets


FULL = Size(batch=16, frames=256, files=64, seconds=(1.5, 6.0), rounds=5, matrix=8192)
TINY = Size(batch=2, frames=64, files=3, seconds=(0.5, 0.8), rounds=1, matrix=512, suffix="_small")


def load(name: str) -> tuple[settings.Train, settings.Enhance]:
    entry = table()[name].value
    return with_scales(build(settings.Train, entry["train"])), build(settings.Enhance, entry["enhance"])


def network_of(train: settings.Train, way: Way, device: torch.device, fixed_size: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    network = recipes.build_network(train, train.stft or settings.Stft())
    waken(network)
    network = network.to(device)
    if way.recompute:
        recompute(network)
    if way.compile:
        compiling.compile_(network, fixed_size)
    return network


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(action: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    began = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - began


def peak(size: Size, device: torch.device) -> float:
    """Multiply-accumulates per second of a bfloat16 matrix product, in billions."""
    a = torch.randn(size.matrix, size.matrix, device=device, dtype=torch.bfloat16)
    a @ a
    return size.matrix**3 / 1e9 / min(seconds(lambda: a @ a, device) for _ in range(10))


def spread(values: list[float], digits: int = 4) -> dict[str, float]:
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


# ---------------------------------------------------------------------------------------------- training


def training_step(train: settings.Train, way: Way, size: Size, device: torch.device) -> Callable[[], None]:
    network = network_of(train, way, device, fixed_size=True)
    objective = recipes.build_objective(train, train.stft or settings.Stft(), network)
    trainable = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=0.0, fused=way != TRAINING["as published"])
    average = ema.EMA(network, 0.999)
    bins = (train.stft or settings.Stft()).n_fft // 2 + 1
    shape = (size.batch, 1, bins, size.frames)
    x_0, y = (torch.randn(shape, dtype=torch.complex64, device=device) for _ in range(2))

    def step() -> None:
        t = torch.rand(size.batch, device=device) * 0.9 + 0.05
        with precision.autocast(device, way.precision):
            loss = objective.loss(x_0, y, t, torch.randn_like(x_0)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if hasattr(network, "normalise_weights_"):
            network.normalise_weights_()
        average.update(network)

    return step


def train_ways(name: str, size: Size, device: torch.device, best: float) -> dict:
    train, _ = load(name)
    x = torch.randn(1, 1, (train.stft or settings.Stft()).n_fft // 2 + 1, size.frames, dtype=torch.complex64)
    gmac = macs(network_of(train, Way(), torch.device("cpu"), True), x)
    found = {}
    for way_name, way in runnable(TRAINING, device).items():  # one network at a time: they need the memory
        step = training_step(train, way, size, device)
        first = seconds(step, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        step()
        times = [seconds(step, device) for _ in range(4 * size.rounds)]
        memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
        share = 3 * gmac * size.batch / statistics.median(times) / best
        found[way_name] = {
            "step_s": spread(times), "first_step_s": round(first, 2), "peak_memory_gib": memory,
            "share_of_bf16_peak": round(share, 3),
        }  # fmt: skip
        del step
    slow = found["as published"]["step_s"]["median"]
    for row in found.values():
        row["times_as_published"] = round(slow / row["step_s"]["median"], 2)
    return {"gmac_per_example": gmac, "ways": found}


# ---------------------------------------------------------------------------------------------- sampling


def system_of(name: str, way: Way, device: torch.device) -> recipes.System:
    train, enhance = load(name)
    sampler = settings.Multistep(steps=EVALUATIONS)
    enhance = dataclasses.replace(enhance, sampler=sampler, precision=way.precision)
    network = network_of(train, way, device, fixed_size=False)
    return recipes.assemble(train, train.stft or settings.Stft(), enhance, network, {"recipe": name})


def sample_ways(name: str, size: Size, device: torch.device) -> dict:
    rng = np.random.default_rng(0)
    lengths = np.sort(rng.uniform(*size.seconds, size.files))
    waves = [0.1 * rng.standard_normal(int(16000 * s)).astype(np.float32) for s in lengths]
    keys = [f"{number}" for number in range(len(waves))]
    found: dict[str, dict] = {}
    for way_name, way in runnable(SAMPLING, device).items():
        enhancer = Enhancer(system_of(name, way, device), device, batch=way.batch or 16)
        run = functools.partial(enhancer.many, waves, 16000, keys)
        first = seconds(run, device)
        times = [seconds(run, device) for _ in range(size.rounds)]
        audio = [float(lengths.sum() / t) for t in times]
        found[way_name] = {"audio_s_per_s": spread(audio, 3), "first_pass_s": round(first, 2)}
    slow = found["as published"]["audio_s_per_s"]["median"]
    for row in found.values():
        row["times_as_published"] = round(row["audio_s_per_s"]["median"] / slow, 2)
    return {"evaluations": EVALUATIONS, "files": size.files, "ways": found}


def score_ways(checkpoint: Path, files: Path, device: str) -> dict:
    """Mean PESQ and SI-SDR of the test split in both precisions, and the largest difference of a file."""
    rows = manifest.read(files).query("split == 'test'").to_dict("records")
    pairs = [shards.read_pair(files, row) for row in rows]
    rate, names = int(rows[0]["rate"]), ("pesq", "si_sdr")
    scores: dict[str, list[dict]] = {}
    for kind in ("float32", "bfloat16"):
        enhancer = Enhancer.from_checkpoint(checkpoint, device, precision=kind)
        waves = enhancer.many([noisy for _, noisy in pairs], rate, [row["id"] for row in rows])
        scores[kind] = [score_pair(c, n, w, rate, names) for (c, n), w in zip(pairs, waves, strict=True)]
    found = {}
    for name in names:
        a, b = (np.array([score[name] for score in scores[kind]]) for kind in ("float32", "bfloat16"))
        found[name] = {
            "float32": float(np.nanmean(a)), "bfloat16": float(np.nanmean(b)),
            "difference_of_means": float(np.nanmean(b) - np.nanmean(a)),
            "largest_of_a_file": float(np.nanmax(np.abs(b - a))),
        }  # fmt: skip
    return {"checkpoint": checkpoint.name, "files": len(rows), "scores": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["m1", "sgmse_m", "edm2se"], metavar="PRESET")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and sizes, which measure nothing")
    parser.add_argument("--checkpoint", type=Path, help="compare both precisions by score instead")
    parser.add_argument("--files", type=Path, help="mixtures to score it on")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    device, size = torch.device(args.device), TINY if args.tiny else FULL
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here; nothing was measured (--tiny --device cpu tries the script)")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    about = {"card": card, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    if args.checkpoint:
        print(found := score_ways(args.checkpoint, args.files, args.device))
        storage.write_json(args.out.with_name(f"{args.out.stem}_scores.json"), about | found)
        return
    if not has_bfloat16(device):
        about["bfloat16_rows"] = "float32: this CPU has no units for bfloat16"
        print(f"bfloat16 rows are {about['bfloat16_rows']}")
    best = peak(size, device)
    rows = {}
    for name in args.networks:
        rows[name] = {
            "training": train_ways(name + size.suffix, size, device, best),
            "sampling": sample_ways(name + size.suffix, size, device),
        }
        for part, found in rows[name].items():
            for way, row in found["ways"].items():
                print(f"{name}, {part}, {way}: {row}", flush=True)
    storage.write_json(args.out, about | {"bf16_peak_gmac_per_s": best, "networks": rows})


if __name__ == "__main__":
    main()
