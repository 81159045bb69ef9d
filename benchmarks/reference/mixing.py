"""Mixtures and rooms as published scripts make them: one file after the other, whole noise files."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def mix(source: Path, target: Path, mixtures: int) -> None:
    """As published scripts do."""
    rng = np.random.default_rng(0)
    noises = sorted(source.glob("noise/*/*.wav"))
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("clean/*/*.wav")):
        for number in range(mixtures):
            clean, rate = soundfile.read(path)
            noise, _ = soundfile.read(noises[rng.integers(len(noises))])
            start = rng.integers(len(noise) - len(clean))
            noise = noise[start : start + len(clean)]
            factor = 10 ** (-rng.uniform(0, 20) / 20) * np.sqrt(np.mean(clean**2) / np.mean(noise**2))
            for name, wave in (("clean", clean), ("noisy", clean + factor * noise)):
                soundfile.write(target / f"{path.stem}_{number}_{name}.wav", wave, rate)


def simulate(room) -> np.ndarray:
    """A room and, in a second simulation, its direct sound, by pyroomacoustics alone."""
    import pyroomacoustics as pra

    absorption, order = pra.inverse_sabine(room.t60, room.size)
    kinds = (
        {"materials": pra.Material(absorption), "max_order": min(3, order), "ray_tracing": True},
        {"materials": pra.Material(0.99), "max_order": 0},
    )
    for kind in kinds:
        box = pra.ShoeBox(room.size, RATE, **kind)
        box.add_source(list(room.source))
        box.add_microphone(list(room.microphone))
        pra.random.seed(room.seed)
        box.compute_rir()
        if "ray_tracing" in kind:
            wet = box.rir[0][0]
    return wet
