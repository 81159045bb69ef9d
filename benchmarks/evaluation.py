"""How fast files are scored: diffse on one core and on all, against what published evaluation scripts do.

The same files, metrics (PESQ, ESTOI, SI-SDR, SI-SIR, SI-SAR) and values for all. The plain way
(`benchmarks/reference/metrics.py`) is one process that scores one file after another with the usual libraries,
once with their default threads, as shipped, and once with one thread. Every way is a program of its own, timed
from its start to its end, imports included; they take turns in every round, so that a busy machine slows all of
them. Ratios are medians over rounds. A rerun is one in which no file is new.

    python benchmarks/evaluation.py [--files 48] [--rounds 3] [--out benchmarks/results/evaluation.json]
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from diffse.data.parallel import process_count

RATE, SECONDS = 16000, 4.0
METRICS = ("pesq", "estoi", "si_sdr", "si_sir", "si_sar")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PLAIN = """
import json, sys
from pathlib import Path
from benchmarks.reference.metrics import published
json.dump(published(*map(Path, sys.argv[1:4])), sys.stdout)
"""


def write_files(home: Path, count: int, speech: Path | None) -> None:
    """`count` triples of 4 s: real pairs cut and repeated where there are any, else synthetic ones."""
    sources = sorted((speech / "pairs/clean").glob("*.flac")) if speech else []
    rng, length = np.random.default_rng(0), int(SECONDS * RATE)
    for side in ("clean", "noisy", "enhanced"):
        (home / side).mkdir()
        (home / "single" / side).mkdir(parents=True)
    for number in range(count):
        if sources:
            path = sources[number % len(sources)]
            clean, noisy = (
                np.resize(soundfile.read(path.parents[1] / side / path.name)[0], length)
                for side in ("clean", "noisy")
            )
        else:
            envelope = np.abs(np.sin(2 * np.pi * 3 * np.arange(length) / RATE))
            clean = 0.1 * envelope * rng.standard_normal(length)
            noisy = clean + 0.02 * rng.standard_normal(length)
        clean = clean * rng.uniform(0.5, 1)  # no two files are the same
        for side, wave in (("clean", clean), ("noisy", noisy), ("enhanced", (clean + noisy) / 2)):
            for folder in (home, *([home / "single"] if number == 0 else [])):
                soundfile.write(folder / side / f"{number:04d}.wav", wave, RATE, "PCM_16")


def timed(command: list[str], home: Path, threads: bool) -> dict[str, float]:
    """Wall and CPU seconds of a program and its children; `threads`: its libraries may use several."""
    environment = {name: value for name, value in os.environ.items() if name not in THREADS or not threads}
    environment |= {
        "DIFFSE_CACHE": str(home / "cache"),
        "PYTHONPATH": os.pathsep.join([*sys.path[1:], "src", "."]),
    }
    environment |= {} if threads else dict.fromkeys(THREADS, "1")
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    (home / "output").write_text(done.stdout)
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def ways(home: Path, cores: int) -> dict[str, Callable[[], dict[str, float]]]:
    """Name -> a run of it; those that begin with 'start' score one file, which is mostly imports."""
    sides = [str(home / side) for side in ("clean", "noisy", "enhanced")]
    single = [str(home / "single" / side) for side in ("clean", "noisy", "enhanced")]
    plain = [sys.executable, "-c", _PLAIN]

    def scored(processes: int, fresh: bool, sides: list[str] = sides) -> dict[str, float]:
        own = [sys.executable, "-m", "diffse", "score", sides[0], sides[2], "--noisy", sides[1]]
        own += ["--params", str(home / "params.yaml")]  # there is none: no project, no run record
        own += ["--metrics", *METRICS, "--processes", str(processes), "--out", str(home / "scores")]
        return timed([*own, *(["--no-cache"] if fresh else [])], home, False)

    return {
        "plain, default threads": lambda: timed([*plain, *sides], home, True),
        "plain, one thread": lambda: timed([*plain, *sides], home, False),
        "one core": lambda: scored(1, True),
        f"{cores} cores": lambda: scored(cores, True),
        "rerun": lambda: scored(1, False),
        "start, plain": lambda: timed([*plain, *single], home, False),
        "start, one core": lambda: scored(1, True, single),
        f"start, {cores} cores": lambda: scored(cores, True, single),
    }


def largest_difference(home: Path) -> dict[str, float]:
    """Largest difference of any file's score between the plain way and diffse, by metric."""
    import pandas

    plain = json.loads((home / "plain.json").read_text())
    own = pandas.read_csv(home / "scores/per_file.csv")
    return {name: float(np.max(np.abs(own[name].to_numpy() - np.array(plain[name])))) for name in METRICS}


