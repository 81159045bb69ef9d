"""Scores that were computed before, found again by everything that they depend on.

One SQLite file per user (`paths.user_cache()`), outside of what DVC tracks. Any number of processes may read
and write it at once. An entry carries its own checksum: one that was damaged is computed anew. The file may be
deleted at any time, and it forgets the oldest entries beyond `MOST`.
"""

import functools
import hashlib
import json
import logging
import math
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from diffse import paths

log = logging.getLogger(__name__)

MOST = 1_000_000  # entries, about 250 bytes each
_WAIT = 30.0  # seconds for another process to finish its write
_AT_ONCE = 500  # keys of one query
_TABLE = "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, value TEXT NOT NULL, seal TEXT NOT NULL)"

Scores = tuple[list[float], str]


def default_path() -> Path:
    """The user's file of scores."""
    return paths.user_cache() / "scores.sqlite"


@functools.cache
def opened(path: Path) -> "ScoreCache":
    """The cache at `path`, opened once per process."""
    return ScoreCache(path)


class ScoreCache:
    """Key -> (values of a metric, reason). Trouble with the file never stops a caller: it computes then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned = False

    def get(self, keys: Iterable[str]) -> dict[str, Scores]:
        """The sound entries among `keys`."""
        keys, rows = list(keys), []
        if not self.path.is_file():
            return {}
        try:
            with self._connection() as connection:
                for start in range(0, len(keys), _AT_ONCE):
                    some = keys[start : start + _AT_ONCE]
                    marks = ",".join("?" * len(some))
                    query = f"SELECT key, value, seal FROM scores WHERE key IN ({marks})"
                    rows += connection.execute(query, some).fetchall()
        except sqlite3.Error as error:
            self._trouble(error)
            return {}
        return {key: _decoded(value) for key, value, seal in rows if seal == _seal(key, value)}

    def put(self, entries: dict[str, Scores]) -> None:
        """Keep `entries`; all of them, or none if the file cannot be written."""
        if not entries:
            return
        texts = {key: _encoded(scores) for key, scores in entries.items()}
        rows = [(key, value, _seal(key, value)) for key, value in texts.items()]
        for attempt in (1, 2):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self._connection() as connection:
                    connection.execute(_TABLE)
                    connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", rows)
                    _forget(connection)
                return
            except (sqlite3.Error, OSError) as error:
                damaged = isinstance(error, sqlite3.DatabaseError) and not _is_busy(error)
                self._trouble(error)
                if not damaged or attempt == 2:
                    return
                self.path.unlink(missing_ok=True)

    def _connection(self) -> "_Closing":
        return _Closing(self.path)

    def _trouble(self, error: Exception) -> None:
        if not self._warned:
            log.warning("%s: not used, so that scores are computed again (%s)", self.path, error)
        self._warned = True


class _Closing:
    """A connection whose block is one transaction, and that is closed behind it."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=_WAIT)

    def __enter__(self) -> sqlite3.Connection:
        return self._connection

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._connection.commit()
        finally:
            self._connection.close()


def _is_busy(error: Exception) -> bool:
    """Locked, full or read-only: the file itself is sound."""
    return isinstance(error, sqlite3.OperationalError)


def _forget(connection: sqlite3.Connection) -> None:
    """Drop the oldest entries, a tenth at once, when there are too many."""
    (newest,), (oldest,) = (
        connection.execute(f"SELECT {which}(rowid) FROM scores").fetchone() for which in ("max", "min")
    )
    if newest - oldest >= MOST:
        connection.execute("DELETE FROM scores WHERE rowid <= ?", (newest - MOST + MOST // 10,))


def _seal(key: str, value: str) -> str:
    return hashlib.sha256(f"{key}\0{value}".encode()).hexdigest()[:16]


def _encoded(scores: Scores) -> str:
    values, reason = scores
    return json.dumps([[None if math.isnan(value) else value for value in values], reason])


def _decoded(value: str) -> Scores:
    values, reason = json.loads(value)
    return [math.nan if found is None else float(found) for found in values], reason
