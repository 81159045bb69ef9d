"""Score many utterances in parallel, and only what was not scored before."""

import functools
import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from diffse import storage
from diffse.data.parallel import Workers
from diffse.metrics import score_cache, table
from diffse.metrics.checks import Missing
from diffse.metrics.score import Pair, Scores, as_columns
from diffse.metrics.tools import Tools
from diffse.progress import tqdm

Signals = tuple[np.ndarray, np.ndarray | None, np.ndarray, int]  # clean, noisy, enhanced [samples], Hz
_SHARED = ("metrics.checks", "metrics.frames", "metrics.mel", "metrics.onnx_parts", "metrics.p835")
_SHARED += ("metrics.segmental", "audio")
_WRITTEN_AT_ONCE = 64  # utterances
_AHEAD = 16  # utterances per process: their costs differ tenfold, and their scores are small


@dataclass(frozen=True)
class Utterance:
    """One row of the table. `facts` begin with its id; `read` gives its signals, or raises Missing.

    `text`: what was said; `heard`: what a program recognised.
    """

    facts: dict[str, Any]
    read: Callable[[], Signals]
    text: str = ""
    heard: str | None = None
    size: int = 0  # samples; the longest are scored first

    @property
    def id(self) -> str:
        """Its name in the table."""
        return self.facts["id"]


@dataclass(frozen=True)
class Plan:
    """What is computed of each utterance. `versions`: what a metric's numbers depend on beside the signals."""

    metrics: tuple[str, ...]
    tools: Tools
    cache: Path | None
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, metrics: tuple[str, ...], tools: Tools, use_cache: bool) -> "Plan":
        """The plan for `metrics`, with the user's cache or without one."""
        names = [*metrics, *(other for name in metrics for other in table.find(name).uses)]
        versions = {name: _version(name, tools) for name in names}
        return cls(metrics, tools, score_cache.default_path() if use_cache else None, versions)


def _version(name: str, tools: Tools) -> str:
    columns = [table.version(name, column, tools) for column in table.find(name).columns]
    return json.dumps([name, columns, _code(table.find(name).compute.__module__)])


@functools.cache
def _code(module: str) -> str:
    """Checksum of the source that computes a metric: scores of other code are not taken over."""
    names = (module, *(f"diffse.{name}" for name in _SHARED))
    sources = [storage.sha256_file(util.find_spec(name).origin) for name in names]
    return hashlib.sha256(" ".join(sources).encode()).hexdigest()


def rows(
    workers: Workers,
    utterances: list[Utterance],
    plan: Plan,
    title: str = "",
    heard: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Rows of per_file.csv, ordered by id. `heard`: transcripts that a program gave, by id."""
    # the longest first, so that no process is left alone with one at the end
    jobs = sorted(utterances, key=lambda utterance: (-utterance.size, utterance.id))
    jobs = [replace(job, heard=heard[job.id]) if heard and job.id in heard else job for job in jobs]
    found, fresh = [], {}
    cache = None if plan.cache is None else score_cache.opened(plan.cache)
    score = functools.partial(score_one, plan=plan)
    with closing(workers.map(score, jobs, ahead=_AHEAD)) as scored:
        for row, entries in tqdm(scored, title, len(jobs), unit="file", disable=None if title else True):
            found.append(row)
            fresh |= entries
            if cache is not None and len(found) % _WRITTEN_AT_ONCE == 0:
                cache.put(fresh)
                fresh = {}
    if cache is not None:
        cache.put(fresh)
    return sorted(found, key=lambda row: row["id"])


def score_one(utterance: Utterance, plan: Plan) -> tuple[dict[str, Any], dict[str, Scores]]:
    """Row of one utterance and the scores that are new, by key; runs in a worker process."""
    row = dict(utterance.facts)
    try:
        clean, noisy, enhanced, rate = utterance.read()
    except Missing as missing:
        for name in plan.metrics:
            gaps = [float("nan")] * len(table.find(name).columns)
            row |= as_columns(name, (gaps, missing.reason))
        return row, {}
    pair = Pair(clean, noisy, enhanced, rate, utterance.text, utterance.heard, plan.tools)
    keys = {} if plan.cache is None else _keys(pair, plan)
    if keys:
        known = score_cache.opened(plan.cache).get(keys.values())
        pair.known |= {name: known[key] for name, key in keys.items() if key in known}
    before = set(pair.known)
    for name in plan.metrics:
        row |= as_columns(name, pair.scores(name))
    fresh = [name for name in pair.known if name not in before and pair.lasting[name]]
    return row, {keys[name]: pair.known[name] for name in fresh if name in keys}


def _keys(pair: Pair, plan: Plan) -> dict[str, str]:
    """Metric -> checksum of everything that its scores of this pair depend on."""
    inputs = {name: checksum(signal) for name, signal in pair.signals.items()}
    inputs |= {"text": pair.beside["text"], "heard": pair.beside["heard"]}
    found = {}
    for name, version in plan.versions.items():
        read = [inputs[kind] for kind in table.find(name).reads]
        found[name] = hashlib.sha256(json.dumps([version, pair.rate, read]).encode()).hexdigest()
    return found


def checksum(signal: np.ndarray | None) -> str:
    """SHA-256 of a signal's type and samples; "" for none."""
    if signal is None:
        return ""
    return hashlib.sha256(f"{signal.dtype.str}\0".encode() + np.ascontiguousarray(signal).tobytes()).hexdigest()
