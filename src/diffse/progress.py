"""How far the running verb is: what its bar shows on a terminal also goes into the run record and the log."""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import tqdm as _tqdm

SECONDS = 30.0  # between log lines where there is no terminal


class _Work:
    """One countable piece of work: so many of `total` units are done."""

    def __init__(self, what: str, total: int | None, unit: str, done: int) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._first, self._began = done, time.monotonic()

    def facts(self) -> dict[str, Any]:
        """{"what", "done", "total", "unit", "eta_seconds"}; what is not known is None."""
        gone, new = time.monotonic() - self._began, self.done - self._first
        eta = (self.total - self.done) * gone / new if self.total is not None and new > 0 else None
        facts = {"what": self.what, "done": self.done, "total": self.total, "unit": self.unit}
        return facts | {"eta_seconds": None if eta is None else round(max(eta, 0.0), 1)}


_current: _Work | None = None


def begin(what: str, total: int | None, unit: str, done: int = 0) -> None:
    """Announce work of `total` units, of which `done` are done already."""
    global _current
    _current = _Work(what, total, unit, done)


def report(done: int) -> None:
    """Say how much of the announced work is done."""
    if _current is not None:
        _current.done = done


def forget() -> None:
    """Nothing is under way any more."""
    global _current
    _current = None


def facts() -> dict[str, Any] | None:
    """The work under way as `_Work.facts`, None when nothing was announced."""
    return None if _current is None else _current.facts()


class tqdm(_tqdm.tqdm):
    """tqdm's bar, which reports what it counts, and without a terminal says it in a log line now and then.

    `counted`: units done, also where the bar is off and tqdm's own `n` stands still.
    """

    def __init__(self, iterable=None, desc: str | None = None, total: int | None = None, **options: Any):
        super().__init__(iterable, desc, total, **options)
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)
        self.counted, self._iterating = int(options.get("initial", 0)), False
        self._said = time.monotonic()
        begin(desc or "", total, options.get("unit", ""), self.counted)

    def __iter__(self) -> Iterator[Any]:
        self._iterating = True  # tqdm's own loop calls update, but not when the bar is off
        for item in super().__iter__():
            yield item
            self._count(1)

    def update(self, n: float | None = 1) -> bool | None:
        if not self._iterating:
            self._count(int(n or 0))
        return super().update(n)

    def _count(self, n: int) -> None:
        self.counted += n
        report(self.counted)
        if self.disable and time.monotonic() - self._said >= SECONDS:
            print(json.dumps({"event": "progress", **(facts() or {})}), file=sys.stderr, flush=True)
            self._said = time.monotonic()
