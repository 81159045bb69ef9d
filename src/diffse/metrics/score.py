"""All scores of one utterance. Training validates with it, so importing it costs nothing."""

import math

import numpy as np

from diffse.metrics import table
from diffse.metrics.checks import Missing
from diffse.metrics.tools import NONE, Tools

Scores = tuple[list[float], str]  # values of a metric's columns, and why they are missing ("" if they are not)


def score_pair(
    clean: np.ndarray,
    noisy: np.ndarray,
    enhanced: np.ndarray,
    rate: int,
    metrics: tuple[str, ...],
    *,
    text: str = "",
    heard: str | None = None,
    tools: Tools = NONE,
) -> dict[str, float | str]:
    """Scores of `enhanced` against `clean`, as a row of per_file.csv.

    clean, noisy, enhanced: float [samples], of one length (ValueError otherwise); rate in Hz; metrics: names
    of `table.METRICS`; text: what was said, heard: what a program recognised. Returns for each column its
    value, and under `<column>_reason` why the value is missing (NaN), or "". A score that cannot be computed
    never raises.
    """
    pair = Pair(clean, noisy, enhanced, rate, text, heard, tools)
    row: dict[str, float | str] = {}
    for name in metrics:
        row |= as_columns(name, pair.scores(name))
    return row


def as_columns(name: str, scores: Scores) -> dict[str, float | str]:
    """Entries of a row: each column of the metric `name`, and its reason."""
    values, reason = scores
    row: dict[str, float | str] = {}
    for column, value in zip(table.find(name).columns, values, strict=True):
        row |= {column.name: value, f"{column.name}_reason": reason if math.isnan(value) else ""}
    return row


class Pair:
    """The signals of one utterance, and what was computed of them. `lasting[name]`: see `Missing`."""

    def __init__(
        self,
        clean: np.ndarray,
        noisy: np.ndarray | None,
        enhanced: np.ndarray,
        rate: int,
        text: str = "",
        heard: str | None = None,
        tools: Tools = NONE,
    ) -> None:
        shapes = {signal.shape for signal in (clean, noisy, enhanced) if signal is not None}
        if len(shapes) > 1 or clean.ndim != 1:
            raise ValueError(f"clean, noisy and enhanced differ in shape: {clean.shape}, {sorted(shapes)}")
        self.signals, self.rate = {"clean": clean, "enhanced": enhanced, "noisy": noisy}, rate
        self.beside = {"text": text, "heard": heard, "tools": tools}
        self.known: dict[str, Scores] = {}
        self.lasting: dict[str, bool] = {}

    def scores(self, name: str) -> Scores:
        """Values and reason of the metric `name`; computed once."""
        if name not in self.known:
            self.known[name], self.lasting[name] = self._computed(name)
        return self.known[name]

    def _computed(self, name: str) -> tuple[Scores, bool]:
        metric = table.find(name)
        more = {key: self.beside[key] for key in metric.takes}
        try:
            if "noisy" in metric.reads and self.signals["noisy"] is None:
                raise Missing("no noisy signal was given")
            for other in metric.uses:
                (value,), reason = self.scores(other)
                if math.isnan(value):
                    raise Missing(reason, self.lasting.get(other, True))
                more[other] = value
            values = np.atleast_1d(metric.compute(*self.signals.values(), self.rate, **more)).tolist()
        except Missing as missing:
            return ([math.nan] * len(metric.columns), missing.reason), missing.lasting
        return (values, "not a number" if any(map(math.isnan, values)) else ""), True
