"""Run records: `runs/<UTC time>-<verb>-<names>.json`, one for every verb that was called, failed ones too.

A record says what ran, when, how long, on which data, code and settings, and how it ended. It is written when
the run starts, refreshed while it goes, and completed when it ends; beside it stands the tail of what the run
said (`.log`). It holds no environment variables, and secrets in its texts are struck out.
"""

import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import diffse
from diffse import errors, paths, progress, run_log, run_places, run_process, storage

FORMAT = 2
BEAT_SECONDS = 10.0  # between two refreshments of a record
_START_SECONDS = 2.0  # that a run waits at most for its first record to be written


@contextlib.contextmanager
def recorded(root: Path, verb: str, names: tuple[str, ...], arguments: list[str]) -> Iterator[dict]:
    """Record the block as one run of the project `root`. Yields the record, a dict to fill while it runs.

    Not being able to write the record is a warning: it must not turn a good result into a failure. Of several
    torchrun processes the first one writes.
    """
    record = _first_record(root, verb, names, arguments)
    if os.environ.get("RANK", "0") != "0":
        yield record
        return
    progress.forget()
    with run_log.kept() as log:
        writer = _Writer(run_places.location(root), record, log)
        writer.start()
        try:
            yield record
            record.update(state="ok", error=None)
        except KeyboardInterrupt:
            record.update(state="interrupted", error="stopped by the user or the system")
            raise
        except BaseException as error:
            record.update(state="failed", error=one_line(error))
            log.add(_last_words(error))
            raise
        finally:
            writer.finish()


def one_line(error: BaseException) -> str:
    """The error's text on one line; with its type where that is not one of ours."""
    text = " ".join(str(error).split())
    return text if _is_ours(error) else f"{type(error).__name__}: {text}"


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.startswith("diffse")


def _last_words(error: BaseException) -> str:
    """What ends the log: the message that the user gets, or the traceback of a defect."""
    return f"{error}\n" if _is_ours(error) else "".join(traceback.format_exception(error))


def _first_record(root: Path, verb: str, names: tuple[str, ...], arguments: list[str]) -> dict:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "format": FORMAT,
        "id": "-".join((now.strftime("%Y%m%dT%H%M%S.%fZ"), verb, *names)).replace("/", "_"),
        "verb": verb,
        "names": list(names),
        "arguments": arguments,
        "project": str(root.resolve()),
        **_origin(),
        "started": now.isoformat(),
        "state": "running",
        "error": None,
        "pid": os.getpid(),
        "process": run_process.identity(os.getpid()),
    }


# -------------------------------------------------------------------------------------------- writing


class _Writer:
    """Keeps the record of one run up to date in a thread of its own, so that no slow place holds the run up."""

    def __init__(self, place: Path | str, record: dict, log: run_log.Tail) -> None:
        self._place, self._record, self._log = place, record, log
        self._clock = time.monotonic()
        self._lock = threading.Lock()
        self._written, self._ended = threading.Event(), threading.Event()
        self._said = ""  # the log as it was last written
        record.update(code=code_version(), host=host())

    def start(self) -> None:
        """Write the first record; where that takes long, the run goes on meanwhile."""
        threading.Thread(target=self._beat, name="run record", daemon=True).start()
        self._written.wait(_START_SECONDS)

    def _beat(self) -> None:
        while True:
            with self._lock:
                if self._ended.is_set():
                    return
                with contextlib.suppress(Exception):  # said once, at the end
                    self._write()
            self._written.set()
            if self._ended.wait(BEAT_SECONDS):
                return

    def finish(self) -> None:
        """Write the record of an ended run."""
        self._ended.set()
        with self._lock:
            self._record["host"] = host()  # torch may have been loaded since
            try:
                self._write()
            except (OSError, ValueError, TypeError, errors.DiffseError) as error:
                name = f"{self._place}/{self._record['id']}.json"
                warnings.warn(f"the run record {name} could not be written: {error}", stacklevel=4)

    def _write(self) -> None:
        record, now = self._record, datetime.datetime.now(datetime.UTC)
        record["seconds"] = round(time.monotonic() - self._clock, 3)
        record["heartbeat"] = now.isoformat()
        record["progress"] = progress.facts()
        said = self._log.text()
        if said != self._said:
            run_places.write(self._place, f"{record['id']}.log", said)
            self._said = said
        run_places.write(self._place, f"{record['id']}.json", _text(dict(record)))


def _text(record: dict) -> str:
    """The record as JSON; numbers that JSON lacks become text."""
    plain = json.loads(json.dumps(record, default=str), parse_constant=str)
    return json.dumps(run_log.redact(plain), indent=2, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------------------------- facts about a run


def _origin() -> dict[str, str | None]:
    """{"runner", "pipeline"}: who called the verb, and the pipeline run that it is a step of.

    Runners say so in DIFFSE_RUNNER and DIFFSE_PIPELINE_RUN. DVC sets variables of its own for a stage.
    """
    by_dvc = "DVC_STAGE" in os.environ
    runner = os.environ.get("DIFFSE_RUNNER") or ("dvc" if by_dvc else "cli")
    pipeline = os.environ.get("DIFFSE_PIPELINE_RUN") or os.environ.get("DVC_EXP_NAME")
    return {"runner": runner, "pipeline": pipeline or (run_process.dvc_run() if by_dvc else None)}


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
        "name": platform.node(),
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
