"""Which process a run is: told apart from a later one of the same number, and its runner found."""

import datetime
import os
import platform
from pathlib import Path


def identity(pid: int) -> dict[str, object] | None:
    """{"space", "began"} of a process here; None when there is none to see."""
    here = space()
    try:
        return here and {"space": here, "began": int(_facts(pid)[19])}
    except OSError:
        return None


def space() -> str | None:
    """Names the numbering of processes here (host, boot, container); None where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def dvc_run() -> str | None:
    """Names the `dvc` process that this one descends from, `dvc-<when it began>-<pid>`; None without one."""
    pid = os.getppid()
    try:
        while pid > 1:
            words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
            if any(word.rpartition(b"/")[2] == b"dvc" for word in words[:3]):
                return f"dvc-{_began(pid).strftime('%Y%m%dT%H%M%SZ')}-{pid}"
            pid = int(_facts(pid)[1])
    except OSError:
        pass
    return None


def _facts(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the state on; OSError when there is no such process."""
    text = Path("/proc", str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()


def _began(pid: int) -> datetime.datetime:
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    booted = next(int(line.split()[1]) for line in lines if line.startswith("btime"))
    seconds = booted + int(_facts(pid)[19]) / os.sysconf("SC_CLK_TCK")
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
