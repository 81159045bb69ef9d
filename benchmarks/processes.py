"""What a second process gains: data-parallel training, and a folder's enhancement in shards.

    python benchmarks/processes.py [--presets m5_small edm2se_small] [--rounds 3] [--out FILE]

Training: every process has its own batch of two, one thread and the trainer's own step; "averaged" is what
torchrun does (gradients averaged over gloo), "apart" the same processes without a word between them, which
shows what the machine itself gives to two. Enhancement: `diffse enhance` of 8 recordings of 4 s, in one
process and in shards 1/2 and 2/2 at once, start of the programs included. Times are wall times, ways take
turns; the summed rate of two over that of one would be 2 on a machine that shares nothing.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from enhancement_memory import make_audio, make_checkpoint
from systems import batch, load, summary, trainer_of

from diffse import pages, recipes
from diffse.distributed import Processes
from diffse.storage import write_json
from diffse.training import Loss

RESULT = Path(__file__).parent / "results" / "processes.json"
STEPS, FILES, FILE_SECONDS = 8, 8, 4
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


# ------------------------------------------------------------------------------------- inside a process


def work(preset: str) -> None:
    """Train a few steps and print, in the first process, their rate and what averaging costs by itself."""
    train, stft, _ = load(preset.removesuffix("_small"))
    pages.keep()
    with Processes(1) as processes:
        trainer = trainer_of(train, stft)
        trainer.processes = processes
        trainer.loss = processes.wrap(Loss(trainer.state.network, trainer.loss.objective))
        x_0, y = batch(train, stft)
        data = {"clean": x_0, "noisy": y, "k": torch.arange(len(x_0)), "ids": ["a", "b"]}
        trainer._step(data)  # makes the optimiser's state and the buckets
        processes.barrier()
        began = time.perf_counter()
        for _ in range(STEPS):
            trainer._step(data)
        processes.barrier()
        seconds = (time.perf_counter() - began) / STEPS
        found = {"step_s": seconds, "gradient_mb": 4 * recipes.count_parameters(trainer.state.network) / 1e6}
        if processes.world > 1:
            found["averaging_alone_s"] = averaging(round(found["gradient_mb"] * 1e6 / 4))
        if processes.rank == 0:
            print(json.dumps(found), flush=True)


def averaging(parameters: int) -> float:
    """Seconds of one average of so many numbers over the processes."""
    values = torch.ones(parameters)
    dist.all_reduce(values)
    began = time.perf_counter()
    for _ in range(STEPS):
        dist.all_reduce(values)
    return (time.perf_counter() - began) / STEPS


# ------------------------------------------------------------------------------------- around processes


def started(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD)


def ended(processes: list[subprocess.Popen]) -> list[str]:
    """What they printed; SystemExit where one failed."""
    printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a process failed; see above")
    return printed


def training(preset: str, rounds: int) -> dict:
    """Batches of all processes per second, way by way, round by round."""
    worker = [str(Path(__file__)), "--work", preset]
    ways = {
        "one": [[sys.executable, *worker]],
        "two, averaged": [[*TORCHRUN, "--nproc_per_node=2", *worker]],
        "two, apart": [[sys.executable, *worker]] * 2,
    }
    rates, described = {way: [] for way in ways}, {}
    for _ in range(rounds):
        for way, commands in ways.items():
            found = [json.loads(printed) for printed in ended([started(command) for command in commands])]
            described |= found[0]
            processes = 2 if way != "one" else 1
            rates[way].append(processes / statistics.mean(one["step_s"] for one in found))
    return {
        "gradient_mb": round(described["gradient_mb"], 2),
        "averaging_alone_ms": round(1e3 * described["averaging_alone_s"], 2),
        "batches_per_s": {way: summary(values, 3) for way, values in rates.items()},
        "over_one": ratios(rates, "one"),
    }


def ratios(rates: dict[str, list[float]], base: str) -> dict[str, dict]:
    """Rates of the other ways over those of `base`, round by round."""
    return {
        way: summary([a / b for a, b in zip(values, rates[base], strict=True)])
        for way, values in rates.items()
        if way != base
    }


def enhancement(rounds: int) -> dict:
    """Recordings per second, one process and two shards."""
    rates: dict[str, list[float]] = {"one": [], "two shards": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, source = make_checkpoint(folder / "model"), folder / "in"
        source.mkdir()
        for number in range(FILES):
            make_audio(source / f"{number:02}.wav", FILE_SECONDS)
        for number in range(rounds):
            for way, shards in {"one": ["1/1"], "two shards": ["1/2", "2/2"]}.items():
                target = folder / f"out-{number}-{len(shards)}"
                options = ["--checkpoint", str(model), "--device", "cpu", "--steps", "5"]
                command = [sys.executable, "-m", "diffse", "enhance", str(source), str(target), *options]
                began = time.perf_counter()
                ended([started([*command, "--shard", shard]) for shard in shards])
                rates[way].append(FILES / (time.perf_counter() - began))
                if len(list(target.glob("*.wav"))) != FILES:
                    raise SystemExit("recordings are missing")
    files = {way: summary(values, 3) for way, values in rates.items()}
    return {"files_per_s": files, "over_one": ratios(rates, "one")}


def lines(result: dict) -> list[str]:
    table = ["| what | one process | way | two processes | over one |", "|---|---|---|---|---|"]
    rows = {f"{name}, batches a second": row["batches_per_s"] for name, row in result["training"].items()}
    rows["enhancement, recordings a second"] = result["enhancement"]["files_per_s"]
    over = [row["over_one"] for row in [*result["training"].values(), result["enhancement"]]]
    for (name, rates), found in zip(rows.items(), over, strict=True):
        for way, ratio in found.items():
            spread = f"{ratio['median']:.2f} ({ratio['least']:.2f}-{ratio['most']:.2f})"
            cells = [name, f"{rates['one']['median']:.2f}", way, f"{rates[way]['median']:.2f}", spread]
            table.append(f"| {' | '.join(cells)} |")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["m5_small", "edm2se_small"], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--work", metavar="PRESET", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.work)
    load_before = os.getloadavg()[0]
    result = {
        "training": {preset: training(preset, args.rounds) for preset in args.presets},
        "enhancement": enhancement(args.rounds),
    }
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    write_json(args.out, {"rounds": args.rounds, "machine": machine, "load_before": load_before} | result)
    print(*lines(result), sep="\n")


if __name__ == "__main__":
    main()
