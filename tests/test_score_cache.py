"""The cache of scores: only what is new is computed, by any number of processes, and damage is noticed."""

import dataclasses
import math
import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from diffse.data.parallel import Workers
from diffse.metrics import score_cache, scoring, table, tools
from diffse.metrics.checks import Missing
from diffse.metrics.score_cache import ScoreCache
from diffse.metrics.scoring import Plan, Utterance

RATE = 16000


def signals(seed: int) -> scoring.Signals:
    rng = np.random.default_rng(seed)
    clean, noise = rng.standard_normal((2, RATE)).astype(np.float32)
    return clean, clean + noise, clean + noise / 2, RATE


def unreadable() -> scoring.Signals:
    raise Missing("clean file: is gone")


@dataclasses.dataclass(frozen=True)
class Signals:
    """Reads the signals of one seed; importable by a worker."""

    seed: int

    def __call__(self) -> scoring.Signals:
        return signals(self.seed)


UTTERANCES = [Utterance({"id": f"u{seed}"}, Signals(seed)) for seed in range(3)]


@pytest.fixture
def plan(tmp_path) -> Plan:
    return dataclasses.replace(Plan.of(("si_sdr",), tools.NONE, True), cache=tmp_path / "scores.sqlite")


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Names of the metrics that are computed, in order."""
    calls: list[str] = []

    def counting(name: str, metric: table.Metric) -> table.Metric:
        def compute(*arguments: object, **options: object) -> object:
            calls.append(name)
            return metric.compute(*arguments, **options)

        compute.__module__ = metric.compute.__module__
        return dataclasses.replace(metric, compute=compute)

    changed = {name: counting(name, metric) for name, metric in table.METRICS.items()}
    monkeypatch.setattr(table, "METRICS", changed)
    return calls


def score(plan: Plan, utterances: list[Utterance] = UTTERANCES, processes: int = 1) -> list[dict]:
    with Workers(processes) as workers:
        return scoring.rows(workers, utterances, plan)


def test_a_rerun_computes_nothing_and_says_the_same(plan, computed):
    first = score(plan)
    assert computed == ["si_sdr"] * 3
    assert score(plan) == first
    assert computed == ["si_sdr"] * 3


def test_another_metric_computes_only_that_metric(plan, computed):
    score(plan)
    computed.clear()
    both = dataclasses.replace(Plan.of(("si_sdr", "lsd"), tools.NONE, True), cache=plan.cache)
    score(both)
    assert computed == ["lsd"] * 3


def test_a_changed_file_and_a_new_one_are_computed(plan, computed):
    score(plan)
    computed.clear()
    changed = [dataclasses.replace(UTTERANCES[0], read=Signals(9)), *UTTERANCES[1:]]
    changed.append(Utterance({"id": "new"}, Signals(10)))
    score(plan, changed)
    assert computed == ["si_sdr"] * 2
    score(plan, [Utterance({"id": "another name"}, Signals(10))])  # the same audio under another name
    assert computed == ["si_sdr"] * 2


def test_only_the_signals_that_a_metric_reads_count(plan, computed):
    """Another noisy signal changes SI-SIR, but not SI-SDR."""
    plan = dataclasses.replace(Plan.of(("si_sdr", "si_sir"), tools.NONE, True), cache=plan.cache)
    clean, noisy, enhanced, rate = signals(0)
    for factor in (1, 2):
        score(plan, [Utterance({"id": "u"}, lambda f=factor: (clean, f * noisy, enhanced, rate))])
    assert computed == ["si_sdr", "si_sir", "si_sir"]


def test_other_versions_and_weights_are_computed_anew(plan, computed, tmp_path):
    score(plan)
    newer = dataclasses.replace(plan, versions={"si_sdr": "a newer package"})
    score(newer)
    assert len(computed) == 6
    found = [
        Plan.of(("nisqa",), tools.Tools({"nisqa": (tmp_path, checksum)}), True).versions["nisqa"]
        for checksum in ("1" * 64, "2" * 64)
    ]
    assert found[0] != found[1]


def test_gaps_are_kept_with_their_reason(plan, computed):
    silent = Utterance({"id": "silent"}, lambda: (*signals(0)[:2], 0 * signals(0)[2], RATE))
    first, second = score(plan, [silent]), score(plan, [silent])
    assert computed == ["si_sdr"]
    for rows in (first, second):
        assert math.isnan(rows[0]["si_sdr"]) and rows[0]["si_sdr_reason"] == "enhanced signal is silent"


def test_what_may_succeed_the_next_time_is_not_kept(plan, computed):
    """POLQA's program is not there yet, and a file cannot be read."""
    program = tools.Tools(
        polqa=dataclasses.replace(tools.NONE.polqa, command=("/gone", "{clean}", "{enhanced}"))
    )
    plan = dataclasses.replace(Plan.of(("polqa",), program, True), cache=plan.cache)
    for _ in range(2):
        (row,) = score(plan, UTTERANCES[:1])
        assert "cannot be started" in row["polqa_reason"]
    assert computed == ["polqa", "polqa"]
    (row,) = score(plan, [Utterance({"id": "gone"}, unreadable)])
    assert row["polqa_reason"] == "clean file: is gone"


