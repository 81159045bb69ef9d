"""Memory that is used again: fresh pages cost a training batch half as much time as what is written there."""

import sys
import threading

import numpy as np
import torch

_ALONE = 3  # references to an array that no tensor uses: the list's, the loop's, and that of the question


class Buffers:
    """Complex tensors in memory that nobody refers to any more; at most `kept` pieces are remembered.

    A tensor, a view of it or an array made of it keeps its memory from being given out again. For any number of
    threads.
    """

    def __init__(self, kept: int = 16):
        self.kept = kept
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A complex64 tensor of this shape, with anything in it."""
        with self._lock:
            for array in self._arrays:
                if array.shape == shape and sys.getrefcount(array) == _ALONE:
                    return torch.from_numpy(array)
            array = np.empty(shape, np.complex64)
            self._arrays = [*self._arrays[-self.kept + 1 :], array]
            return torch.from_numpy(array)
