"""Noises of the demo corpus, synthesised: coloured, modulated, hum, clicks and traffic; and babble from voices.

Each maker takes a generator, a length in samples and a rate in Hz, and returns float64 [samples] of any level.
"""

from collections.abc import Callable

import numpy as np


def coloured(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """Noise whose power falls as 1/f^k; k wanders between pink (1) and brown (2)."""
    weight = _slow(rng, n, rate, seconds=4.0)
    return (1.0 - weight) * _shaped(rng, n, rate, 1.0) + weight * _shaped(rng, n, rate, 2.0)


def modulated(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """Band-limited noise under a pulsating envelope, as of a fan or a washing machine."""
    low = rng.uniform(150.0, 500.0)
    band = _shaped(rng, n, rate, 0.6, low=low, high=low * rng.uniform(6.0, 12.0))
    speed = rng.uniform(1.5, 6.0) * (1.0 + 0.3 * (_slow(rng, n, rate, seconds=3.0) - 0.5))  # Hz
    phase = 2.0 * np.pi * np.cumsum(speed) / rate
    return band * (1.0 + 0.9 * np.sin(phase)) + 0.1 * _shaped(rng, n, rate, 1.0)


def hum(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """Mains hum: 24 harmonics of 50 or 60 Hz over a little hiss, its level drifting."""
    mains = float(rng.choice([50.0, 60.0])) * (1.0 + 0.002 * (_slow(rng, n, rate, seconds=5.0) - 0.5))
    phase = 2.0 * np.pi * np.cumsum(mains) / rate
    out = 0.03 * _shaped(rng, n, rate, 0.5)
    for harmonic in range(1, 25):
        strength = rng.uniform(0.3, 1.0) / harmonic**0.7
        out = out + strength * np.sin(harmonic * phase + rng.uniform(0.0, 2.0 * np.pi))
    return out * (0.6 + 0.8 * _slow(rng, n, rate, seconds=2.0))


def clicks(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """Impulses at random moments, about eight a second, each ringing at its own pitch; faint hiss below."""
    out = 0.01 * _shaped(rng, n, rate, 1.0)
    length = int(0.12 * rate)
    time = np.arange(length) / rate
    for start in np.sort(rng.integers(0, max(1, n - length), size=max(1, int(8.0 * n / rate)))):
        decay, pitch = rng.uniform(0.004, 0.03), rng.uniform(400.0, 0.35 * rate)
        ring = np.exp(-time / decay) * (np.sin(2.0 * np.pi * pitch * time) + rng.standard_normal(length))
        end = min(n, start + length)
        out[start:end] += rng.uniform(0.2, 1.0) * ring[: end - start]
    return out


def traffic(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """Low rumble of engines with vehicles that pass: the hiss of their tyres rises and falls."""
    rumble = _shaped(rng, n, rate, 2.0, low=30.0, high=350.0)
    tyres = _shaped(rng, n, rate, 1.0, low=300.0, high=2500.0)
    time = np.arange(n) / rate
    near = np.full(n, 0.15)
    for _ in range(max(1, round(n / rate / 3.0))):
        middle, width = rng.uniform(0.0, n / rate), rng.uniform(0.4, 1.2)  # s
        near += rng.uniform(0.4, 1.2) * np.exp(-0.5 * ((time - middle) / width) ** 2)
    return rumble * (0.5 + near) + 0.7 * tyres * near


def babble(rng: np.random.Generator, n: int, talkers: list[list[np.ndarray]]) -> np.ndarray:
    """Several talkers at once, equally loud, each repeating its utterances from another moment on."""
    out = np.zeros(n)
    for utterances in talkers:
        voice = np.concatenate(utterances).astype(np.float64)
        voice = np.roll(voice, int(rng.integers(len(voice)))) / np.sqrt(np.mean(np.square(voice)))
        out += np.resize(voice, n)
    return out


MAKERS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "clicks": clicks,
    "coloured": coloured,
    "hum": hum,
    "modulated": modulated,
    "traffic": traffic,
}


def _shaped(
    rng: np.random.Generator, n: int, rate: int, slope: float, low: float = 20.0, high: float = np.inf
) -> np.ndarray:
    """Gaussian noise with power 1/f^slope between `low` and `high` Hz, RMS 1."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.fft.rfftfreq(n, 1.0 / rate)
    shape = np.maximum(frequency, low) ** (-slope / 2.0)
    # soft edges: 1/(1+(f/f0)^8) falls by 24 dB an octave in power, without ringing to speak of
    shape /= 1.0 + (np.maximum(low - frequency, 0.0) / (0.3 * low)) ** 4
    if np.isfinite(high):
        shape /= 1.0 + (frequency / high) ** 4
    wave = np.fft.irfft(spectrum * shape, n)
    return wave / np.sqrt(np.mean(np.square(wave)))


def _slow(rng: np.random.Generator, n: int, rate: int, seconds: float) -> np.ndarray:
    """A curve in [0, 1] through random points `seconds` apart."""
    points = rng.uniform(size=int(n / rate / seconds) + 2)
    return np.interp(np.arange(n) / rate, np.arange(len(points)) * seconds, points)
