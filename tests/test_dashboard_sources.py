"""Where the list of runs comes from: records, a cluster, git; and how runs become lines."""

import datetime
import http.server
import json
import subprocess
import threading
import time
from pathlib import Path

import dashboard_project
import pytest

from diffse.dashboard import background, entries, experiments, kubeflow, look, player, project
from diffse.errors import DiffseError

# ------------------------------------------------------------------------------------------- from afar


def test_nobody_waits_for_what_does_not_answer():
    stuck = threading.Event()
    source = background.Background(lambda: stuck.wait(60) and ["late"], [], 1.0)
    began = time.monotonic()
    assert source.latest().pending
    assert time.monotonic() - began < 30
    stuck.set()
    assert source.latest(30).value == ["late"]


def test_a_failing_source_keeps_what_it_said_before():
    answers = iter([["first"], DiffseError("gone"), ValueError("odd\nanswer")])

    def fetch():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    source = background.Background(fetch, [], 0.0)
    seen = []
    for _ in range(3):
        source.latest()
        busy = source._busy
        if busy is not None:
            busy.join(30)
        seen.append(source._seen)
    assert [item.value for item in seen] == [["first"]] * 3
    assert [item.error for item in seen] == ["", "gone", "ValueError: odd answer"]


RUNS = [
    {"run_id": "a1", "display_name": "diffse <b>", "state": "SUCCEEDED", "created_at": "2026-11-25T08:00:00Z",
     "scheduled_at": "2026-11-25T08:00:05Z", "finished_at": "2026-11-25T08:10:05Z",
     "runtime_config": {"parameters": {"workspace": "/mnt/diffse"}}},
    {"run_id": "b2", "display_name": "second", "state": "FAILED", "created_at": "2026-11-25T09:00:00Z",
     "finished_at": "2026-11-25T09:01:00Z", "error": {"code": 2, "message": "out of memory"}},
    {"run_id": "c3", "display_name": "third", "state": "RUNNING", "created_at": "2026-11-25T10:00:00Z",
     "finished_at": "1970-01-01T00:00:00Z"},
]  # fmt: skip


@pytest.fixture
def cluster():
    """(address, list of requests) of a server that speaks as much of the v2beta1 API as listing runs takes."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        status = 200

        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization", "")))
            listing = "/apis/v2beta1/runs?" in self.path
            first = "page_token=next" not in self.path
            page = {"runs": RUNS[:2], "next_page_token": "next"} if first else {"runs": RUNS[2:]}
            body = json.dumps(page if listing else {"multi_user": False}).encode()
            self.send_response(Handler.status if listing else 200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked, Handler
        server.shutdown()


def test_runs_of_a_cluster_are_read_through_its_api(cluster, monkeypatch):
    monkeypatch.setenv(kubeflow.TOKEN, "cluster-token")
    host, asked, handler = cluster
    found = kubeflow.fetch(host)
    assert [(run.title, run.state, run.error) for run in found] == [
        ("diffse <b>", "ok", ""),
        ("second", "failed", "out of memory"),
        ("third", "running", ""),
    ]
    assert found[0].seconds == 600
    assert found[0].settings == {"workspace": "/mnt/diffse"}
    assert found[0].link == f"{host}/#/runs/details/a1"
    assert found[2].seconds > 0
    assert any("page_token=next" in path for path, _ in asked)
    assert {token for path, token in asked if "runs" in path} == {"Bearer cluster-token"}
    handler.status = 403
    with pytest.raises(DiffseError, match=r"refuses access \(HTTP 403\)"):
        kubeflow.fetch(host)


def test_an_address_shows_no_password():
    with pytest.raises(DiffseError) as caught:
        kubeflow.fetch("http://user:secret@127.0.0.1:9")
    assert str(caught.value).startswith("http://127.0.0.1:9: cannot be reached (")


def git(folder: Path, *command: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(
        ["git", "-C", folder, *identity, *command], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_experiments_are_read_from_git(tmp_path):
    assert experiments.fetch(tmp_path) == []
    git(tmp_path, "init", "-q")
    (tmp_path / "params.yaml").write_text("train: {bridge: {lr: 0.001, steps: 9}}\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "baseline")
    baseline = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "params.yaml").write_text("train: {bridge: {lr: 0.002, steps: 9}}\n")
    git(tmp_path, "commit", "-qam", "experiment")
    commit = git(tmp_path, "rev-parse", "HEAD")
    git(tmp_path, "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/brave-try", commit)
    git(tmp_path, "update-ref", "refs/exps/stash", commit)
    git(tmp_path, "reset", "-q", "--hard", baseline)
    (found,) = experiments.fetch(tmp_path)
    assert (found.title, found.kind, found.code) == ("brave-try", entries.EXPERIMENT, commit[:8])
    assert found.settings == {"train.bridge.lr": "0.002"}


def test_the_dashboard_writes_nothing_in_the_project(tmp_path):
    made, _ = dashboard_project.make(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    made.entries(), made.grouped(), made.systems(), made.corpora(), made.checkpoints(), made.results()
    player.page(player.signals_of(tmp_path, "demo", player.utterances(tmp_path, "demo").iloc[0], [], {}), 16000)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


# ------------------------------------------------------------------------------------- runs as entries


def test_a_pipeline_is_as_bad_as_its_worst_step(tmp_path):
    first = dashboard_project.record("train", "x.demo", state="failed", error="loss nan")
    again = dashboard_project.record("train", "x.demo", minutes=5)
    other = dashboard_project.record("report", minutes=9, seconds=60.0)
    for made in (first, again, other):
        dashboard_project.keep(tmp_path, made)
    (line,), _, _ = project.Project(tmp_path).grouped()
    assert (line.state, line.steps, line.error) == ("ok", 2, "")  # the second attempt counts
    assert line.seconds == 600.0
    dashboard_project.keep(tmp_path, again | {"state": "interrupted"})
    assert project.Project(tmp_path).grouped()[0][0].state == "interrupted"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.25, "0.2 s"), (89, "89 s"), (600, "10 min"), (3700, "1 h 2 min"), (200000, "2 d 7 h")],
)
def test_durations_are_words(seconds, text):
    assert entries.duration(seconds) == text


def test_plain_text_means_nothing_to_markdown():
    assert look.plain("**x** [a](b) :red[c] $d$\n# e") == (
        r"\*\*x\*\* \[a\]\(b\) \:red\[c\] \$d\$ \# e"
    )  # fmt: skip
    assert "http://" not in look.plain("see http://x or www.x or a@b.c").replace("\\", "")


def test_times_are_told_from_now():
    now = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
    assert entries.ago(now - datetime.timedelta(minutes=5), now) == "5 min ago"
    assert entries.ago(now, now) == "just now"
