"""How long the report of 1,000 files takes, and how large its page is: under 30 s and under 15 MB.

python benchmarks/report.py [--files N] [--systems N] [--out FILE]

Makes a project in a temporary folder: scores of every file and system, curves, gates, and audio. The audio of
the files repeats eight recordings, because the report reads that of a few chosen files only. `diffse report`
then runs once in a process of its own. Wall-clock and processor seconds, the page's bytes, and the load of the
machine when it began (other work makes the wall-clock time longer).
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

import numpy as np
import pandas

from diffse import paths, storage
from diffse.data import manifest, shards
from diffse.metrics import statistics

PROJECT = Path(__file__).resolve().parents[1]
RATE, SECONDS, RECORDINGS = 16000, 4.0, 8
GOAL_SECONDS, GOAL_MB = 30.0, 15.0
METRICS = {"pesq": 2.0, "estoi": 0.6, "si_sdr": 10.0, "si_sir": 15.0, "si_sar": 12.0}
METRICS |= {"dnsmos_sig": 3.0, "dnsmos_bak": 3.0, "dnsmos_ovrl": 2.8, "dnsmos_p808": 3.0}
NOISES = ("cafe", "car", "street", "home", "office")


def facts_of(count: int) -> pandas.DataFrame:
    """One row per test file: 24 speakers, five noises, SNRs from -5 to 15 dB, reverberation times."""
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"id": [f"utterance_{place:05d}" for place in range(count)]})
    frame["speaker"] = [f"p{place % 24:03d}" for place in range(count)]
    frame["gender"] = ["fm"[place % 2] for place in range(count)]
    frame["noise_kind"] = [NOISES[place % len(NOISES)] for place in range(count)]
    frame["snr_db"] = rng.uniform(-5, 15, count).round(3)
    frame["t60"] = rng.uniform(0.2, 1.0, count).round(3)
    return frame


def write_audio(root: Path, facts: pandas.DataFrame, systems: list[str]) -> None:
    """Mixtures and enhanced audio; every file shares one of RECORDINGS stored recordings."""
    rng = np.random.default_rng(1)
    samples = round(SECONDS * RATE)
    waves = 0.1 * rng.standard_normal((RECORDINGS, 2, samples)).astype(np.float32)
    empty = {name: {"string": "", "bool": True}.get(kind, 0) for name, kind in manifest.COLUMNS.items()}
    with (
        storage.atomic_folder(paths.mixtures(root, "big")) as folder,
        shards.ShardWriter(folder, RATE, 2) as out,
    ):
        stored = [out.add(wave) for wave in waves]
        rows = []
        for place, row in enumerate(facts.to_dict("records")):
            own = {name: value for name, value in row.items() if name in manifest.COLUMNS}
            own |= {
                "corpus": "big",
                "split": "test",
                "snr_measured_db": row["snr_db"],
                "gain": 1.0,
                "rate": RATE,
            }
            own |= {"n_samples": samples, "seconds": SECONDS, "seed": 0, "sha256": "0" * 64}
            rows.append(empty | own | stored[place % RECORDINGS])
        manifest.write(pandas.DataFrame(rows), folder)
    for system in systems:
        with (
            storage.atomic_folder(paths.enhanced(root, system, "big")) as folder,
            shards.ShardWriter(folder, RATE, 1) as out,
        ):
            stored = [out.add(wave[:1]) for wave in waves]
            rows = [
                {"id": item, "n_samples": samples, "rate": RATE, "gain": 1.0, "peak": 0.5, "level_dbfs": -20.0}
                | {"noisy_dbfs": -20.0, "evaluations": 30, "sha256": "0" * 64}
                | stored[place % RECORDINGS]
                for place, item in enumerate(facts["id"])
            ]
            manifest.write(pandas.DataFrame(rows), folder, manifest.ENHANCED_COLUMNS)
            storage.write_json(
                folder / "enhanced.json", {"system": system, "sampler": {"name": "pc", "steps": 30}}
            )


def write_results(root: Path, facts: pandas.DataFrame, systems: list[str]) -> None:
    """per_file.csv and summary.json of every system: files differ more than systems do."""
    rng = np.random.default_rng(2)
    ease = rng.standard_normal(len(facts))
    for better, system in enumerate([paths.UNPROCESSED, *systems]):
        frame, metrics = facts.copy(), {}
        for name, level in METRICS.items():
            noise = rng.standard_normal(len(facts))
            frame[name] = (level * (1 + 0.1 * better / len(systems) + 0.2 * ease + 0.05 * noise)).round(6)
            frame[f"{name}_reason"] = ""
            found = statistics.summarise(frame[name].to_numpy(), 0.95, 2000, 0)
            metrics[name] = {**found, "missing": 0, "reasons": {}, "unit": "", "rate": RATE, "version": "1"}
        folder = paths.results(root, system, "big")
        folder.mkdir(parents=True)
        frame.to_csv(folder / "per_file.csv", index=False)
        described = {"system": system, "corpus": "big", "files": len(frame), "metrics": metrics}
        described |= {"real_time_factor": 0.5, "evaluations": 30, "parameters": 65_000_000}
        storage.write_json(folder / "summary.json", described)


def write_models(root: Path, recipes: list[str]) -> None:
    """Curves as long as a training leaves them."""
    rng = np.random.default_rng(3)
    for recipe in recipes:
        folder = paths.model(root, f"{recipe}.big")
        (folder / "best").mkdir(parents=True)
        steps = np.arange(1, 2001) * 250
        loss = 50 * steps**-0.4 * np.exp(0.3 * rng.standard_normal(len(steps)))
        curve = pandas.DataFrame({"step": steps, "loss": loss, "grad_norm": 1.0, "lr": 1e-4})
        curve.to_csv(folder / "history.csv", index=False)
        marks = {"step": steps[::100], "si_sdr": 10.0, "pesq": 2.0, "estoi": 0.7}
        pandas.DataFrame(marks).to_csv(folder / "validation.csv", index=False)
        storage.write_json(folder / "best" / "checkpoint.json", {"parameters": 65_000_000, "step": 500_000})


def make(root: Path, files: int, systems: int) -> None:
    """The whole project."""
    import yaml

    recipes = [f"m{place + 1}" for place in range(systems)]
    entries = {recipe: {"preset": f"m{place % 8 + 1}"} for place, recipe in enumerate(recipes)}
    params = {"corpora": ["big"], "train_corpora": ["big"], "recipes": recipes, "train": entries}
    params |= {"enhance": entries, "prepare": {"big": {"kind": "folder"}}}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    facts, names = facts_of(files), [f"{recipe}.big" for recipe in recipes]
    write_audio(root, facts, names)
    write_results(root, facts, names)
    write_models(root, recipes)


def measure(root: Path) -> dict[str, float]:
    """Seconds and bytes of one `diffse report`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "diffse", "report"], cwd=root, check=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = (paths.report(root) / "index.html").stat().st_size
    return {"wall_s": wall, "processor_s": processor, "page_mb": size / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000, metavar="N")
    parser.add_argument("--systems", type=int, default=4, metavar="N")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder for the project, which stays")
    parser.add_argument(
        "--out", type=Path, default=PROJECT / "benchmarks" / "results" / "report.json", metavar="FILE"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = args.keep or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        make(root, args.files, args.systems)
        load = os.getloadavg()[0]
        found = measure(root)
    print(f"{args.files} files, {args.systems} systems and the input; load {load:.1f}")
    print(f"{found['wall_s']:.1f} s (goal {GOAL_SECONDS:g}), of it processor {found['processor_s']:.1f} s")
    print(f"{found['page_mb']:.2f} MB (goal {GOAL_MB:g})")
    facts = {"files": args.files, "systems": args.systems, "goal_s": GOAL_SECONDS, "goal_mb": GOAL_MB}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = found | facts | {"cores": os.cpu_count(), "load_before": load}
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
