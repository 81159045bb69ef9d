"""Recurring runs: one schedule for each pipeline and experiment, whatever goes wrong."""

import pytest
from http_stand_in import Fault
from submitting import submit

from diffse.errors import DiffseError
from pipelines import schedules


def recurring(server, folder, built, cron: str) -> dict[str, dict]:
    assert submit(server, folder, built, "--recurring", cron) == 0
    return dict(server.schedules)


def test_a_schedule_is_made_once_and_replaced(server, folder, built, capsys):
    first = recurring(server, folder, built, "0 3 * * 1")
    assert recurring(server, folder, built, "0 3 * * 1") == first
    assert "unchanged" in capsys.readouterr().out
    (entry,) = first.values()
    assert entry["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
    assert (entry["mode"], entry["max_concurrency"], entry["no_catchup"]) == ("ENABLE", "1", True)
    assert "takes the place" not in capsys.readouterr().out
    (second,) = recurring(server, folder, built, "30 4 * * *").values()
    assert second["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"
    assert "it takes the place of 1 in experiment 'diffse'" in capsys.readouterr().out
    assert not server.runs
    assert recurring(server, folder, built, "none") == {}
    assert "the schedule is ended" in capsys.readouterr().out


def test_all_old_schedules_go(server, folder, built):
    """More than a page of them, as if they had been made by hand."""
    (entry,) = recurring(server, folder, built, "0 3 * * 1").values()
    for _ in range(2 * server.page_size):
        server._new(
            server.schedules, "recurring_run_id", {**entry, "recurring_run_id": f"copy-{len(server.schedules)}"}
        )
    (left,) = recurring(server, folder, built, "30 4 * * *").values()
    assert left["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"


@pytest.mark.parametrize("kind", ["lost before", "lost after"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_lost_connection_makes_no_second_schedule(server, folder, built, kind, method):
    recurring(server, folder, built, "0 3 * * 1")
    server.faults = [Fault(kind, method, "/recurringruns")]
    (entry,) = recurring(server, folder, built, "0 4 * * 1").values()
    assert entry["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * 1"


@pytest.mark.parametrize(
    "text", ["0 3 * * 1", "*/15 8-18 1,15 JAN-MAR MON-FRI", "5 0 3 * * 1", "@daily", "@every 6h"]
)
def test_time_tables(text):
    assert schedules.time_table(text).split()[-1] == text.split()[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 25 * * *", "'25' is no hour"),
        ("61 3 * * *", "'61' is no minute"),
        ("0 3 * *", "five fields are needed"),
        ("0 3 * * MONDAY", "'MONDAY' is no day of the week"),
        ("0 3 9-2 * *", "'9-2' is no day of the month"),
        ("*/0 3 * * *", "'\\*/0' is no minute"),
        ("@sometimes", "five fields are needed"),
        ("@every ", "five fields are needed"),
    ],
)
def test_wrong_time_tables(text, message):
    with pytest.raises(DiffseError, match=message):
        schedules.time_table(text)
