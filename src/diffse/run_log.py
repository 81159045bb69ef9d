"""The last lines that a run said, kept beside its record: bounded, and without secrets."""

import contextlib
import io
import logging
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

LINES, COLUMNS = 300, 2000  # kept of a log: its last lines, the first characters of each
_URL_SECRET = re.compile(r"(://)[^/\s@\"']+@")
_NAMED_SECRET = re.compile(
    r"(?i)(bearer\s+|(?:x-amz-signature|x-amz-security-token|x-amz-credential|password|secret|token)=)[^\s&\"']+"
)
_SECRET_VARIABLE = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|ACCESS_KEY")
_SHORTEST = 8  # characters of a variable's value that is struck out wherever it stands


def redact(value: Any) -> Any:
    """Strike out what must not be kept: user names in URLs, tokens, values of variables that name secrets.

    value: text, or what JSON can hold; a new value of the same form comes back.
    """
    variables = os.environ.items()
    secrets = [v for name, v in variables if len(v) >= _SHORTEST and _SECRET_VARIABLE.search(name.upper())]
    return _redacted(value, secrets)


def _redacted(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item, secrets) for item in value]
    if not isinstance(value, str):
        return value
    value = _NAMED_SECRET.sub(r"\1***", _URL_SECRET.sub(r"\1***@", value))
    for secret in secrets:
        value = value.replace(secret, "***")
    return value


class Tail:
    """The last lines of a stream of text; of a bar that redraws its line, the last state."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES)
        self._open = ""  # the line that has no end yet
        self._lock = threading.Lock()

    def add(self, text: str) -> None:
        with self._lock:
            *whole, last = (self._open + text).split("\n")
            self._lines.extend(map(_shown, whole))
            self._open = last[-4 * COLUMNS :]

    def text(self) -> str:
        """All that is kept, redacted."""
        with self._lock:
            lines = [*self._lines, *([_shown(self._open)] if self._open else [])]
        return redact("\n".join(lines)) + "\n" if lines else ""


def _shown(line: str) -> str:
    """What a terminal would show of a line, cut to COLUMNS."""
    line = line.rstrip("\r").rpartition("\r")[2]
    return line if len(line) <= COLUMNS else line[:COLUMNS] + "…"


class _Tee:
    """A standard stream whose text goes to a Tail as well."""

    def __init__(self, stream: io.TextIOBase, tail: Tail) -> None:
        self._stream, self._tail = stream, tail

    def write(self, text: str) -> int:
        self._tail.add(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Handler(logging.Handler):
    """Keeps what diffse logs; warnings also reach the user, as they do without a handler."""

    def __init__(self, tail: Tail, stream: io.TextIOBase) -> None:
        super().__init__(logging.INFO)
        self._tail, self._stream = tail, stream

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{record.getMessage()}\n"
        self._tail.add(line)
        if record.levelno >= logging.WARNING:
            self._stream.write(line)
            self._stream.flush()


@contextlib.contextmanager
def kept() -> Iterator[Tail]:
    """Keep the tail of what the block writes to standard output and error, and of what diffse logs."""
    tail, logger = Tail(), logging.getLogger("diffse")
    before = (sys.stdout, sys.stderr)
    handler, level = _Handler(tail, sys.stderr), logger.level
    sys.stdout, sys.stderr = (_Tee(stream, tail) for stream in before)
    logger.addHandler(handler)
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    try:
        yield tail
    finally:
        sys.stdout, sys.stderr = before
        logger.removeHandler(handler)
        logger.setLevel(level)
