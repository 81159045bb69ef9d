"""What stands behind the pages: the gate, what comes from afar, the graph, statistics, players and jobs."""

import asyncio
import datetime
import http.server
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import dashboard_project
import numpy as np
import pandas
import pytest
import report_project

from diffse import audio, cli, settings
from diffse.dashboard import (
    background,
    chain,
    charts,
    comparing,
    drift,
    entries,
    experiments,
    jobs,
    kubeflow,
    look,
    player,
    project,
    server,
)
from diffse.dashboard import gate as gates
from diffse.errors import DiffseError

TOKEN = "a-token-of-some-length"
PYTHON = sys.executable


# ------------------------------------------------------------------------------------------------ gate


def ask(token: str | None, path: str = "/", method: str = "GET", body: bytes = b"", **headers: str):
    """(status, headers, body, whether the application was reached) of one request through the gate."""
    reached, sent = [], []

    async def application(scope, receive, send):
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    plain, _, query = path.partition("?")
    lines = {"host": "127.0.0.1:8501"} | headers
    scope = {"type": "http", "method": method, "path": plain, "query_string": query.encode(), "scheme": "http"}
    scope |= {"headers": [(key.encode(), value.encode()) for key, value in lines.items()], "server": ("x", 1)}
    asyncio.run(gates.Gate(application, token)(scope, receive, send))
    found = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(part.get("body", b"") for part in sent[1:]), bool(reached)


@pytest.mark.parametrize(
    "path", ["/", "/media/x.wav", "/_stcore/health", "/_stcore/upload_file/a/b", "/static/x.js"]
)
def test_nothing_is_served_without_the_token(path):
    status, _, body, reached = ask(TOKEN, path)
    assert (status, reached) == (401, False)
    assert b"needs its token" in body
    assert TOKEN.encode() not in body


def test_the_token_opens_the_dashboard_and_leaves_the_address():
    status, headers, _, reached = ask(TOKEN, f"/listen?token={TOKEN}")
    assert (status, headers["location"], reached) == (303, "/listen", False)
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert ask(TOKEN, "/media/x.wav", cookie=cookie.partition(";")[0])[3]
    assert not ask("another-token-of-some-length", "/", cookie=cookie.partition(";")[0])[3]


def test_the_token_may_come_by_form():
    assert ask(TOKEN, "/", "POST", f"token={TOKEN}".encode())[0] == 303
    assert ask(TOKEN, "/", "POST", b"token=wrong")[0] == 401
    assert ask(TOKEN, "/", "POST", b"x" * 10_000)[0] == 401


@pytest.mark.parametrize("wrong", ["", "wrong", TOKEN[:-1], TOKEN + "x", "\u00e4"])
def test_a_wrong_token_is_refused(wrong):
    status, headers, _, reached = ask(TOKEN, f"/?token={wrong}")
    assert (status, reached) == (401, False)
    assert "set-cookie" not in headers


def test_a_login_leads_to_no_other_site():
    assert ask(TOKEN, f"//evil.example/?token={TOKEN}")[1]["location"] == "/"


