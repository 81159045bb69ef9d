"""Progress of long work: counted with and without a terminal, and how long it will take."""

import json

from diffse import progress


def test_a_bar_counts_with_and_without_a_terminal(capsys):
    for disable in (True, False):
        for _ in progress.tqdm(iter(range(7)), "walk", 7, unit="step", disable=disable):
            pass
        assert (facts := progress.facts()) is not None
        assert (facts["what"], facts["done"], facts["total"], facts["unit"]) == ("walk", 7, 7, "step")
        with progress.tqdm(total=10, unit="file", disable=disable) as bar:
            bar.update(3)
            bar.update(2)
        assert progress.facts()["done"] == 5
    assert list(progress.tqdm([1, 2], disable=True)) == [1, 2]
    assert progress.facts()["total"] == 2


def test_long_work_says_so_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    list(progress.tqdm([1, 2], "walk", unit="step", disable=True))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["what"], line["done"], line["total"]) for line in lines] == [
        ("progress", "walk", 1, 2),
        ("progress", "walk", 2, 2),
    ]


def test_time_left_follows_the_pace(monkeypatch):
    clock = iter((100.0, 110.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    progress.begin("train", 100, "step", 50)
    progress.report(70)  # 20 in 10 s, 30 to go
    assert progress.facts()["eta_seconds"] == 15.0
