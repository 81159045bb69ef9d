"""How a command ends: what the system refuses becomes one line, and a signal ends it in order."""

import contextlib
import errno
import os
import signal
from collections.abc import Iterator

from diffse.errors import DiffseError

_ENDINGS = {
    errno.ENOSPC: "the disk is full; free some space and run the command again (what was there before is kept)",
    errno.EFBIG: "the file would be larger than the system allows; raise its limit (ulimit -f)",
    errno.EDQUOT: "the disk quota is used up; free some space and run the command again",
    errno.EACCES: "permission denied; check who owns it and its access rights",
    errno.EPERM: "permission denied; check who owns it and its access rights",
    errno.EROFS: "the file system can only be read; choose another folder",
}


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn what the system refuses (full disk, no permission) into a DiffseError."""
    try:
        yield
    except DiffseError:
        raise
    except Exception as error:
        code = _system_error(error)
        if code is None:
            raise
        place = getattr(error, "filename2", None) or getattr(error, "filename", None)
        raise DiffseError(f"{place}: {_ENDINGS[code]}" if place else _ENDINGS[code]) from error


def _system_error(error: BaseException | None) -> int | None:
    """The errno of `_ENDINGS` behind an exception. Libraries hide it in a cause or in their own text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _ENDINGS:
            return error.errno
        if os.strerror(errno.ENOSPC) in str(error):
            return errno.ENOSPC
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """End on SIGTERM (a cluster that takes a node away) as on Ctrl-C, so that the run is recorded."""
    owner = os.getpid()

    def stop(number: int, _frame: object) -> None:
        if os.getpid() != owner:  # a forked worker: its pool ends it this way and expects no noise
            os._exit(128 + number)
        raise KeyboardInterrupt(number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, where Python allows no handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
