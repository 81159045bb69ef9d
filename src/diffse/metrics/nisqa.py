"""NISQA: overall quality and its four dimensions, without a reference.

Mittag et al., "NISQA: a deep CNN-self-attention model for multidimensional speech quality prediction with
crowdsourced datasets", Interspeech 2021. Segments of a mel spectrogram go through a CNN, self-attention relates
them, and one attention pooling per dimension sums them up. Names of parameters are those of the authors' file
(version 2.0, `nisqa.tar`), which the user supplies; as published, signals enter at their own rate.
"""

import functools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffse.errors import DiffseError
from diffse.metrics import weights
from diffse.metrics.checks import Missing, require_seconds, require_sound
from diffse.metrics.mel import mel_filters
from diffse.metrics.tools import Tools, one_thread

MIN_SECONDS = 0.5
_N_FFT, _HOP, _WINDOW, _TOP = 4096, 0.01, 0.02, 20000.0  # samples, s, s, Hz
_MELS, _WIDTH, _STRIDE = 48, 15, 4  # bands, frames of a segment and between segments
_MAX_SEGMENTS = 1300
_POOLED = ((24, 7), (12, 5), (6, 3))  # (bands, frames) behind each pooling


def nisqa(
    clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int, *, tools: Tools
) -> tuple[float, ...]:
    """Quality, noisiness, coloration, discontinuity and loudness of `enhanced` [samples]; each a MOS."""
    network = _network(tools.file("nisqa"))
    require_sound(enhanced=enhanced)
    require_seconds(enhanced, rate, MIN_SECONDS)
    if len(enhanced) <= _N_FFT // 2:
        raise Missing(f"shorter than the {_N_FFT // 2} samples of half a transform")
    segments = _segments(mel_spectrogram(enhanced, rate))
    if len(segments) > _MAX_SEGMENTS:
        raise Missing(f"longer than the {_MAX_SEGMENTS * _STRIDE * _HOP:g} s that NISQA takes")
    with one_thread():
        mos, noisiness, discontinuity, coloration, loudness = network(torch.from_numpy(segments)).tolist()
    return mos, noisiness, coloration, discontinuity, loudness


def mel_spectrogram(wave: np.ndarray, rate: int) -> np.ndarray:
    """Mel magnitudes in dB, at most 80 below the highest: float32 [48, frames]."""
    length, hop = int(rate * _WINDOW), int(rate * _HOP)
    window = np.zeros(_N_FFT)
    start = (_N_FFT - length) // 2
    window[start : start + length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    padded = np.pad(wave.astype(np.float64), _N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::hop]
    mel = mel_filters(rate, _N_FFT, _MELS, _TOP) @ np.abs(np.fft.rfft(frames * window, axis=1)).T
    decibels = 20 * np.log10(np.maximum(mel, 1e-4))
    return np.maximum(decibels, decibels.max() - 80).astype(np.float32)


def _segments(mel: np.ndarray) -> np.ndarray:
    """[48, frames] -> [segments, 1, 48, 15], one every 4 frames."""
    windows = np.lib.stride_tricks.sliding_window_view(mel, _WIDTH, axis=1)[:, ::_STRIDE]
    return np.ascontiguousarray(windows.transpose(1, 0, 2))[:, None]


@functools.cache
def _network(path: Path) -> "NISQA":
    content = weights.read(path)
    state = content.get("model_state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise DiffseError(f"{path}: not weights of NISQA")
    network = NISQA()
    weights.load(network, state, path)
    return network


class NISQA(nn.Module):
    """Segments [S, 1, 48, 15] -> quality, noisiness, discontinuity, coloration, loudness: [5]."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = _Holder(_CNN())
        self.time_dependency = _Holder(_SelfAttention())
        self.pool_layers = nn.ModuleList(_Holder(_AttentionPooling()) for _ in range(5))

    def forward(self, segments: Tensor) -> Tensor:
        features = self.time_dependency.model(self.cnn.model(segments))
        return torch.cat([pool.model(features) for pool in self.pool_layers])


class _Holder(nn.Module):
    """One level more in the names of parameters, as the weights file has it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class _CNN(nn.Module):
    """Six convolutions with adaptive max pooling: [S, 1, 48, 15] -> [S, 384]."""

    def __init__(self, channels: tuple[int, ...] = (1, 16, 32, 64, 64, 64, 64)) -> None:
        super().__init__()
        for i in range(1, 7):
            padding = (1, 0) if i == 6 else 1  # the last one leaves a width of one
            self.add_module(f"conv{i}", nn.Conv2d(channels[i - 1], channels[i], 3, padding=padding))
            self.add_module(f"bn{i}", nn.BatchNorm2d(channels[i]))

    def forward(self, x: Tensor) -> Tensor:
        pooled = dict(zip((1, 2, 4), _POOLED, strict=True))
        for i in range(1, 7):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
            if i in pooled:
                x = F.adaptive_max_pool2d(x, pooled[i])
        return x.flatten(1)


class _SelfAttention(nn.Module):
    """Two layers of self-attention over the segments: [S, 384] -> [S, 64]."""

    def __init__(self, inputs: int = 384, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.linear = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(_Layer(width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.linear(x))
        for layer in self.layers:
            x = layer(x)
        return x


class _Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, 1)
        self.linear1, self.linear2 = nn.Linear(width, width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(x, x, x, need_weights=False)[0])
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class _AttentionPooling(nn.Module):
    """Weighted mean over the segments, and its projection: [S, 64] -> [1]."""

    def __init__(self, width: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, 1)
        self.linear3 = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        attention = F.softmax(self.linear2(F.relu(self.linear1(x))), dim=0)
        return self.linear3((attention * x).sum(dim=0))
