"""Many processes, one order: results come as if one process had done the work."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from diffse.errors import DiffseError

_AHEAD = 2  # chunks per process that may wait for the consumer, which bounds memory
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def process_count(asked: int) -> int:
    """Processes to use: `asked`, or one per core this process may run on when it is 0."""
    if asked > 0:
        return asked
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """Single-threaded worker processes, started when first needed; a context manager.

    One process computes in the caller. When the context ends, however it ends, no worker runs any more.
    """

    def __init__(self, processes: int = 0):
        self.processes = process_count(processes)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any], chunk: int = 1, ahead: int = _AHEAD
    ) -> Iterator[Any]:
        """Yield function(item) for each item in order; `function` must be importable.

        Only `ahead` chunks of items per process are under way at a time, so a slow consumer bounds the memory;
        more of them keep processes busy where one item takes much longer than the others. Close the
        iterator (contextlib.closing) where what workers write must be complete before the consumer goes on
        after an error. DiffseError when a worker dies.
        """
        if self.processes == 1:
            return (function(item) for item in items)
        if self._pool is None:
            # spawn: a forked child inherits locks that other threads of the parent may hold
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, context, initializer=_settle)
        return self._stream(self._pool, function, iter(items), chunk, ahead * self.processes)

    def _stream(
        self, pool: ProcessPoolExecutor, function: Callable, items: Iterator, chunk: int, most: int
    ) -> Iterator[Any]:
        pending: deque = deque()
        try:
            while True:
                while len(pending) < most and (batch := list(islice(items, chunk))):
                    pending.append(pool.submit(_apply, function, batch))
                if not pending:
                    return
                yield from pending.popleft().result()
        except BrokenProcessPool:
            raise DiffseError(
                "a worker process died, most likely for want of memory; set 'processes' to a smaller number"
            ) from None
        finally:
            # Only what runs already is waited for: a cancelled future of a stopped pool is never notified.
            wait([future for future in pending if not future.cancel()])


def _apply(function: Callable, batch: list) -> list:
    return [function(item) for item in batch]


def _settle() -> None:
    """Keep a worker to one thread, and let it end with its parent."""
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # before anything imports NumPy
    # Ctrl-C reaches every process of the terminal; the parent alone answers it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, which would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
