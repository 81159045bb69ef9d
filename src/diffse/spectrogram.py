"""Short-time Fourier transform and amplitude compression, with their exact inverses.

The diffusion runs on compressed spectrograms: c~ = beta |c|^alpha e^{i angle c} (paper 000, section V-A).
Published front end at 16 kHz: n_fft 510, hop 128, periodic Hann window, alpha = 1/2, beta = 0.15.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffse.errors import DiffseError


@dataclass(frozen=True)
class Spectrogram:
    """STFT and the compression of its magnitudes. All methods are differentiable, also where X = 0.

    `transform`: "exponent" factor |X|^exponent e^{i angle X}; "log" factor log(1 + |X|) e^{i angle X};
    "none" X itself (factor and exponent unused).
    Raises DiffseError when the numbers cannot make an invertible transform.
    """

    n_fft: int = 510  # samples; the window has the same length
    hop: int = 128  # samples
    window: Literal["hann", "sqrthann"] = "hann"
    exponent: float = 0.5  # alpha
    factor: float = 0.15  # beta
    transform: Literal["exponent", "log", "none"] = "exponent"

    def __post_init__(self) -> None:
        if not 1 <= self.hop <= self.n_fft // 2:
            raise DiffseError(
                f"STFT of n_fft {self.n_fft} and hop {self.hop} has no stable inverse; the hop must lie "
                "between 1 and n_fft / 2"
            )
        if not (self.exponent > 0 and self.factor > 0):
            raise DiffseError(
                f"STFT exponent {self.exponent} and factor {self.factor}: both must be positive numbers"
            )

    @property
    def freq_bins(self) -> int:
        """F, the number of frequency bins."""
        return self.n_fft // 2 + 1

    def frames(self, n_samples: int) -> int:
        """T, the number of frames that `stft` gives for a signal of `n_samples` samples."""
        return 1 + max(n_samples, self.freq_bins) // self.hop

    def span(self, n_samples: int, start: int, length: int) -> tuple[int, int, int]:
        """What frames start ... start + length - 1 of a signal are made of: (first, last, before).

        `stft(wave[..., first:last])[..., before : before + length]` are those frames exactly as in the
        transform of the whole signal: the cut leaves a margin as wide as half a window on both sides.
        """
        margin = self.n_fft // 2 // self.hop + 1
        before = min(start, margin)
        last = min((start + length - 1 + margin) * self.hop, n_samples)
        return (start - before) * self.hop, last, before

    def stft(self, wave: Tensor) -> Tensor:
        """Real [..., L], any L >= 1 -> complex [..., F, T]; frame t is centred on sample t * hop.

        The ends are reflected. Reflection needs n_fft // 2 + 1 samples, so shorter signals are first
        followed by zeros up to that length.
        """
        length = wave.shape[-1]
        if length < 1:
            raise ValueError("an empty signal has no spectrogram")
        flat = wave.reshape(-1, length)
        if length < self.freq_bins:
            flat = torch.nn.functional.pad(flat, (0, self.freq_bins - length))
        X = torch.stft(flat, window=self._window(wave), pad_mode="reflect", **self._frame_options())
        return X.reshape(*wave.shape[:-1], *X.shape[-2:])

    def istft(self, X: Tensor, length: int) -> Tensor:
        """Complex [..., F, T] -> real [..., length]; the inverse of `stft` for the signal's length."""
        flat = X.reshape(-1, *X.shape[-2:])
        wave = torch.istft(
            flat, window=self._window(X.real), length=length, **self._frame_options(inverse=True)
        )
        return wave.reshape(*X.shape[:-2], length)

    def compress(self, X: Tensor) -> Tensor:
        """Complex X -> compressed X of the same shape. Exactly 0 at 0.

        Scaling by a function of |X| gives what angle and exp would, without computing either.
        """
        if self.transform == "none":
            return X
        magnitude = _magnitude(X)
        if self.transform == "log":
            return _scale(X, self.factor * torch.log1p(magnitude) / magnitude)
        if self.exponent == 0.5:
            return _scale(X, self.factor * magnitude.rsqrt())
        return _scale(X, self.factor * magnitude.pow(self.exponent - 1))

    def decompress(self, X: Tensor) -> Tensor:
        """The exact inverse of `compress`."""
        if self.transform == "none":
            return X
        magnitude = _magnitude(X)
        if self.transform == "log":
            return _scale(X, torch.expm1(magnitude / self.factor) / magnitude)
        if self.exponent == 0.5:
            return _scale(X, magnitude / self.factor**2)
        scale = self.factor ** (-1 / self.exponent)
        return _scale(X, scale * magnitude.pow(1 / self.exponent - 1))

    def analyse(self, wave: Tensor) -> Tensor:
        """Real [..., L] -> compressed complex [..., F, T]."""
        return self.compress(self.stft(wave))

    def synthesise(self, X: Tensor, length: int) -> Tensor:
        """Compressed complex [..., F, T] -> real [..., length]."""
        return self.istft(self.decompress(X), length)

    def _window(self, like: Tensor) -> Tensor:
        return _window(self.window, self.n_fft, like.dtype, like.device)

    def _frame_options(self, inverse: bool = False) -> dict:
        options = {"n_fft": self.n_fft, "hop_length": self.hop, "center": True, "onesided": True}
        return options if inverse else {**options, "return_complex": True}


def pad_frames(X: Tensor, multiple: int, mode: Literal["zero", "reflection", "replication"] = "zero") -> Tensor:
    """[..., F, T] -> [..., F, T'] with T' the next multiple of `multiple`; new frames come last.

    Reflection runs to and fro as often as needed, so that it also works for fewer frames than padding.
    """
    frames = X.shape[-1]
    added = -frames % multiple
    if added == 0:
        return X
    if mode == "zero":
        return torch.nn.functional.pad(X, (0, added))
    index = torch.arange(frames + added, device=X.device)
    if mode == "replication" or frames == 1:
        index = index.clamp_max(frames - 1)
    else:
        period = 2 * (frames - 1)
        index = (frames - 1) - ((index % period) - (frames - 1)).abs()
    return X.index_select(-1, index)


def _magnitude(X: Tensor) -> Tensor:
    """|X|, but never 0: the slope of |X|^alpha there is infinite, and infinity times 0 is NaN."""
    tiny = torch.finfo(X.real.dtype).tiny ** 0.5  # 1e-19 in single precision: below any sound
    return X.abs().clamp_min(tiny)


def _scale(X: Tensor, scale: Tensor) -> Tensor:
    """Complex times real, without first making the real factor complex."""
    return torch.view_as_complex(torch.view_as_real(X) * scale.unsqueeze(-1))


@functools.lru_cache(maxsize=16)
def _window(name: str, n_fft: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept windows must be ordinary tensors: one born in inference mode could not serve training later.
    with torch.inference_mode(False), torch.no_grad():
        window = torch.hann_window(n_fft, periodic=True, dtype=torch.float64)
        if name == "sqrthann":
            window = window.sqrt()
        return window.to(device=device, dtype=dtype)
