"""Files per hour of UDiffSE's EM: one file at a time, and batched over files.

    python benchmarks/udiffse.py [--rounds 2] [--threads 1] [--out benchmarks/results/udiffse.json]

The small form with random weights enhances 8 files of 1.5 to 4 s and 8 of 2 s in every way below; the ways take
turns, so that a busy machine slows all of them. Time is CPU time. With the published sampler a file takes 1 EM
iteration of 2 steps here; files per hour are for its 5 iterations of 30 steps, from the number of network
evaluations. A way in float32 must give the plain implementation's results, one in bfloat16 must stay near them.
`em_proximal`, another algorithm whose quality a sweep measures, runs as it is, with all its steps.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from reference import unsupervised
from reference.systems import build_model
from systems import waken

from diffse import presets, recipes, settings, storage
from diffse.enhancer import Enhancer, noise_seed
from diffse.precision import cpu_has_bfloat16
from diffse.settings_reader import build
from diffse.spectrogram import pad_frames

RESULT = Path(__file__).parent / "results" / "udiffse.json"
RATE = 16000
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
SETS = {"mixed lengths": np.linspace(1.5, 4.0, 8), "equal lengths": np.full(8, 2.0)}


@dataclasses.dataclass(frozen=True)
class Way:
    """How the files are enhanced; `plain` uses none of the other fields."""

    plain: bool = False
    batch: int = 1
    keep_pages: bool = False  # the C library keeps freed memory instead of giving it back to the system
    precision: str = "float32"
    proximal: bool = False


WAYS = {
    "plain, one at a time": Way(plain=True),
    "one at a time": Way(),
    "batched, 8": Way(batch=8),
    "one at a time, memory kept": Way(keep_pages=True),
    "batched, 8, memory kept": Way(batch=8, keep_pages=True),
    "batched, 8, memory kept, em_proximal": Way(batch=8, keep_pages=True, proximal=True),
}
if cpu_has_bfloat16():
    quick = Way(batch=8, keep_pages=True, precision="bfloat16")
    WAYS["batched, 8, memory kept, bfloat16"] = quick
    WAYS["the same, em_proximal"] = dataclasses.replace(quick, proximal=True)


def load() -> recipes.System:
    """The small form, and the published sampler with few steps."""
    node = presets.table()["udiffse_small"].value
    train = build(settings.Train, node["train"])
    torch.manual_seed(0)
    network = recipes.build_network(train, settings.Stft())
    waken(network)
    enhance = settings.Enhance(sampler=settings.EM(steps=2, em_iterations=1))
    return recipes.assemble(train, settings.Stft(), enhance, network, {})


def waves(seconds: np.ndarray) -> list[np.ndarray]:
    """Noise under a syllable-like envelope, float32."""
    rng = np.random.default_rng(0)
    lengths = [round(RATE * s) for s in seconds]
    found = [rng.standard_normal(n) * np.abs(np.sin(np.arange(n) * 2 * np.pi * 3 / RATE)) for n in lengths]
    return [(0.1 * wave).astype(np.float32) for wave in found]


@contextlib.contextmanager
def pages_kept(active: bool) -> Iterator[None]:
    """Inside, freed memory stays with the process: no page is mapped twice. Only glibc has the switch."""
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
    library = ctypes.CDLL(None)
    if active:
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(M_TOP_PAD, 2**28)
    try:
        yield
    finally:
        if active:
            library.mallopt(M_MMAP_MAX, 65536)
            library.mallopt(M_TRIM_THRESHOLD, 2**26)
            library.mallopt(M_TOP_PAD, 2**17)
            library.malloc_trim(0)


def enhance_plainly(system: recipes.System, enhancer: Enhancer, found: list[np.ndarray]) -> list[np.ndarray]:
    """File after file with the reference EM, between the Enhancer's transforms."""
    model = build_model(system.train, system.stft, system.network)
    results = []
    for number, wave in enumerate(found):
        peak = np.abs(wave).max()
        X = model_input(system, wave / peak)
        source = torch.Generator().manual_seed(noise_seed(enhancer.seed, enhancer._key(str(number), 0, 0)))
        S = unsupervised.em(model, X, noise_of(X, source), system.enhance.sampler)
        S = S[..., : system.spectrogram.frames(len(wave))]
        results.append(system.spectrogram.synthesise(S[0, 0], len(wave)).numpy() * peak)
    return results


