"""How long `dvc status` takes on a corpus of 100 GB in few large files, beside one of many small files.

The large files are sparse: they have a size and hardly any blocks. DVC's cache links to them, so that nothing
is copied. The small ones hold a few bytes each; DVC's time depends on their number. Wall-clock seconds of whole
commands, start of Python included; the median of some.

    python benchmarks/dvc_status.py [--gb 100] [--files 20] [--small 20000] [--rounds 5] [--out FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from diffse import storage

GOAL_SECONDS = 3.0


def dvc(folder: Path, *words: str) -> float:
    """Seconds of one command."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"dvc {' '.join(words)}: {done.stderr[-1000:]}")
    return time.perf_counter() - began


def write_large(folder: Path, files: int, size: int) -> None:
    folder.mkdir()
    for number in range(files):
        with open(folder / f"shard-{number:05d}.flac", "wb") as stream:
            stream.write(f"{number}".encode())
            stream.truncate(size)


def write_small(folder: Path, files: int) -> None:
    for number in range(files):
        path = folder / f"{number % 100:02d}/{number:06d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}")


def measure(root: Path, write, rounds: int) -> dict:
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc(root, "init")
    dvc(root, "config", "core.analytics", "false")
    dvc(root, "config", "cache.type", "hardlink")
    write(root / "mixtures")
    added = dvc(root, "add", "mixtures")
    status = [dvc(root, "status") for _ in range(rounds)]
    return {
        "status_seconds": round(statistics.median(status), 2),
        "slowest": round(max(status), 2),
        "add_seconds": round(added, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=100.0)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--small", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dvc_status.json")
    parser.add_argument("--folder", type=Path, help="where it happens (default: a temporary folder)")
    args = parser.parse_args()
    load, size = os.getloadavg()[0], int(args.gb * 1e9 / args.files)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        large = measure(Path(name) / "large", lambda place: write_large(place, args.files, size), args.rounds)
        small = measure(Path(name) / "small", lambda place: write_small(place, args.small), args.rounds)
    result = {
        "machine": {"cores": os.cpu_count(), "load_at_start": round(load, 1)},
        "goal_seconds": GOAL_SECONDS,
        "few_large_files": {"files": args.files, "gb": args.gb} | large,
        "many_small_files": {"files": args.small} | small,
        "times_faster": round(small["status_seconds"] / large["status_seconds"], 1),
    }
    storage.write_json(args.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
