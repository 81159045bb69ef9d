"""Run somebody else's program: an argument list, no shell, within its time, with nothing left running."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

from diffse.errors import DiffseError

_TAIL = 4096  # bytes of its messages that are looked at
_SHOWN = 200  # characters of its last line


def run(
    command: tuple[str, ...], folders: dict[str, Path], timeout: float, work: Path, cwd: Path, where: str
) -> float:
    """Run `command` with `{name}` replaced by each of `folders`, in the folder `cwd`; returns its seconds.

    What it says goes to files in `work`. When it ends, runs longer than `timeout` seconds or diffse is stopped,
    the processes that it has started are killed with it. DiffseError, one line beginning with `where`: it
    cannot be started, fails or takes too long.
    """
    arguments = [_filled(argument, folders) for argument in command]
    began = time.perf_counter()
    with open(work / "stdout", "w+b") as out, open(work / "stderr", "w+b") as err:
        try:
            # a session of its own: its children can be killed with it, and it gets no Ctrl-C of ours
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, start_new_session=True
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DiffseError(f"{where}: '{command[0]}' cannot be started ({reason}); check command") from None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise DiffseError(
                f"{where}: its program took longer than timeout_seconds ({timeout:g}) and was stopped; "
                "allow more, or give it less to do"
            ) from None
        finally:
            _kill(process)
        if code != 0:
            raise DiffseError(
                f"{where}: its program failed ({_ending(code)}): {_last_line(err) or _last_line(out)}"
            )
    return time.perf_counter() - began


def _filled(argument: str, folders: dict[str, Path]) -> str:
    for name, folder in folders.items():
        argument = argument.replace(f"{{{name}}}", str(folder))
    return argument


def _kill(process: subprocess.Popen) -> None:
    """End the program and every process of its session's first group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # gone already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ending(code: int) -> str:
    if code > 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _last_line(stream: IO[bytes]) -> str:
    """The last line that says something, as plain text; "" if it said nothing."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _TAIL))
    lines = stream.read().decode("utf-8", "replace").split("\n")
    said = [" ".join("".join(c if c.isprintable() else " " for c in line).split()) for line in lines]
    return next((line[:_SHOWN] for line in reversed(said) if line), "")
