"""What the dashboard reads: one project, its run records, a cluster and DVC experiments."""

import contextlib
import functools
import threading
from pathlib import Path

from diffse import paths, run_places, settings
from diffse.dashboard import experiments, kubeflow
from diffse.dashboard.background import Background, Seen
from diffse.dashboard.entries import Entry, of_pipeline, of_record
from diffse.errors import DiffseError
from diffse.run_records import Records, Run, pipelines

_PATIENCE = 1.0  # seconds that a page waits for a store's first answer
Read = tuple[list[Run], list[str]]


class Project:
    """One project folder, read only. Safe to use from the threads of several pages."""

    def __init__(self, root: Path, kubeflow_host: str = "") -> None:
        self.root, self.kubeflow_host = root, kubeflow_host
        self.records = Records(run_places.location(root))
        self._lock = threading.Lock()
        self._stored: Background[Read] = Background(self.records.read, ([], []), 5.0)
        self._experiments: Background[list[Entry]] = Background(lambda: experiments.fetch(root), [], 15.0)
        self._kubeflow: Background[list[Entry]] | None = None
        if kubeflow_host:
            self._kubeflow = Background(lambda: kubeflow.fetch(kubeflow_host), [], 15.0)

    def warm(self) -> None:
        """Begin to read, so that the first visitor does not wait for it."""

        def read() -> None:
            with contextlib.suppress(DiffseError, OSError):  # the page says what is wrong
                self.runs()

        threading.Thread(target=read, daemon=True).start()
        self.elsewhere(0.0)

    # -------------------------------------------------------------------------------------------- runs

    def runs(self) -> Read:
        """(run records, the newest first; one line for each that is damaged or cannot be read now)."""
        if isinstance(self.records.place, Path):
            with self._lock:
                return self.records.read()
        seen = self._stored.latest(_PATIENCE)
        found, damaged = seen.value
        said = seen.error or (f"{self.records.place}: no answer yet" if seen.pending else "")
        return found, [*damaged, *([said] if said else [])]

    def run(self, name: str) -> Run | None:
        """The run with this id."""
        return next((run for run in self.runs()[0] if run.id == name), None)

    def elsewhere(self, patience: float = 0.2) -> tuple[list[Entry], list[str]]:
        """(runs that the cluster and git tell of; one line for each source that does not answer)."""
        entries, notes = [], []
        for source, name in ((self._experiments, "DVC experiments"), (self._kubeflow, "Kubeflow")):
            if source is None:
                continue
            seen: Seen[list[Entry]] = source.latest(patience)
            entries += seen.value
            if seen.error:
                notes.append(f"{name}: {seen.error}")
            elif seen.pending:
                notes.append(f"{name}: no answer yet")
        return entries, notes

    def entries(self) -> tuple[list[Entry], list[str], list[str]]:
        """(all runs, the newest first; damaged records; sources that do not answer)."""
        runs, damaged = self.runs()
        more, notes = self.elsewhere()
        entries = [*map(of_record, runs), *more]
        entries.sort(key=lambda entry: entry.started, reverse=True)
        return entries, damaged, notes

    def grouped(self) -> tuple[list[Entry], list[str], list[str]]:
        """As `entries`, with one line for all steps of a pipeline run."""
        runs, damaged = self.runs()
        more, notes = self.elsewhere()
        known = {entry.pipeline for entry in more}
        groups = pipelines(runs)
        entries = [of_pipeline(name, members) for name, members in groups.items() if name not in known]
        entries += [of_record(run) for run in runs if not run.pipeline]
        entries = sorted([*entries, *more], key=lambda entry: entry.started, reverse=True)
        return entries, damaged, notes

    # ---------------------------------------------------------------------------------------- artifacts

    def params(self) -> settings.Params | None:
        """The settings as they are now; None when they are missing or cannot be used."""
        file = self.root / "params.yaml"
        try:
            return _params(file, file.stat().st_mtime_ns)
        except (OSError, DiffseError):
            return None

    def systems(self) -> list[str]:
        """Systems with a model folder."""
        return _folders(self.root / "models")

    def corpora(self) -> list[str]:
        """Corpora that are prepared."""
        return [name for name in _folders(self.root / "data") if paths.mixtures(self.root, name).is_dir()]

    def checkpoints(self) -> dict[str, Path]:
        """'<system> (best)' -> folder of every checkpoint of the project."""
        found = {}
        for system in self.systems():
            for name in ("best", "last"):
                folder = paths.model(self.root, system) / name
                if (folder / "checkpoint.json").is_file():
                    found[f"{system} ({name})"] = folder
        return found

    def results(self) -> list[tuple[str, str]]:
        """(system, corpus) of every evaluation."""
        found = []
        for system in _folders(self.root / "results"):
            for corpus in _folders(self.root / "results" / system):
                if system not in ("sweeps", "swaps") and (paths.results(self.root, system, corpus)).is_dir():
                    found.append((system, corpus))
        return found


def _folders(place: Path) -> list[str]:
    """Names of the folders in a folder; [] when it is not there. Hidden ones do not count."""
    try:
        return sorted(item.name for item in place.iterdir() if item.is_dir() and not item.name.startswith("."))
    except OSError:
        return []


@functools.lru_cache(maxsize=4)
def _params(file: Path, stamp: int) -> settings.Params:
    return settings.load(file)
