"""Curves of a training run: CSV files, DVCLive, and progress on the terminal or as log lines."""

import contextlib
import csv
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from diffse import progress
from diffse.storage import atomic_file

HISTORY, VALIDATION = "history.csv", "validation.csv"
HISTORY_FIELDS = ("step", "loss", "grad_norm", "lr")
VALIDATION_FIELDS = ("step", "si_sdr", "pesq", "estoi")
_ROWS = 2000  # about so many rows a run, each the mean over its steps
_SECONDS = 30.0  # between log lines where there is no terminal


class TrainingLog:
    """Collects losses and validation scores of a run in `folder`; `silent` processes write nothing."""

    def __init__(self, folder: Path, steps: int, silent: bool = False) -> None:
        self.folder, self.steps, self.silent = folder, steps, silent
        self.every = max(1, steps // _ROWS)
        self._window: list[tuple[float, float]] = []
        self._rows: list[tuple] = []
        self._bar: tqdm | None = None
        self._live = None
        self._said = self._started = time.monotonic()
        self._first = 0

    @contextlib.contextmanager
    def running(self, start: int) -> Iterator[None]:
        """Progress display and DVCLive for the loop inside."""
        if self.silent:
            yield
            return
        self._first, self._started = start, time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        progress.begin(f"train {self.folder.name}", self.steps, "step", start)
        self._open_live()
        bar = tqdm(
            total=self.steps, initial=start, unit="step", desc=self.folder.name, disable=not sys.stderr.isatty()
        )
        with bar as self._bar:
            try:
                yield
            finally:
                self.flush()
        if self._live is not None:
            self._live.end()

    def _open_live(self) -> None:
        """DVCLive looks for a git repository; one that it cannot use must not stop a training."""
        import logging

        from dvclive import Live

        logging.getLogger("dvclive").setLevel(logging.ERROR)
        options = {"resume": True, "report": None, "save_dvc_exp": False, "dvcyaml": None}
        try:
            self._live = Live(str(self.folder / "dvclive"), **options)
        except Exception as error:  # of dvc, dulwich or git, depending on what is wrong
            print(f"diffse: curves are not logged with DVCLive ({error})", file=sys.stderr)

    def step(self, step: int, loss: float, grad_norm: float, rate: float) -> None:
        """Take in one step; every `every` steps a row of means is kept."""
        if self.silent:
            return
        progress.report(step)
        self._window.append((loss, grad_norm))
        if step % self.every == 0 or step == self.steps:
            losses, norms = zip(*self._window, strict=True)
            row = (step, sum(losses) / len(losses), sum(norms) / len(norms), rate)
            self._rows.append(row)
            self._window.clear()
            self._to_live(step, dict(zip(HISTORY_FIELDS[1:], row[1:], strict=True)))
        self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        self._bar.update(1)
        self._say(step, loss)

    def validation(self, step: int, scores: dict[str, float]) -> None:
        """Keep the scores of one validation (NaN where nothing could be measured)."""
        path = self.folder / VALIDATION
        rows = [row for row in _read(path) if int(row["step"]) < step]
        values = {name: _text(scores.get(name, math.nan)) for name in VALIDATION_FIELDS[1:]}
        _write(path, VALIDATION_FIELDS, [*rows, {"step": step, **values}])
        self._to_live(step, {f"valid/{name}": value for name, value in scores.items() if math.isfinite(value)})
        line = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        self._bar.write(f"step {step}: validation {line}", file=sys.stderr)

    def last_validation(self) -> dict[str, float]:
        """Scores of the latest validation, {} when there was none."""
        rows = _read(self.folder / VALIDATION)
        return {name: float(rows[-1][name]) for name in VALIDATION_FIELDS[1:] if rows[-1][name]} if rows else {}

    def flush(self) -> None:
        """Append the rows kept since the last flush to history.csv."""
        if self.silent or not self._rows:
            return
        path = self.folder / HISTORY
        new = [dict(zip(HISTORY_FIELDS, (row[0], *map(_text, row[1:])), strict=True)) for row in self._rows]
        _write(path, HISTORY_FIELDS, [*_read(path), *new])
        self._rows.clear()

    def truncate(self, step: int) -> None:
        """Forget everything after `step`: what a killed run logged beyond the state it left."""
        for name, fields in ((HISTORY, HISTORY_FIELDS), (VALIDATION, VALIDATION_FIELDS)):
            rows = _read(self.folder / name)
            kept = [row for row in rows if int(row["step"]) <= step]
            if len(kept) < len(rows):
                _write(self.folder / name, fields, kept)
        for path in (self.folder / "dvclive").rglob("*.tsv"):
            _truncate_tsv(path, step)

    def _to_live(self, step: int, values: dict[str, float]) -> None:
        if self._live is None:
            return
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(name, value)
        self._live.make_summary()

    def _say(self, step: int, loss: float) -> None:
        """One structured line now and then, where no bar is shown."""
        now = time.monotonic()
        if not self._bar.disable or (now - self._said < _SECONDS and step != self.steps):
            return
        rate = (step - self._first) / max(now - self._started, 1e-9)
        line = {
            "event": "train",
            "system": self.folder.name,
            "step": step,
            "of": self.steps,
            "loss": round(loss, 6),
        }
        line |= {
            "steps_per_second": round(rate, 3),
            "seconds_left": round((self.steps - step) / max(rate, 1e-9)),
        }
        print(json.dumps(line), file=sys.stderr, flush=True)
        self._said = now


def _text(value: float) -> str:
    return f"{value:.9g}" if math.isfinite(value) else ""


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _write(path: Path, fields: tuple[str, ...], rows: list[dict]) -> None:
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fields)
        writer.writeheader()
        writer.writerows(rows)


def _truncate_tsv(path: Path, step: int) -> None:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    column = header.split("\t").index("step")
    kept = [line for line in lines if int(line.split("\t")[column]) <= step]
    with atomic_file(path) as temporary:
        temporary.write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")
