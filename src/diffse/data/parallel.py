"""Many processes, one order: results come as if one process had done the work."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from diffse.errors import DiffseError

_PENDING = 2  # chunks per process that may wait for the consumer, which bounds memory
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def process_count(asked: int) -> int:
    """Processes to use: `asked`, or one per core this process may run on when it is 0."""
    if asked > 0:
        return asked
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def ordered_map(
    function: Callable[[Any], Any], items: Iterable[Any], processes: int = 0, chunk: int = 1
) -> Iterator[Iterator[Any]]:
    """Context of an iterator over function(item) in order, computed by `processes` single-threaded processes.

    Only a few chunks of items are under way at a time, so a slow consumer bounds the memory. When the context
    ends, however it ends, no worker runs any more. One process computes in the caller. `function` must be
    importable. DiffseError when a worker dies.
    """
    processes = process_count(processes)
    if processes == 1:
        yield map(function, items)
        return
    # spawn: a forked child inherits locks that other threads of the parent may hold
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_settle)
    try:
        yield _stream(pool, function, iter(items), processes, chunk)
    except BrokenProcessPool:
        raise DiffseError(
            "a worker process died, most likely for want of memory; set 'processes' to a smaller number"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _stream(
    pool: ProcessPoolExecutor, function: Callable, items: Iterator, processes: int, chunk: int
) -> Iterator[Any]:
    pending: deque = deque()
    while True:
        while len(pending) < _PENDING * processes and (batch := list(islice(items, chunk))):
            pending.append(pool.submit(_apply, function, batch))
        if not pending:
            return
        yield from pending.popleft().result()


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