def noise_of(X: torch.Tensor, source: torch.Generator) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(X.shape, dtype=X.dtype, generator=source)


def model_input(system: recipes.System, wave: np.ndarray) -> torch.Tensor:
    X = system.spectrogram.analyse(torch.from_numpy(wave))
    return pad_frames(X, 64, system.enhance.padding)[None, None]


class Timer:
    """CPU seconds inside the network."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.seconds, self.began = 0.0, 0.0
        network.register_forward_pre_hook(lambda *_: setattr(self, "began", time.process_time()))
        network.register_forward_hook(lambda *_: self._add())

    def _add(self) -> None:
        self.seconds += time.process_time() - self.began


def run(system: recipes.System, way: Way, found: list[np.ndarray]) -> list[np.ndarray]:
    if way.proximal:
        enhance = dataclasses.replace(system.enhance, sampler=settings.EMProximal())
        system = dataclasses.replace(system, enhance=enhance)
    enhancer = Enhancer(system, batch=way.batch, precision=way.precision)
    keys = [str(number) for number in range(len(found))]
    if way.plain:
        return enhance_plainly(system, enhancer, found)
    if way.batch == 1:
        return [enhancer(wave, RATE, key) for wave, key in zip(found, keys, strict=True)]
    return enhancer.many(found, RATE, keys)


def measure(found: list[np.ndarray], rounds: int) -> dict[str, dict]:
    """Every way on the same files: medians per file, and the ratio to one at a time, round by round."""
    system = load()
    timer = Timer(system.network)
    done, asked = (
        recipes.evaluations(system.train, sampler) for sampler in (system.enhance.sampler, settings.EM())
    )
    times, expected = {name: [] for name in WAYS}, None
    for _ in range(rounds):
        for name, way in WAYS.items():
            with pages_kept(way.keep_pages):
                timer.seconds, wall, cpu = 0.0, time.perf_counter(), time.process_time()
                results = run(system, way, found)
                cpu = time.process_time() - cpu
            times[name].append((cpu, timer.seconds, time.perf_counter() - wall))
            expected = expected or results
            if not way.proximal:
                agree(name, results, expected, TOLERANCE[way.precision])
    alone, whole = [asked / done * cpu for cpu, _, _ in times["one at a time"]], asked / done
    return {
        name: row(values, alone, len(found), 1 if WAYS[name].proximal else whole)
        for name, values in times.items()
    }


def row(values: list[tuple], alone: list[float], files: int, factor: float) -> dict:
    """`factor`: all evaluations of the way over those that were run; `alone`: seconds of one at a time, all."""
    cpu, network, wall = (statistics.median(column) for column in zip(*values, strict=True))
    ratios = [other / (own[0] * factor) for own, other in zip(values, alone, strict=True)]
    return {
        "cpu_s_per_file": cpu / files,
        "wall_s_per_file": wall / files,
        "network_share": network / cpu,
        "files_per_cpu_hour": 3600 * files / (factor * cpu),
        "times_one_at_a_time": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def agree(name: str, results: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    for own, other in zip(results, expected, strict=True):
        distance = np.linalg.norm(own - other) / np.linalg.norm(other)
        if not distance <= tolerance:
            raise SystemExit(f"{name}: a file differs from the plain result by {distance:.1e}")


def table(rows: dict[str, dict]) -> Iterator[str]:
    yield "| way | CPU s per file | in the network | files per CPU hour | times one at a time |"
    yield "|---|---|---|---|---|"
    for name, found in rows.items():
        ratio = f"{found['times_one_at_a_time']:.2f} ({found['least']:.2f}-{found['most']:.2f})"
        hour, share = found["files_per_cpu_hour"], found["network_share"]
        yield f"| {name} | {found['cpu_s_per_file']:.2f} | {share:.0%} | {hour:.1f} | {ratio} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    load_before, result = os.getloadavg()[0], {}
    for name in args.sets:
        result[name] = measure(waves(SETS[name]), args.rounds)
        print(f"\n{name}\n", *table(result[name]), sep="\n", flush=True)
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    about = {"rounds": args.rounds, "threads": args.threads, "machine": machine, "load_before": load_before}
    storage.write_json(args.out, about | {"files": result})


if __name__ == "__main__":
    main()
