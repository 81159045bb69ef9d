"""The gate before the dashboard: who is let in, and to what."""

import asyncio
import socket

import pytest

from diffse import cli
from diffse.dashboard import gate as gates
from diffse.dashboard import server
from diffse.dashboard.statics import Statics
from diffse.errors import DiffseError

TOKEN = "a-token-of-some-length"


def ask(token: str | None, path: str = "/", method: str = "GET", body: bytes = b"", files=None, **headers: str):
    """(status, headers, body, whether the application was reached) of one request through the gate.

    `files`: a folder whose files are answered from memory.
    """
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
    inner = application if files is None else Statics(application, files)
    asyncio.run(gates.Gate(inner, token)(scope, receive, send))
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


def test_scripts_come_from_memory_behind_the_gate(tmp_path):
    (tmp_path / "js").mkdir()
    (tmp_path / "js" / "a.js").write_text("1;")
    status, headers, body, reached = ask(None, "/static/js/a.js", files=tmp_path)
    assert (status, body, reached) == (200, b"1;", False)
    assert headers["content-type"].endswith("/javascript") and headers["content-length"] == "2"
    assert ask(TOKEN, "/static/js/a.js", files=tmp_path)[0] == 401
    for path in ("/static/js/b.js", "/static/../a.js", "/js/a.js", "/"):
        assert ask(None, path, files=tmp_path)[3], path
    assert ask(None, "/static/js/a.js", files=tmp_path, range="bytes=0-0")[3]
    assert ask(None, "/static/js/a.js", method="HEAD", files=tmp_path)[3]


def test_small_files_are_sent_at_once():
    """asyncio turns Nagle's algorithm off for sockets that name their protocol alone."""
    with server._listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


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
