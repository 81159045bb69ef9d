"""What enhancing costs in arithmetic and memory, measured while it happens."""

import contextlib
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch

from diffse.enhancer import Enhancer

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

COUNTED_SECONDS = 4.0  # of audio whose arithmetic is counted
_RESET = "5"  # what Linux takes for: forget the highest resident size so far


def macs_per_second(enhancer: Enhancer, wave: np.ndarray, key: str = "") -> float:
    """Multiply-accumulates that enhancing takes per second of audio, to four digits.

    Counted by PyTorch operation by operation while the first `COUNTED_SECONDS` of `wave` [samples], at the
    system's rate, are enhanced: convolutions, matrix products and attention, all sampling steps and the padding
    included. What else there is (transforms, sums, activations) takes little and is not counted.
    """
    apart = Enhancer(
        enhancer.system, enhancer.device, enhancer.batch, enhancer.seed
    )  # counts evaluations apart
    wave = wave[: max(1, round(COUNTED_SECONDS * enhancer.rate))]
    with counter() as counted:
        apart.many([wave], enhancer.rate, [key])
    return float(f"{counted.get_total_flops() / 2 / (len(wave) / enhancer.rate):.4g}")


def counter() -> "FlopCounterMode":
    """Counts its block's floating-point operations; Winograd's algorithm as a direct convolution."""
    from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

    def convolution(x: Sequence, weight: Sequence, *_: object, out_shape: Sequence, **__: object) -> int:
        return conv_flop_count(x, weight, out_shape)

    mapping = {torch.ops.aten._nnpack_spatial_convolution: convolution}
    return FlopCounterMode(display=False, custom_mapping=mapping)


class PeakMemory:
    """The most memory in use while its block runs: of the GPU, or of this process where `device` is a CPU.

    `megabytes` (10^6 bytes) is there when the block has ended. Where the system cannot forget an earlier peak
    of the process, it is the peak since the process began.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.megabytes = device, 0.0

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with contextlib.suppress(OSError):  # not on this system
                Path("/proc/self/clear_refs").write_text(_RESET)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        on_gpu = self.device.type == "cuda"
        taken = torch.cuda.max_memory_allocated(self.device) if on_gpu else _resident()
        self.megabytes = round(taken / 1e6, 1)


def _resident() -> int:
    """Bytes of the highest resident size of this process."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return taken if sys.platform == "darwin" else taken * 1024
