"""How fast training crops come: from the cache in both its forms, from the audio shards, and the plain way.

The plain way is what published training code does for each crop: read both files whole, cut, divide by the
peak, transform, compress with angle and exp. One thread, because that is what a loading worker has. The
ways take turns in every round, so that a busy machine slows all of them; figures are medians over rounds.

    python benchmarks/data_path.py [--crops 100] [--rounds 5] [--out benchmarks/results/data_path.json]
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import soundfile
import torch
from reference import data as reference

from diffse import pages, paths, storage
from diffse.data import manifest, shards, stft_cache
from diffse.data.batches import MixtureWaves, WaveSource, cached_crops
from diffse.settings import Stft
from diffse.spectrogram import Spectrogram

RATE, FRAMES, FACTOR, BATCH = 16000, 256, 0.15, 8


def write_corpus(root: Path, pairs: int, seconds: float) -> None:
    """The same noise-like pairs as mixtures (shards and manifest) and as single 16-bit files."""
    folder, files = paths.mixtures(root, "bench"), root / "files"
    folder.mkdir(parents=True)
    files.mkdir()
    empty = {"string": "", "int64": 0, "float64": 0.0, "bool": True}
    rng, rows = np.random.default_rng(0), []
    with shards.ShardWriter(folder, RATE, 2) as writer:
        for number in range(pairs + 1):
            envelope = np.abs(np.sin(2 * np.pi * 3 * np.arange(int(seconds * RATE)) / RATE))
            clean = 0.1 * envelope * rng.standard_normal(envelope.size)
            pair = np.stack([clean, clean + 0.05 * rng.standard_normal(envelope.size)])
            row = {column: empty[kind] for column, kind in manifest.COLUMNS.items()} | writer.add(pair)
            split = "train" if number < pairs else "valid"
            rows.append(row | {"id": f"{number:05d}", "split": split, "rate": RATE})
            for name, wave in zip(("clean", "noisy"), pair, strict=True):
                soundfile.write(files / f"{number:05d}_{name}.wav", wave, RATE, "PCM_16")
    manifest.write(pandas.DataFrame(rows), folder)


def measure(action: Callable[[], None], count: int) -> tuple[float, float]:
    """(wall, CPU) milliseconds per item of an action that makes `count` items."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return (time.perf_counter() - wall) * 1e3 / count, (time.process_time() - cpu) * 1e3 / count


def read_all(source: object, steps: int) -> None:
    """Every batch, dropped before the next one is made, as a training does."""
    for step in range(steps):
        source.batch(step, BATCH)


def take_turns(actions: dict[str, Callable[[], None]], count: int, rounds: int) -> dict[str, dict]:
    """Medians over rounds, and the ratio to the last action's time, round by round."""
    for action in actions.values():
        action()  # files into the page cache, windows made
    times = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(measure(action, count))
    slowest = times[list(actions)[-1]]
    return {
        name: {
            "wall_ms": statistics.median(wall for wall, _ in found),
            "cpu_ms": statistics.median(cpu for _, cpu in found),
            "per_second": 1e3 / statistics.median(wall for wall, _ in found),
            "times_plain_cpu": statistics.median(
                plain / own for (_, own), (_, plain) in zip(found, slowest, strict=True)
            ),
        }
        for name, found in times.items()
    }


def build(root: Path, form: str) -> tuple[float, float]:
    """Write the cache in one of its forms, each in a project of its own; returns (wall, CPU) milliseconds."""
    project = root if form == "spectrogram" else root / form
    if project != root and not project.exists():
        (project / "data/bench").mkdir(parents=True)
        (project / "data/bench/mixtures").symlink_to(paths.mixtures(root, "bench"))
    return measure(lambda: stft_cache.run(SimpleNamespace(cache=Stft(form=form)), "bench", project), 1)


def run(pairs: int, seconds: float, crops: int, rounds: int) -> dict:
    """All figures, on a corpus of `pairs` pairs made for the purpose."""
    torch.set_num_threads(1)
    pages.keep()  # as `diffse train` does
    steps = max(crops // BATCH, 1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_corpus(root, pairs, seconds)
        builds = {form: [build(root, form) for _ in range(3)] for form in ("waveform", "spectrogram")}
        description = json.loads((paths.cache(root, "bench") / "cache.json").read_text())
        options = ("train", FRAMES, FACTOR, 0, Stft())
        sources = {
            "cache": cached_crops(paths.cache(root, "bench"), *options),
            "cache, waveform form": cached_crops(paths.cache(root / "waveform", "bench"), *options),
            "audio shards": WaveSource(
                MixtureWaves(paths.mixtures(root, "bench"), "train"), Spectrogram(factor=FACTOR), FRAMES, 0
            ),
            "plain": reference.Crops(root / "files", pairs, FRAMES, FACTOR),
        }
        path = take_turns(
            {kind: lambda source=source: read_all(source, steps) for kind, source in sources.items()},
            steps * BATCH,
            rounds,
        )
    X = Spectrogram().stft(torch.randn(2, (FRAMES - 1) * 128))
    compression = take_turns(
        {
            "scaling": lambda: [Spectrogram().compress(X) for _ in range(20)],
            "plain": lambda: [reference.compress(X, FACTOR) for _ in range(20)],
        },
        20,
        rounds,
    )
    return {
        "setting": {"pairs": pairs, "seconds": seconds, "frames": FRAMES, "batch": BATCH, "rounds": rounds}
        | {"crops_per_round": steps * BATCH, "threads": 1},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__},
        "crops": path,
        "compression": compression,
        "cache": {
            "pair_seconds_per_cpu_second": {
                form: (pairs + 1) * seconds * 1e3 / statistics.median(cpu for _, cpu in found)
                for form, found in builds.items()
            },
            "storage_error_db": description["storage_error_db"],
        },
    }


def table(result: dict) -> str:
    """The figures as Markdown."""
    lines = ["| training crops | per second | wall ms | CPU ms | times plain (CPU) |", "|---|---|---|---|---|"]
    for section in ("crops", "compression"):
        for name, row in result[section].items():
            label = name if section == "crops" else f"compression of one pair: {name}"
            lines.append(
                f"| {label} | {row['per_second']:.0f} | {row['wall_ms']:.2f} | {row['cpu_ms']:.2f} "
                f"| {row['times_plain_cpu']:.1f} |"
            )
    cache = result["cache"]
    error = cache["storage_error_db"]
    lines.append("")
    lines.append(
        "Building the cache, seconds of pairs per CPU second: "
        f"{cache['pair_seconds_per_cpu_second']['spectrogram']:.0f}, "
        f"in waveform form {cache['pair_seconds_per_cpu_second']['waveform']:.0f}. "
        f"Storage error: spectrogram {error['spectrogram']['mean']:.1f} dB, "
        f"waveform {error['waveform']['mean']:.1f} dB."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--crops", type=int, default=100, help="per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "data_path.json")
    args = parser.parse_args()
    result = run(args.pairs, args.seconds, args.crops, args.rounds)
    storage.write_json(args.out, result)
    print(table(result))


if __name__ == "__main__":
    main()
