"""An HTTP server on loopback for tests, in its own thread, that can fail as servers and networks do."""

import contextlib
import json
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Request:
    """What a client has sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body or b"{}")


@dataclass
class Answer:
    """What the server says; `text` instead of `body` for what is not JSON."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None


@dataclass
class Fault:
    """What goes wrong with the next requests of a kind.

    "answer": `answer` instead of the work; "lost before", "lost after": the connection is cut before or after
    the work is done; "silent": no answer, and no work; "late": no answer, and the work is done only when
    `after` more requests have come.
    """

    kind: str
    method: str = ""
    path: str = ""  # regular expression
    times: int = 1
    answer: Answer | None = None
    after: int = 0

    def concerns(self, request: Request) -> bool:
        return (
            self.times > 0 and request.method == (self.method or request.method)
            and re.search(self.path, request.path) is not None
        )  # fmt: skip


class StandIn:
    """Base of a server: `handle` does the work of a request."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.faults: list[Fault] = []
        self._lock = threading.RLock()
        self._delayed: list[tuple[int, Request]] = []
        self._closing = threading.Event()
        self.connections: list[socket.socket] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")

    def handle(self, request: Request) -> Answer:
        """The answer to a request."""
        raise NotImplementedError

    def __enter__(self) -> "StandIn":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):  # closed by the client
                connection.shutdown(socket.SHUT_RDWR)

    def requests(self, method: str, path: str = "") -> list[Request]:
        """What was sent so far, of a method and a path (regular expression)."""
        return [one for one in self.seen if one.method == method and re.search(path, one.path)]

    def receive(self, request: Request) -> Answer | None:
        """Do the work; None where the client is to get no answer."""
        with self._lock:
            self.seen.append(request)
            for due, waiting in list(self._delayed):
                if due <= len(self.seen):
                    self._delayed.remove((due, waiting))
                    self.handle(waiting)
            fault = next((one for one in self.faults if one.concerns(request)), None)
            if fault is None:
                return self.handle(request)
            fault.times -= 1
            if fault.kind == "answer":
                return fault.answer
            if fault.kind == "lost after":
                self.handle(request)
            if fault.kind == "late":
                self._delayed.append((len(self.seen) + fault.after, request))
        if fault.kind in ("silent", "late"):
            self._closing.wait(30)  # longer than any client of a test waits
        return None


def _handler(server: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            server.connections.append(self.connection)

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            answer = server.receive(Request(self.command, parts.path, query, headers, body))
            if answer is None:
                self.close_connection = True
                self.connection.close()
                return
            content = (json.dumps(answer.body) if answer.text is None else answer.text).encode()
            self.send_response(answer.status)
            kind = "application/json" if answer.text is None else "text/html"
            for name, value in ({"Content-Type": kind} | answer.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_HEAD = do_PUT = do_PATCH = _serve

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):  # the connection was cut on purpose
                super().finish()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
