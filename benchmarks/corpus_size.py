"""How time and memory of `prepare`, `cache` and the gate grow with the corpus: they should not, per utterance.

Utterances are short (0.4 s), so that 100,000 of them take minutes; what a longer one costs is in `mixing.py`
and `data_path.py`. Every step of every size runs in a process of its own, with one worker: CPU seconds and peak
memory are those of that process. The plain way of mixing (`reference/mixing.py`) is measured on the same files
in the same run. The gate runs twice: the first one decodes and measures all audio, on all cores; the second
judges the manifest and compares the checksums of the shards, which is what a gate on a known corpus costs.

    python benchmarks/corpus_size.py [--sizes 1000 10000 100000] [--plain-up-to 10000] [--out FILE]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import soundfile

from diffse import paths, storage
from diffse.settings import FolderCorpus, Params, Stft

RATE, SECONDS, NOISE_SECONDS, SPEAKERS, NOISES = 16000, 0.4, 30.0, 40, 8
STEPS = ("prepare", "cache", "gate, measuring", "gate")
GOALS = {"gate_seconds": 15.0, "time_per_utterance_growth": 1.2, "memory_growth": 1.5}


def write_sources(folder: Path, count: int) -> None:
    """`count` speech-like utterances of 40 speakers and 8 noise recordings, 16-bit wav."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(int(SECONDS * RATE)) / RATE
    noise = rng.standard_normal(len(time_axis) * 50)
    for number in range(count):
        envelope = 0.1 * np.abs(np.sin(2 * np.pi * rng.uniform(2, 4) * time_axis)) + 0.001
        start = int(rng.integers(len(noise) - len(time_axis)))
        path = folder / f"clean/s{number % SPEAKERS:02d}/{number:06d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, envelope * noise[start : start + len(time_axis)], RATE, "PCM_16")
    (folder / "noise/fan").mkdir(parents=True)
    for number in range(NOISES):
        wave = 0.05 * rng.standard_normal(int(NOISE_SECONDS * RATE))
        soundfile.write(folder / f"noise/fan/{number}.wav", wave, RATE, "PCM_16")


def settings() -> Params:
    corpus = {"bench": FolderCorpus(processes=1, min_seconds=0.3)}
    return Params(("bench",), ("bench",), (), corpus, {}, {})


def step(name: str, root: Path) -> None:
    """One step, in this process."""
    from diffse.errors import GateFailed

    if name == "prepare":
        from diffse.data import prepare

        prepare.run(settings(), "bench", root)
    elif name == "cache":
        from diffse.data import stft_cache

        stft_cache.run(SimpleNamespace(cache=Stft()), "bench", root)
    elif name == "plain":
        from reference import mixing

        mixing.mix(paths.source(root, "bench"), root / "plain", 1)
    else:
        from diffse.validation import gate

        try:
            gate.run(settings(), "mixtures", ("bench",), root)
        except GateFailed as failure:  # such sounds are no speech
            print(failure, file=sys.stderr)


def measured(name: str, root: Path) -> dict:
    """Wall and CPU seconds and peak memory of a step, imports and start of Python included."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--step", name, "--folder", str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": round(time.perf_counter() - began, 2)}


def run_step(name: str, root: Path) -> None:
    step(name, root)
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(use.ru_utime + use.ru_stime for use in uses)
    print(json.dumps({"cpu_seconds": round(cpu, 2), "peak_memory_mb": round(uses[0].ru_maxrss / 1024)}))


def measure(size: int, folder: Path | None, plain_up_to: int) -> dict:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        write_sources(paths.source(root, "bench"), size)
        steps = ("plain", *STEPS) if size <= plain_up_to else STEPS
        found = {step: measured(step, root) for step in steps}
        for row in found.values():
            row["cpu_ms_per_utterance"] = round(row["cpu_seconds"] * 1e3 / size, 3)
        return {"utterances": size, "steps": found}


def growth(rows: list[dict]) -> dict:
    """From the first size to the last: time of one more utterance over that at first, and memory."""
    found = {}
    for name in rows[0]["steps"]:
        having = [row for row in rows if name in row["steps"]]
        cpu = [row["steps"][name]["cpu_seconds"] for row in having]
        sizes = [row["utterances"] for row in having]
        slopes = [(cpu[k + 1] - cpu[k]) / (sizes[k + 1] - sizes[k]) for k in range(len(having) - 1)]
        memory = [row["steps"][name]["peak_memory_mb"] for row in having]
        found[name] = {
            "cpu_ms_per_further_utterance": [round(slope * 1e3, 3) for slope in slopes],
            "time_per_utterance_growth": round(slopes[-1] / slopes[0], 2) if slopes else None,
            "memory_growth": round(memory[-1] / memory[0], 2),
            "memory_kb_per_further_utterance": round(
                (memory[-1] - memory[0]) * 1024 / max(sizes[-1] - sizes[0], 1), 2
            ),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000, 100000])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "corpus_size.json")
    parser.add_argument("--folder", type=Path, help="where the corpora are made (default: a temporary folder)")
    parser.add_argument("--plain-up-to", type=int, default=10000, help="largest size mixed plainly too")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        run_step(args.step, args.folder)
        return
    load, rows = os.getloadavg()[0], []
    for size in args.sizes:
        rows.append(measure(size, args.folder, args.plain_up_to))
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "setting": {"seconds_per_utterance": SECONDS, "rate": RATE, "processes": 1},
        "machine": {"cores": os.cpu_count(), "load_at_start": round(load, 1)},
        "goals": GOALS,
        "sizes": rows,
        "growth": growth(rows),
        "gate_seconds": rows[-1]["steps"]["gate"]["seconds"],
    }
    storage.write_json(args.out, result)
    print(json.dumps({"growth": result["growth"], "gate_seconds": result["gate_seconds"]}, indent=2))


if __name__ == "__main__":
    main()