def test_a_socket_needs_the_token_too():
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    async def application(scope, receive, send):
        raise AssertionError("reached")

    scope = {"type": "websocket", "path": "/_stcore/stream", "query_string": b"", "headers": [], "scheme": "ws"}
    asyncio.run(gates.Gate(application, TOKEN)(scope | {"server": ("x", 1)}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_on_loopback_only_this_machine_is_answered():
    assert ask(None)[3]
    assert ask(None, host="localhost:8501")[3]
    assert ask(None, host="evil.example:8501")[0] == 403


def test_a_token_is_made_where_others_can_connect(monkeypatch):
    monkeypatch.delenv(server.TOKEN, raising=False)
    assert server.token_for("127.0.0.1", None) is None
    assert server.token_for("127.0.0.1", TOKEN) == TOKEN
    made = {server.token_for("0.0.0.0", None) for _ in range(9)}
    assert len(made) == 9
    assert min(map(len, made)) >= 32
    monkeypatch.setenv(server.TOKEN, TOKEN)
    assert server.token_for("0.0.0.0", None) == TOKEN
    with pytest.raises(DiffseError, match="has 5 characters"):
        server.token_for("127.0.0.1", "short")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--params", "none.yaml"], "none.yaml: no such file"),
        (["--port", "70000"], "--port 70000: a port is a number from 0 to 65535"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--token", "short"], "give 16 or more"),
    ],
)
def test_mistakes_of_the_command_are_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("")
    assert cli.main(["dashboard", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


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


# ------------------------------------------------------------------------------------------------ jobs


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("audio") / "a.wav"
    audio.write(file, np.sin(np.arange(16000) * 0.05).astype(np.float32)[None] * 0.3, 16000)
    return file.read_bytes()


def finished(job: jobs.Job) -> jobs.Job:
    end = time.monotonic() + 240
    while job.running and time.monotonic() < end:
        time.sleep(0.05)
    assert not job.running
    return job


def acts(monkeypatch, code: str) -> None:
    """Let a program stand in the place of Python, which is told to run diffse."""
    import tempfile

    program = Path(tempfile.mkdtemp()) / "python"
    program.write_text(f"#!{PYTHON}\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(jobs.sys, "executable", str(program))


def test_a_job_enhances_in_its_own_folder_and_leaves_nothing(monkeypatch, recording, tmp_path):
    acts(monkeypatch, "import shutil, sys; shutil.copy('in.wav', 'out.wav'); print(sys.argv)")
    job = finished(jobs.Job("my.wav", recording, tmp_path))
    assert job.error == ""
    before, after, rate = job.waves()
    assert (rate, len(before), job.cut) == (16000, 16000, False)
    assert np.array_equal(before, after)
    place = job._place
    assert place.is_dir()
    job.close()
    assert not place.exists()


def test_a_job_that_goes_out_of_sight_is_ended(monkeypatch, recording, tmp_path):
    acts(monkeypatch, "import time; time.sleep(600)")
    job = jobs.Job("my.wav", recording, tmp_path)
    process, place = job._process, job._place
    with pytest.raises(DiffseError, match="another recording is being enhanced"):
        jobs.Job("other.wav", recording, tmp_path)
    del job
    assert process.wait(60) < 0
    assert not place.exists()
    acts(monkeypatch, "")
    finished(jobs.Job("other.wav", recording, tmp_path)).close()  # and the next one may begin


def test_a_job_that_takes_too_long_is_ended(monkeypatch, recording, tmp_path):
    monkeypatch.setattr(jobs, "TIMEOUT", 0.2)
    acts(monkeypatch, "import time; time.sleep(600)")
    job = finished(jobs.Job("my.wav", recording, tmp_path))
    assert job.error.startswith("it was stopped after")
    job.close()


def test_a_job_says_why_it_failed(recording, tmp_path):
    job = finished(jobs.Job("my.wav", recording, tmp_path / "no_checkpoint"))
    assert "no_checkpoint" in job.error
    assert "\n" not in job.error
    job.close()
    for name, content in (("a.mp3", recording), ("a.wav", b"no audio"), ("a.wav", b"")):
        with pytest.raises(DiffseError):
            jobs.Job(name, content, tmp_path)


def test_a_long_recording_is_cut(monkeypatch, recording, tmp_path):
    monkeypatch.setattr(jobs, "MAX_SECONDS", 0.5)
    acts(monkeypatch, "import shutil; shutil.copy('in.wav', 'out.wav')")
    job = finished(jobs.Job("my.wav", recording, tmp_path))
    assert job.cut
    assert len(job.waves()[0]) == 8000
    job.close()


def test_times_are_told_from_now():
    now = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
    assert entries.ago(now - datetime.timedelta(minutes=5), now) == "5 min ago"
    assert entries.ago(now, now) == "just now"
