"""How fast the command line answers: `diffse --help` and `dvc repro` with nothing to do.

python benchmarks/cli.py [--runs N] [--out FILE]    in a project whose `dvc repro` is up to date

Each command runs once to warm the disk cache and then N times; the table shows median, least and most in
seconds, the goal, and the load of the machine when it began (other work makes every figure larger).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

# name -> (command, goal in seconds, a line that its output must have for the figure to mean anything)
COMMANDS = {
    "diffse --help": ([str(BIN / "diffse"), "--help"], 0.5, "usage: diffse"),
    "dvc repro, nothing to do": ([str(BIN / "dvc"), "repro"], 4.0, "Data and pipelines are up to date."),
}


def measure(command: list[str], line: str, runs: int, folder: Path) -> list[float]:
    """Wall-clock seconds of `runs` calls after one that does not count."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    seconds = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        seconds.append(time.perf_counter() - began)
        if done.returncode or line not in done.stdout or "Running stage" in done.stdout:
            raise SystemExit(f"'{' '.join(command)}' is not ready to be measured:\n{done.stdout}{done.stderr}")
    return seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9, metavar="N")
    parser.add_argument("--project", type=Path, default=PROJECT, metavar="DIR")
    parser.add_argument(
        "--out", type=Path, default=PROJECT / "benchmarks" / "results" / "cli.json", metavar="FILE"
    )
    args = parser.parse_args()
    load = os.getloadavg()[0]
    rows = {}
    print(f"{args.runs} runs, load {load:.1f}; seconds")
    print(f"{'command':<26} {'median':>7} {'least':>7} {'most':>7} {'goal':>6}")
    for name, (command, goal, line) in COMMANDS.items():
        seconds = measure(command, line, args.runs, args.project)
        median = statistics.median(seconds)
        rows[name] = {"median_s": median, "least_s": min(seconds), "most_s": max(seconds), "goal_s": goal}
        print(f"{name:<26} {median:7.2f} {min(seconds):7.2f} {max(seconds):7.2f} {goal:6.1f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"commands": rows, "runs": args.runs, "cores": os.cpu_count(), "load_before": load}
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
