"""Run records: `runs/<UTC time>-<verb>-<names>.json`, one for every verb that was called, failed ones too.

A record says what ran, when, how long, on which data, code and settings, and how it ended. It holds no
environment variables, and a user name or password inside a URL is struck out.
"""

import contextlib
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import diffse
from diffse import paths, storage

_URL_SECRET = re.compile(r"(\w+://)[^/\s@\"']+@")


@contextlib.contextmanager
def recorded(root: Path, verb: str, names: tuple[str, ...], arguments: list[str]) -> Iterator[dict]:
    """Record the block as one run in `<root>/runs`. Yields the record, a dict to fill while it runs.

    The record is written when the block ends, however it ends. Not being able to write it is a warning:
    it must not turn a good result into a failure. Of several torchrun processes the first one writes.
    """
    began, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    record = {"verb": verb, "names": list(names), "arguments": arguments, "started": began.isoformat()}
    record |= {"runner": os.environ.get("DIFFSE_RUNNER") or "cli"}
    record |= {"pipeline": os.environ.get("DIFFSE_PIPELINE_RUN") or None}  # the run of which this is a step
    try:
        yield record
        record.update(state="ok", error=None)
    except KeyboardInterrupt:
        record.update(state="interrupted", error="stopped by the user or the system")
        raise
    except BaseException as error:
        record.update(state="failed", error=one_line(error))
        raise
    finally:
        record["seconds"] = round(time.monotonic() - clock, 3)
        if os.environ.get("RANK", "0") == "0":
            stem = "-".join((began.strftime("%Y%m%dT%H%M%S.%fZ"), verb, *names)).replace("/", "_")
            _write(paths.runs(root) / f"{stem}.json", record)


def one_line(error: BaseException) -> str:
    """The error's text on one line; with its type where that is not one of ours."""
    text = " ".join(str(error).split())
    return text if type(error).__module__.startswith("diffse") else f"{type(error).__name__}: {text}"


def _write(path: Path, record: dict) -> None:
    record["code"] = code_version()
    record["host"] = host()
    try:
        text = json.dumps(record, default=str)
        storage.write_json(path, json.loads(_URL_SECRET.sub(r"\1***@", text), parse_constant=str))
    except (OSError, ValueError, TypeError) as error:
        warnings.warn(f"the run record {path} could not be written: {error}", stacklevel=2)


def code_version() -> dict[str, object]:
    """{"package", "commit", "dirty"} of the running code; no commit where it is not a git checkout.

    `DIFFSE_COMMIT` names the commit inside an image, which has no git folder.
    """
    folder = Path(diffse.__file__).parent
    version = {"package": diffse.__version__, "commit": os.environ.get("DIFFSE_COMMIT") or None, "dirty": None}
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:  # some other project's git folder
        return version
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is not None:
        version["commit"] = commit
        version["dirty"] = _git(folder, "diff", "--quiet", "HEAD", "--", ".") is None
    return version


def _git(folder: Path, *command: str) -> str | None:
    """Output of a git command, or None when it fails or git is not there."""
    try:
        done = subprocess.run(["git", "-C", folder, *command], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def data_version(root: Path, corpus: str) -> str | None:
    """SHA-256 of the corpus's mixture manifest, or None before it is prepared."""
    manifest = paths.mixtures(root, corpus) / "manifest.parquet"
    return storage.sha256_file(manifest) if manifest.is_file() else None


def host() -> dict[str, object]:
    """What the run ran on. torch is asked only if the run has loaded it."""
    facts: dict[str, object] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch"] = str(torch.__version__)
        if torch.cuda.is_available():
            facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return facts