def test_a_metric_that_another_one_uses_is_kept_too(plan, computed):
    both = dataclasses.replace(Plan.of(("composite",), tools.NONE, True), cache=plan.cache)
    score(both, UTTERANCES[:1])
    assert computed == ["composite", "pesq"] or computed == ["pesq", "composite"]
    computed.clear()
    score(dataclasses.replace(Plan.of(("pesq",), tools.NONE, True), cache=plan.cache), UTTERANCES[:1])
    assert computed == []


def test_without_a_cache_everything_is_computed(plan, computed):
    plan = dataclasses.replace(plan, cache=None)
    score(plan)
    score(plan)
    assert len(computed) == 6


# ------------------------------------------------------------------------------------------------ processes


def test_processes_share_the_cache(plan):
    rows = score(plan, processes=2)
    with sqlite3.connect(plan.cache) as connection:
        assert connection.execute("SELECT count(*) FROM scores").fetchone() == (3,)
    assert score(plan, processes=2) == rows == score(dataclasses.replace(plan, cache=None))


def write_many(path: Path, name: str) -> None:
    cache = ScoreCache(path)
    for number in range(30):
        cache.put({f"{name}{number}": ([float(number)], "")})


def test_runs_that_write_at_once_lose_nothing(tmp_path):
    path = tmp_path / "scores.sqlite"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    keys = [f"{name}{number}" for name in "ab" for number in range(30)]
    found = ScoreCache(path).get(keys)
    assert found == {key: ([float(key[1:])], "") for key in keys}


# --------------------------------------------------------------------------------------------------- damage


def test_a_damaged_entry_is_computed_anew(plan, computed):
    right = score(plan)
    with sqlite3.connect(plan.cache) as connection:
        connection.execute("UPDATE scores SET value = '[[99.0], \"\"]' WHERE rowid = 2")
    assert score(plan) == right
    assert len(computed) == 4
    assert score(plan) == right  # and it was mended
    assert len(computed) == 4


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_damaged_file_is_replaced(plan, computed, content, caplog):
    right = score(plan)
    plan.cache.write_bytes(content)
    score_cache.opened.cache_clear()
    assert score(plan) == right
    assert len(computed) == 6
    assert caplog.text.count("scores.sqlite: not used") == 1
    assert score(plan) == right
    assert len(computed) == 6


def test_a_cache_that_cannot_be_written_stops_nobody(plan, computed, caplog):
    plan = dataclasses.replace(plan, cache=Path("/proc/nowhere/scores.sqlite"))
    rows = score(plan)
    assert len(rows) == 3 and not math.isnan(rows[0]["si_sdr"])
    assert caplog.text.count("scores.sqlite: not used") == 1


def test_the_oldest_entries_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(score_cache, "MOST", 20)
    cache = ScoreCache(tmp_path / "scores.sqlite")
    for number in range(50):
        cache.put({str(number): ([1.0], "")})
    found = cache.get(map(str, range(50)))
    assert "49" in found and "0" not in found and len(found) <= 20
