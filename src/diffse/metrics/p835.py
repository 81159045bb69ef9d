"""The P.835 network over overlapping windows, with the work that windows share done once.

It hears 9.01 s at a time, a window every second, so that eight ninths of its work on a long recording repeat
what the window before did. Its convolutions see a few frames only. Here they run once over the whole
recording; what zero padding changes at both ends of every window is computed for these ends alone. Scores
equal those of whole windows up to rounding (tests compare them).
"""

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from diffse.metrics import onnx_parts

FRAMES = 900  # of a window, 10 ms each
_SHIFT = 100  # frames from window to window
_POOLED = 4  # frames per column behind the second pooling, where a window's own work begins
_REACH = 2  # columns at either end of a window that padding changes: a column hears 6 frames before and after
_BINS = 161
_BLOCK = FRAMES // _POOLED  # columns computed at once, which bounds memory
# Values of the published graph: samples, log power [1, frames, bins], after two poolings, the raw scores.
_CUTS = ("input_1", "adjusted_input6", "mos_estimator_logpow/max_pooling2d/MaxPool_1_conv0", "Identity:0")


def raw_scores(windows: list[np.ndarray], network: Path) -> np.ndarray:
    """SIG, BAK and OVRL before their fit, [windows, 3].

    windows: float32 [144160] each; every one begins 1 s, 16000 samples, after the one before it.
    """
    to_power, to_columns, to_scores = _parts(network)
    found = [to_power.run(None, {_CUTS[0]: window[None]})[0] for window in windows]
    # of every window but the first only the last second is new: [1, 1, all frames, bins]
    power = np.concatenate([found[0], *(x[:, :, -_SHIFT:] for x in found[1:])], axis=2)
    columns = _shared(to_columns, power)
    views = [columns[:, _SHIFT // _POOLED * k :][:, :_BLOCK].copy() for k in range(len(windows))]
    if len(windows) > 1:
        width = 2 * _REACH * _POOLED  # frames from which the outer half of the columns is exact
        starts = _run(to_columns, np.concatenate([x[:, :, :width] for x in found[1:]]))
        ends = _run(to_columns, np.concatenate([x[:, :, -width:] for x in found[:-1]]))
        for view, start in zip(views[1:], starts, strict=True):
            view[:, :_REACH] = start[:, :_REACH]
        for view, end in zip(views[:-1], ends, strict=True):
            view[:, -_REACH:] = end[:, -_REACH:]
    return np.concatenate([to_scores.run(None, {_CUTS[2]: view[None]})[0] for view in views])


def _shared(to_columns: Any, power: np.ndarray) -> np.ndarray:
    """Columns [channels, columns, bins] of the power of a whole recording, block by block."""
    total = power.shape[2] // _POOLED
    parts = []
    for first in range(0, total, _BLOCK):
        last = min(first + _BLOCK, total)
        begin, end = max(0, first - _REACH), min(total, last + _REACH)
        block = _run(to_columns, power[:, :, begin * _POOLED : end * _POOLED])[0]
        parts.append(block[:, first - begin : last - begin])
    return np.concatenate(parts, axis=1)


def _run(session: Any, power: np.ndarray) -> np.ndarray:
    return session.run(None, {_CUTS[1]: np.ascontiguousarray(power)})[0]


@functools.cache
def _parts(network: Path) -> tuple[Any, Any, Any]:
    """The network in three sessions."""
    model = network.read_bytes()
    pairs = itertools.pairwise(_CUTS)
    return tuple(session(onnx_parts.between(model, start, end)) for start, end in pairs)


def session(model: bytes | str) -> Any:
    """A network on one thread, so that processes can share the cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
