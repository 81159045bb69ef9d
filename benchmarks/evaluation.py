"""How fast files are scored: diffse on one core and on all, against what published evaluation scripts do.

Two sets of metrics: PESQ, ESTOI, SI-SDR, SI-SIR and SI-SAR, as the published scripts have them, and PESQ,
ESTOI, SI-SDR and DNSMOS. The same files and values for all ways:

plain, default threads      one process, one file after another, the usual libraries (`reference/metrics.py`),
                            which use as many threads as they like: what a published script does as shipped
plain, one thread           the same with one thread
one core, N cores           `diffse score` with 1 and N processes, nothing known
rerun                       one core; no file is new
libraries, N cores          the calls of the libraries alone, on signals in memory, one process per core and one
                            thread each: nothing that calls these libraries can be faster

All but the last are programs timed from their start to their end, imports included. The ways take turns in
every round, so that a busy machine slows all of them. Ratios are medians over rounds.

    python benchmarks/evaluation.py --speech FOLDER [--files 200 48] [--rounds 3] [--out FILE]
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
SETS = {
    "published": ("pesq", "estoi", "si_sdr", "si_sir", "si_sar"),
    "with DNSMOS": ("pesq", "estoi", "si_sdr", "dnsmos"),
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SIDES = ("clean", "noisy", "enhanced")
_PLAIN = """
import json, sys
from pathlib import Path
from benchmarks.reference.metrics import published
json.dump(published(*map(Path, sys.argv[1:4]), sys.argv[4].split(",")), sys.stdout)
"""
_LIBRARIES = """
import sys, time
from pathlib import Path
import soundfile
from benchmarks.reference import metrics
first, step = int(sys.argv[5]), int(sys.argv[6])
names = sorted(path.name for path in Path(sys.argv[1]).iterdir())[first::step]
files = [[soundfile.read(Path(side) / name)[0] for side in sys.argv[1:4]] for name in names]
metrics.scored(*files[0], 16000, sys.argv[4].split(","))
print("ready", flush=True)
input()
wall, cpu = time.perf_counter(), time.process_time()
for signals in files:
    metrics.scored(*signals, 16000, sys.argv[4].split(","))
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def write_files(home: Path, count: int, speech: Path | None) -> None:
    """`count` triples of 4 s: real pairs cut and repeated where there are any, else synthetic ones."""
    sources = sorted((speech / "pairs/clean").glob("*.flac")) if speech else []
    rng, length = np.random.default_rng(0), int(SECONDS * RATE)
    for side in SIDES:
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
        gain = rng.uniform(0.5, 1)  # no two files are the same
        waves = {"clean": gain * clean, "noisy": gain * noisy, "enhanced": gain * (clean + noisy) / 2}
        for side, wave in waves.items():
            for folder in (home, *([home / "single"] if number == 0 else [])):
                soundfile.write(folder / side / f"{number:04d}.wav", wave, RATE, "PCM_16")


def surroundings(home: Path, threads: bool) -> dict[str, str]:
    """Environment of a program; `threads`: its libraries may use several."""
    found = {name: value for name, value in os.environ.items() if name not in THREADS}
    found |= {} if threads else dict.fromkeys(THREADS, "1")
    path = os.pathsep.join([*sys.path[1:], "src", "."])
    return found | {"DIFFSE_CACHE": str(home / "cache"), "PYTHONPATH": path}


