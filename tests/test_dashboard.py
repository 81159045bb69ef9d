"""What the pages draw: the graph of steps, statistics, curves and players."""

import itertools

import dashboard_project
import numpy as np
import pandas
import pytest
import report_project

from diffse import settings
from diffse.dashboard import chain, charts, comparing, drift, player
from diffse.errors import DiffseError

# ----------------------------------------------------------------------------------------------- graph


@pytest.fixture
def params(tmp_path) -> settings.Params:
    (tmp_path / "params.yaml").write_text(report_project.PARAMS)
    return settings.load(tmp_path / "params.yaml")


def test_the_graph_holds_the_whole_chain(params):
    steps = chain.selected(params)
    assert len(steps) == len(set(steps)) == 2 * 2 + 3 + 2 * 2 + 4 * 2 + 6 * 2 + 1
    links = chain.edges(steps, params)
    good = report_project.GOOD
    assert (("prepare", "demo"), ("check", "mixtures", "demo")) in links
    assert (("train", good), ("check", "checkpoint", good)) in links
    assert (("check", "mixtures", "pairs"), ("enhance", good, "pairs")) in links
    assert (("check", "mixtures", "demo"), ("enhance", good, "demo")) not in links  # the training implies it
    ends = {first for first, last in links if last == ("report",)}
    assert ends == {step for step in steps if step[:2] == ("check", "metrics")}


def test_the_graph_of_a_part_of_the_chain_leads_over_what_did_not_run(params):
    good, steps = report_project.GOOD, [("prepare", "demo"), ("train", report_project.GOOD)]
    steps += [("enhance", good, "demo"), ("evaluate", good, "demo"), ("report",)]
    assert chain.edges(steps, params) == list(itertools.pairwise(steps))
    assert chain.edges(steps[:1] + steps[2:3], params) == [(steps[0], steps[2])]


def test_a_drawing_puts_each_step_right_of_what_it_waits_for(params):
    steps = chain.selected(params)
    links = chain.edges(steps, params)
    places = chain._places(steps, links)
    assert len(set(places.values())) == len(steps)
    assert all(places[first][0] < places[last][0] for first, last in links)


def test_a_drawing_escapes_names():
    page, height = chain.page([chain.Node(("train", "<script>"), "ok")], [], "dark")
    assert "<script>" not in page
    assert 'class="dark"' in page
    assert height > 0


# ------------------------------------------------------------------------------------------ statistics


def scores(values: np.ndarray) -> pandas.DataFrame:
    return pandas.DataFrame({"pesq": values}, index=[f"u{number:03d}" for number in range(len(values))])


def test_a_verdict_needs_a_difference_that_chance_does_not_explain():
    generator = np.random.default_rng(0)
    base = generator.normal(2, 0.5, 60)
    tables = {"noisy": scores(base), "same": scores(base + generator.normal(0, 0.1, 60))}
    tables |= {"better": scores(base + 0.3).sample(frac=1, random_state=1), "worse": scores(base - 0.05)}
    rows = {row.system: row for row in comparing.compare(tables, "pesq", "noisy")}
    assert {name: row.verdict for name, row in rows.items()} == {
        "noisy": "", "same": "no clear difference", "better": "higher", "worse": "lower",
    }  # fmt: skip
    assert rows["better"].change == pytest.approx(0.3)  # joined by id, not by order
    alone = comparing.compare({"a": scores(base), "b": scores(base[:1])}, "pesq", "a")
    assert [row.verdict for row in alone] == ["", ""]
    assert comparing.compare(tables, "stoi", "noisy") == []


def test_drift_tells_shifted_sets_from_chance():
    generator = np.random.default_rng(1)
    before = generator.normal(0, 1, 2000)
    assert drift.numeric("x", before, generator.normal(0, 1, 2000)).verdict == "alike"
    assert drift.numeric("x", before, generator.normal(0.4, 1, 2000)).verdict == "shifted"
    assert drift.numeric("x", before, generator.normal(2, 1, 2000)).verdict == "different"
    assert drift.numeric("x", before, generator.normal(2, 1, 4)).p > 0.001  # too few to be sure of much
    assert drift.numeric("x", np.ones(9), np.ones(9)).verdict == "alike"
    assert drift.kinds(["a", "b"] * 50, ["b", "a"] * 20) == 0.0
    assert drift.kinds(["a", "b"] * 50, ["a"] * 50) > drift.DIFFERENT
    # the index of two bins by hand: (0.6 - 0.5) ln(0.6 / 0.5) + (0.4 - 0.5) ln(0.4 / 0.5)
    assert drift.stability(np.array([0.5, 0.5]), np.array([0.6, 0.4])) == pytest.approx(0.0405, abs=1e-4)


def test_curves_are_thinned_to_what_can_be_seen():
    x, y = charts.thinned(np.arange(10_000.0), np.arange(10_000.0), smooth=False)
    assert charts.POINTS <= len(x) <= charts.POINTS + 1
    assert (x[0], x[-1], y[-1]) == (0.0, 9999.0, 9999.0)
    assert charts.thinned(np.arange(3.0), np.array([np.nan, 1.0, np.inf]), smooth=True) == ([1.0], [1.0])
    assert charts.thinned(np.zeros(0), np.zeros(0), smooth=True) == ([], [])


# --------------------------------------------------------------------------------------------- players


def test_a_player_holds_all_signals_and_no_markup_from_outside():
    wave = np.sin(np.arange(16000) * 0.1).astype(np.float32)
    signals = [player.Signal("</script><b>", wave), player.Signal("clean", wave[:8000] * 0.1)]
    page, _ = player.page(signals, 16000, "dark", "<i>note</i>")
    assert page.count("</script>") == 1
    assert "<i>" not in page
    assert '"seconds": 0.5' not in page and "seconds = 0.5" in page  # as long as the shortest
    assert page.count("data:image/png") == 2
    outer = player.sandboxed(page, 300)
    assert 'sandbox="allow-scripts"' in outer
    assert "<script" not in outer.replace("&lt;script", "")


def test_only_shards_are_read(tmp_path):
    made, _ = dashboard_project.make(tmp_path)
    row = player.utterances(made.root, "demo").iloc[0].copy()
    row["shard"] = "../../../secret.flac"
    with pytest.raises(DiffseError, match="is no shard"):
        player.signals_of(made.root, "demo", row, [], {})
