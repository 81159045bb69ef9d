"""How fast mixtures are made, and rooms simulated, against the plain way of both, in the same run.

The plain way of mixing is what published scripts do for each utterance, one after the other: read the clean and
the whole noise file, cut, scale by the powers, write two 16-bit wav files. diffse decodes once, checks every
file, writes 24-bit FLAC shards with checksums and a manifest. The plain way of a room is pyroomacoustics as its
own documentation uses it. Ways take turns in every round; figures are medians. `audio per second` counts the
audio of the mixtures, once; CPU seconds are those of all processes.

    python benchmarks/mixing.py [--utterances 400] [--rounds 3] [--rooms 12] [--out FILE]
"""

import argparse
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import soundfile
from reference import mixing as reference

from diffse import paths, storage
from diffse.data import prepare, reverberation
from diffse.settings import FolderCorpus, Params, SimulatedRooms

RATE, SECONDS, NOISE_SECONDS, CLEAN_FILES = 16000, 4.0, 60.0, 60


def write_sources(folder: Path) -> None:
    """Speech-like utterances of 6 speakers and 6 noise recordings, 16-bit wav."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(int(SECONDS * RATE)) / RATE
    for number in range(CLEAN_FILES):
        envelope = np.abs(np.sin(2 * np.pi * rng.uniform(2, 4) * time_axis))
        wave = 0.1 * envelope * rng.standard_normal(len(time_axis))
        path = folder / f"clean/s{number % 6}/{number:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, RATE, "PCM_16")
    (folder / "noise/fan").mkdir(parents=True)
    for number in range(6):
        wave = 0.05 * rng.standard_normal(int(NOISE_SECONDS * RATE))
        soundfile.write(folder / f"noise/fan/{number}.wav", wave, RATE, "PCM_16")


def cpu_seconds() -> float:
    """Of this process and of children that have ended."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """(seconds, CPU seconds) of a piece of work."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - wall, cpu_seconds() - cpu


def mix(root: Path, mixtures: int, processes: int) -> None:
    """Every utterance `mixtures` times, as `diffse prepare` does it."""
    from diffse.settings import SplitCounts

    counts = SplitCounts(mixtures, mixtures, mixtures)
    settings = FolderCorpus(processes=processes, mixtures_per_utterance=counts)
    prepare.run(Params(("bench",), (), (), {"bench": settings}, {}, {}), "bench", root)


def measure_mixing(root: Path, utterances: int, rounds: int) -> dict:
    source, mixtures = paths.source(root, "bench"), max(1, utterances // CLEAN_FILES)
    write_sources(source)
    audio_seconds = mixtures * CLEAN_FILES * SECONDS
    ways = {
        "diffse, 2 processes": lambda: mix(root, mixtures, 2),
        "diffse, 1 process": lambda: mix(root, mixtures, 1),
        "plain": lambda: reference.mix(source, root / "plain", mixtures),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    mix(root, 1, 1)  # imports and the file cache
    for _ in range(rounds):
        for name, work in ways.items():
            times[name].append(timed(work))
    rows = {}
    for name, values in times.items():
        walls, cpus = zip(*values, strict=True)
        rows[name] = {
            "real_time_factor": round(audio_seconds / statistics.median(walls), 1),
            "best": round(audio_seconds / min(walls), 1),
            "audio_per_cpu_second": round(audio_seconds / statistics.median(cpus), 1),
        }
    return {"audio_seconds": audio_seconds, "rounds": rounds, "ways": rows}


def measure_scaling(root: Path, sizes: list[int]) -> list[dict]:
    """CPU time and peak memory of ever more mixtures, each size in a process of its own."""
    import subprocess
    import sys

    rows = []
    for size in sizes:
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import mixing, resource; "
            f"from pathlib import Path; mixing.mix(Path({str(root)!r}), {max(1, size // CLEAN_FILES)}, 1); "
            "u = resource.getrusage(resource.RUSAGE_SELF); print(u.ru_utime + u.ru_stime, u.ru_maxrss / 1024)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        cpu, memory = map(float, done.stdout.split()[-2:])
        count = max(1, size // CLEAN_FILES) * CLEAN_FILES
        rows.append({"mixtures": count, "cpu_seconds": round(cpu, 2), "peak_memory_mb": round(memory)})
    return rows


def measure_rooms(count: int) -> dict:
    rooms = [reverberation.draw_room(SimulatedRooms(), seed) for seed in range(count + 1)]
    reverberation.simulate(rooms[-1], RATE)
    reference.simulate(rooms[-1])
    ours, theirs, apart = [], [], 0.0
    for room in rooms[:count]:
        found: list[np.ndarray] = []
        ours.append(timed(lambda room=room, found=found: found.append(reverberation.simulate(room, RATE).wave)))
        theirs.append(timed(lambda room=room, found=found: found.append(reference.simulate(room))))
        apart = max(apart, float(np.max(np.abs(found[0] - found[1])) / np.max(np.abs(found[1]))))
    ratios = [b[1] / a[1] for a, b in zip(ours, theirs, strict=True)]
    return {
        "rooms": count,
        "rooms_per_cpu_second": round(count / sum(cpu for _, cpu in ours), 1),
        "plain_rooms_per_cpu_second": round(count / sum(cpu for _, cpu in theirs), 1),
        "ratio_median": round(statistics.median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "largest_difference": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rooms", type=int, default=12)
    parser.add_argument("--sizes", type=int, nargs="*", default=[600, 3000])
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        result = {
            "date": date.today().isoformat(),
            "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
            "python": platform.python_version(),
            "load_at_start": round(os.getloadavg()[0], 1),
            "rooms": measure_rooms(arguments.rooms),
            "mixing": measure_mixing(root, arguments.utterances, arguments.rounds),
            "scaling": measure_scaling(root, arguments.sizes),
        }
    result["load_at_end"] = round(os.getloadavg()[0], 1)
    print(json.dumps(result, indent=2))
    if arguments.out:
        storage.write_json(arguments.out, result)


if __name__ == "__main__":
    main()