def timed(command: list[str], home: Path, threads: bool) -> dict[str, float]:
    """Wall and CPU seconds of a program and its children."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=surroundings(home, threads), capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    (home / "output").write_text(done.stdout)
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def libraries(sides: list[str], metrics: tuple[str, ...], cores: int, home: Path) -> dict[str, float]:
    """Seconds of the libraries' calls alone, on `cores` processes at once."""
    command = [sys.executable, "-c", _LIBRARIES, *sides, ",".join(metrics)]
    running = [
        subprocess.Popen(
            [*command, str(place), str(cores)],
            env=surroundings(home, False), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for place in range(cores)
    ]  # fmt: skip
    for process in running:
        process.stdout.readline()  # all have read their files and called every library once
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    walls, cpus = zip(*(map(float, process.communicate()[0].split()) for process in running), strict=True)
    return {"wall": max(walls), "cpu": sum(cpus)}


def ways(home: Path, cores: int, metrics: tuple[str, ...]) -> dict[str, Callable[[], dict[str, float]]]:
    """Name -> a run of it; those that begin with 'start' score one file, which is mostly imports."""
    sides = [str(home / side) for side in SIDES]
    single = [str(home / "single" / side) for side in SIDES]
    plain = [sys.executable, "-c", _PLAIN]

    def scored(processes: int, fresh: bool, sides: list[str] = sides) -> dict[str, float]:
        own = [sys.executable, "-m", "diffse", "score", sides[0], sides[2], "--noisy", sides[1]]
        own += ["--params", str(home / "params.yaml")]  # there is none: no project, no run record
        own += ["--metrics", *metrics, "--processes", str(processes), "--out", str(home / "scores")]
        return timed([*own, *(["--no-cache"] if fresh else [])], home, False)

    names = ",".join(metrics)
    return {
        "plain, default threads": lambda: timed([*plain, *sides, names], home, True),
        "plain, one thread": lambda: timed([*plain, *sides, names], home, False),
        "one core": lambda: scored(1, True),
        f"{cores} cores": lambda: scored(cores, True),
        "rerun": lambda: scored(1, False),
        f"libraries, {cores} cores": lambda: libraries(sides, metrics, cores, home),
        "start, plain": lambda: timed([*plain, *single, names], home, False),
        "start, one core": lambda: scored(1, True, single),
        f"start, {cores} cores": lambda: scored(cores, True, single),
    }


def largest_difference(home: Path) -> dict[str, float]:
    """Largest difference of any file's score between the plain way and diffse, by column."""
    import pandas

    plain = json.loads((home / "plain.json").read_text())
    own = pandas.read_csv(home / "scores/per_file.csv")
    return {name: float(np.max(np.abs(own[name].to_numpy() - np.array(plain[name])))) for name in plain}


def run(metrics: tuple[str, ...], count: int, rounds: int, speech: Path | None) -> dict:
    """All figures of one set of metrics."""
    cores = process_count(0)
    times: dict[str, list[dict[str, float]]] = {}
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write_files(home, count, speech)
        actions = ways(home, cores, metrics)
        actions["rerun"]()  # fills the cache, and reads everything once
        for _ in range(rounds):
            for way, action in actions.items():
                times.setdefault(way, []).append(action())
                if way == "plain, one thread":
                    (home / "output").rename(home / "plain.json")
                elif way == "rerun":
                    difference = largest_difference(home)
    whole = {way: found for way, found in times.items() if not way.startswith("start")}
    shipped, single, one, several, again, bare = whole.values()
    return {
        "setting": {
            "files": count, "seconds": SECONDS, "metrics": metrics, "rounds": rounds, "cores": cores,
            "speech": "real recordings" if speech else "synthetic", "load_before": load,
        },
        "files_per_second": {
            way: count / statistics.median(run["wall"] for run in found) for way, found in whole.items()
        },
        "cpu_ms_per_file_beyond_start": {
            way: 1e3 * beyond_start(found, times[start_of(way)], count)
            for way, found in whole.items() if not way.startswith("libraries")
        } | {"libraries": 1e3 * statistics.median(run["cpu"] for run in bare) / count},
        "start_seconds": {
            way.removeprefix("start, "): {
                kind: statistics.median(run[kind] for run in found) for kind in ("wall", "cpu")
            }
            for way, found in times.items() if way.startswith("start")
        },
        "ratios": {
            "all cores / one core": ratio(one, several),
            "all cores / plain with default threads": ratio(shipped, several),
            "all cores / plain with one thread": ratio(single, several),
            "all cores / libraries alone on all cores": ratio(bare, several),
            "one core / plain with one thread": ratio(single, one),
            "rerun / one core": ratio(one, again),
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


def ratio(slow: list[dict[str, float]], fast: list[dict[str, float]]) -> float:
    """How many times as fast by the clock, the median over rounds."""
    return statistics.median(a["wall"] / b["wall"] for a, b in zip(slow, fast, strict=True))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, nargs=2, default=(200, 48), help="of either set (default: 200 48)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speech", type=Path, metavar="FOLDER", help="real pairs (pairs/clean, pairs/noisy)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result: dict = {"machine": platform.processor() or platform.machine()}
    for (title, metrics), count in zip(SETS.items(), arguments.files, strict=True):
        result[title] = run(metrics, count, arguments.rounds, arguments.speech)
        shown = {name: part for name, part in result[title].items() if name != "times"}
        print(f"{title}: {json.dumps(shown, indent=2)}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
