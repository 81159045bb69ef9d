"""Long signals in overlapping chunks of one size, joined by linear cross-fades."""

from collections.abc import Iterable, Iterator

import numpy as np


def plan(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """(start, stop) of the chunks of a signal of `length` samples.

    All chunks have `size` samples (one shorter chunk when the signal is shorter); neighbours share at least
    `overlap` samples. The last chunk is moved back to end with the signal, so that it has full context.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap {overlap} must be at least 0 and below the chunk size {size}")
    if length <= size:
        return [(0, length)]
    starts = [*range(0, length - size, size - overlap), length - size]
    return [(start, start + size) for start in starts]


def join(chunks: Iterable[tuple[tuple[int, int], np.ndarray]], overlap: int) -> Iterator[np.ndarray]:
    """Processed chunks ((start, stop), [..., stop - start]) in order -> pieces of the signal, in order.

    The cross-fade to the next chunk lies at the end of the previous one, `overlap` samples long, and its two
    weights sum to 1: chunks that agree are joined exactly. At most one chunk is held.
    """
    held, held_until = None, 0
    for (start, stop), wave in chunks:
        if held is None:
            held = wave
        else:
            begin = held_until - overlap  # where this chunk starts to fade in
            yield held[..., : held.shape[-1] - overlap]
            rise = (np.arange(1, overlap + 1, dtype=np.float32) / np.float32(overlap + 1)).astype(wave.dtype)
            tail = held[..., held.shape[-1] - overlap :]
            fresh = wave[..., begin - start :].copy()
            fresh[..., :overlap] = tail + rise * (fresh[..., :overlap] - tail)
            held = fresh
        held_until = stop
    if held is not None:
        yield held
