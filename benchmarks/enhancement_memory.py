"""Peak memory of `diffse enhance` on 10 seconds and on 10 minutes of audio.

    python benchmarks/enhancement_memory.py [--repeats 3]

Goal: 10 minutes in the memory of 10 seconds plus 20 %. Each run is a process of its own, whose peak resident
size the kernel reports; a network of the small recipes' size with random weights stands for a trained one.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from diffse import checkpoint, recipes, settings
from diffse.settings_reader import to_plain
from diffse.storage import write_json

RESULT = Path(__file__).parent / "results" / "enhancement_memory.json"
RATE = 16000
CHILD = """
import resource, sys
from diffse.cli import main
code = main(sys.argv[1:])
print("peak_kb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def make_checkpoint(folder: Path) -> Path:
    """The network of `bridge_small` with random weights."""
    network = settings.NCSNpp(
        nf=32, ch_mult=(1, 1, 2, 2), num_res_blocks=1, attn_resolutions=(), bottleneck_attention=False, stem=4
    )
    train = settings.Train(process=settings.SBVE(), objective=settings.DataPrediction(), network=network)
    torch.manual_seed(0)
    description = {
        "recipe": "benchmark",
        "step": 0,
        "train": to_plain(train),
        "stft": to_plain(settings.Stft()),
        "enhance": to_plain(settings.Enhance(sampler=settings.BridgeODE(steps=1))),
    }
    checkpoint.save(folder, recipes.build_network(train, settings.Stft()), description)
    return folder


def make_audio(path: Path, seconds: int) -> Path:
    """Noise with a syllable-like envelope, written piece by piece."""
    rng = np.random.default_rng(seconds)
    with soundfile.SoundFile(str(path), "w", RATE, 1, "PCM_16") as sink:
        for second in range(seconds):
            t = second + np.arange(RATE) / RATE
            sink.write(0.1 * rng.standard_normal(RATE) * np.abs(np.sin(9 * t)))
    return path


def peak_mb(source: Path, model: Path, folder: Path) -> float:
    """Peak resident size of one enhancement, MB."""
    arguments = ["enhance", str(source), str(folder / "out.wav"), "--checkpoint", str(model), "--overwrite"]
    command = [sys.executable, "-c", CHILD, *arguments, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return int(done.stdout.split("peak_kb")[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_checkpoint(folder / "model")
        files = {seconds: make_audio(folder / f"{seconds}.wav", seconds) for seconds in (10, 600)}
        peaks = {
            seconds: [peak_mb(file, model, folder) for _ in range(repeats)] for seconds, file in files.items()
        }
    medians = {seconds: statistics.median(values) for seconds, values in peaks.items()}
    result = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peak_mb": {str(seconds): [round(value, 1) for value in values] for seconds, values in peaks.items()},
        "ratio_600_s_to_10_s": round(medians[600] / medians[10], 3),
        "goal": 1.2,
    }
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))
    print("\n| audio | peak memory, median |\n|---|---|")
    for seconds, value in medians.items():
        print(f"| {seconds} s | {value:.0f} MB |")


if __name__ == "__main__":
    main()