def run(count: int, rounds: int, speech: Path | None) -> dict:
    """All figures."""
    cores = process_count(0)
    times: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write_files(home, count, speech)
        actions = ways(home, cores)
        actions["rerun"]()  # fills the cache, and reads everything once
        for _ in range(rounds):
            for way, action in actions.items():
                times.setdefault(way, []).append(action())
                if way == "plain, one thread":
                    (home / "output").rename(home / "plain.json")
                elif way == "rerun":
                    difference = largest_difference(home)
    whole = {way: found for way, found in times.items() if not way.startswith("start")}
    beyond = {way: beyond_start(found, times[start_of(way)], count) for way, found in whole.items()}
    shipped, single, one, several, again = whole.values()
    return {
        "setting": {
            "files": count, "seconds": SECONDS, "metrics": METRICS, "rounds": rounds, "cores": cores,
            "speech": "real recordings" if speech else "synthetic",
        },
        "machine": {"processor": platform.processor() or platform.machine(), "load": os.getloadavg()},
        "files_per_second": {way: count / min(run["wall"] for run in found) for way, found in whole.items()},
        "cpu_ms_per_file_beyond_start": {way: 1e3 * value for way, value in beyond.items()},
        "start_cpu_seconds": {
            way.removeprefix("start, "): statistics.median(run["cpu"] for run in found)
            for way, found in times.items() if way.startswith("start")
        },
        "ratios": {
            "all cores / one core, wall": ratio(one, several, "wall"),
            "all cores / plain with default threads, wall": ratio(shipped, several, "wall"),
            "all cores / plain with one thread, wall": ratio(single, several, "wall"),
            "one core / plain with default threads, CPU": ratio(shipped, one, "cpu"),
            "one core / plain with one thread, CPU": ratio(single, one, "cpu"),
            "all cores / one core, CPU beyond the start, times cores":
                cores * beyond["one core"] / beyond[f"{cores} cores"],
            "all cores / plain with one thread, CPU beyond the start, times cores":
                cores * beyond["plain, one thread"] / beyond[f"{cores} cores"],
            "all cores / plain with default threads, CPU beyond the start, times cores":
                cores * beyond["plain, default threads"] / beyond[f"{cores} cores"],
            "rerun / one core, CPU": ratio(one, again, "cpu"),
        },
        "largest_difference": difference,
        "times": times,
    }  # fmt: skip


def start_of(way: str) -> str:
    """The run over one file that belongs to a way."""
    if way.startswith("plain"):
        return "start, plain"
    return "start, one core" if way == "rerun" else f"start, {way}"


def beyond_start(found: list[dict[str, float]], start: list[dict[str, float]], count: int) -> float:
    """CPU seconds that one file more takes, the median over rounds."""
    return statistics.median(a["cpu"] - b["cpu"] for a, b in zip(found, start, strict=True)) / (count - 1)


def ratio(slow: list[dict[str, float]], fast: list[dict[str, float]], kind: str) -> float:
    """How many times as fast, the median over rounds."""
    return statistics.median(a[kind] / b[kind] for a, b in zip(slow, fast, strict=True))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speech", type=Path, metavar="FOLDER", help="real pairs (pairs/clean, pairs/noisy)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = run(arguments.files, arguments.rounds, arguments.speech)
    print(json.dumps({name: part for name, part in result.items() if name != "times"}, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
