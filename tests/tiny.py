"""A tiny project for tests: a corpus of synthetic pairs, settings and systems that train in seconds."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from diffse import settings

if TYPE_CHECKING:
    from torch import nn

NETWORK = {
    "name": "ncsnpp", "nf": 8, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [],
    "bottleneck_attention": False, "stem": 8, "zero_output": True,
}  # fmt: skip
TRAIN = {
    "network": NETWORK, "frames": 32, "batch": 2, "steps": 12, "lr": 2.0e-3, "checkpoint_every": 4,
    "validate_every": 6, "validate_files": 2, "threads": 1,
}  # fmt: skip
PARAMS = {
    "corpora": ["toy"],
    "train_corpora": ["toy"],
    "recipes": ["bridge", "score"],
    "externals": [],
    "sweeps": {},
    "swaps": {},
    "prepare": {
        "toy": {
            "kind": "folder", "min_seconds": 0.2, "processes": 1, "max_rejected": 0.0,
            "clean_lists": {"train": "train.txt", "valid": "valid.txt", "test": "test.txt"},
            "noise_lists": {"train": "train_noise.txt", "valid": "valid_noise.txt", "test": "test_noise.txt"},
        }
    },
    "train": {
        "bridge": {**TRAIN, "process": {"name": "sbve"}, "objective": {"name": "data_prediction"}},
        "score": {**TRAIN, "process": {"name": "ouve"}, "objective": {"name": "score_matching"}},
    },
    "enhance": {
        "bridge": {"sampler": {"name": "bridge_ode", "steps": 1}},
        "score": {"sampler": {"name": "pc", "steps": 2}},
    },
    "check": {"mixtures": {"min_band": 0.15}},
    "evaluate": {"metrics": ["si_sdr", "estoi"], "processes": 1, "bootstrap": 100},
}  # fmt: skip


def voice(seed: int, seconds: float, rate: int = 16000) -> np.ndarray:
    """A speech-like signal: a gliding harmonic tone under a syllable-like envelope, [samples]."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 1.5) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    envelope = 0.05 + np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * t), 0, None)
    return (0.1 * tone * envelope).astype(np.float32)


def make_sources(root: Path, count: int = 3, seconds: float = 1.0) -> None:
    """sources/toy: `count` utterances of one speaker and one noise recording per split, with lists."""
    from diffse import audio

    folder = root / "sources" / "toy"
    for place, split in enumerate(("train", "valid", "test")):
        names = [f"clean/{split}_speaker/{split}{i}.wav" for i in range(count)]
        for i, name in enumerate(names):
            audio.write(folder / name, voice(100 * place + i, seconds)[None], 16000)
        noise = np.random.default_rng(place).standard_normal((1, 32000)).astype(np.float32) * 0.1
        audio.write(folder / f"noise/white/{split}.wav", noise, 16000)
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")
        (folder / f"{split}_noise.txt").write_text(f"noise/white/{split}.wav\n")


def write_params(root: Path, **changes) -> settings.Params:
    """params.yaml of the tiny project; `changes` are dotted keys with '__' for '.'."""
    import copy

    params = copy.deepcopy(PARAMS)
    for key, value in changes.items():
        *path, last = key.split("__")
        block = params
        for part in path:
            block = block.setdefault(part, {})
        block[last] = value
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return settings.load(root / "params.yaml")


def make_project(root: Path, **changes) -> settings.Params:
    """Sources, settings, mixtures and cache."""
    from diffse.data import prepare, stft_cache

    make_sources(root)
    params = write_params(root, **changes)
    prepare.run(params, "toy", root)
    stft_cache.run(params, "toy", root)
    return params


def woken(network: "nn.Module", scale: float = 0.02) -> "nn.Module":
    """The network with random values where its weights start at zero, which hide the gradients behind them."""
    import torch

    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad and parameter.abs().max() < 1e-3:
                parameter.normal_(0, scale)
    return network
