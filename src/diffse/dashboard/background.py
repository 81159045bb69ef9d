"""Values that come from afar: a page takes what there is and never waits for the rest."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from diffse.errors import DiffseError

T = TypeVar("T")


@dataclass(frozen=True)
class Seen(Generic[T]):
    """What is known of a value. `error`: why the last attempt failed ("" if it did not)."""

    value: T
    error: str
    pending: bool  # an attempt is under way and nothing has been seen before it


class Background(Generic[T]):
    """Calls `fetch` in its own thread when someone asks and the last value is older than `every` seconds."""

    def __init__(self, fetch: Callable[[], T], empty: T, every: float) -> None:
        self._fetch, self._every = fetch, every
        self._seen = Seen(empty, "", True)
        self._at = -every
        self._busy: threading.Thread | None = None
        self._lock = threading.Lock()

    def latest(self, patience: float = 0.0) -> Seen[T]:
        """What is known now; waits at most `patience` seconds for a first value."""
        with self._lock:
            if self._busy is None and time.monotonic() - self._at >= self._every:
                self._busy = threading.Thread(target=self._refresh, daemon=True)
                self._busy.start()
            busy = self._busy
        if busy is not None and self._seen.pending and patience > 0:
            busy.join(patience)
        return self._seen

    def _refresh(self) -> None:
        try:
            self._seen = Seen(self._fetch(), "", False)
        except DiffseError as error:
            self._seen = Seen(self._seen.value, str(error), False)
        except Exception as error:  # of a library and a server that nobody here knows: the page goes on
            text = " ".join(str(error).split())[:200]
            self._seen = Seen(self._seen.value, f"{type(error).__name__}: {text}", False)
        finally:
            with self._lock:
                self._at, self._busy = time.monotonic(), None
