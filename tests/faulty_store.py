"""A proxy in front of an S3-compatible store, with the faults that stores and networks have."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

REFUSAL = b"<Error><Code>AccessDenied</Code><Message>no &lt;secret&gt;</Message></Error>"
BUSY = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"


@dataclass(frozen=True)
class Fault:
    """What happens to one request. `at` counts bytes of the body."""

    kind: str  # refuse, busy, silent, cut, stall, flip, whole (ignores the range), drop (while it is sent)
    at: int = 0


@dataclass
class Proxy:
    """The address of the proxy, what becomes of the requests, and what was asked for."""

    address: str = ""
    faults: list[Fault] = field(default_factory=list)  # of the next requests, one each
    every: Callable[[str, str], Fault | None] = lambda method, path: None  # of all others
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # (method, path, Range)
    ended: threading.Event = field(default_factory=threading.Event)  # stalled replies are given up

    def heal(self) -> None:
        """Hand everything on from now, and forget what was asked for."""
        self.faults, self.every, self.asked = [], lambda method, path: None, []

    def fault(self, method: str, path: str) -> Fault | None:
        return self.faults.pop(0) if self.faults else self.every(method, path)


@contextmanager
def in_front_of(store: str) -> Iterator[Proxy]:
    """A proxy on the loopback address that hands everything on to the store at the address `store`."""
    proxy, place = Proxy(), urlsplit(store)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            _handle(proxy, place.netloc, self)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    proxy.address = f"http://127.0.0.1:{web.server_port}"
    try:
        yield proxy
    finally:
        proxy.ended.set()
        web.shutdown()
        web.server_close()
        thread.join()


def _handle(proxy: Proxy, store: str, handler: BaseHTTPRequestHandler) -> None:
    method, path = handler.command, handler.path
    proxy.asked.append((method, path, handler.headers.get("Range", "")))
    fault = proxy.fault(method, path) or Fault("none")
    length = int(handler.headers.get("Content-Length", 0))
    if fault.kind == "drop":
        handler.rfile.read(min(fault.at, length))
        _hang_up(handler)
        return
    sent = handler.rfile.read(length)
    if fault.kind in ("refuse", "busy"):
        status, text = (403, REFUSAL) if fault.kind == "refuse" else (503, BUSY)
        _answer(handler, status, [("Content-Type", "application/xml")], b"" if method == "HEAD" else text)
        return
    if fault.kind == "silent":
        proxy.ended.wait(30)
        _hang_up(handler)
        return
    headers = dict(handler.headers.items())
    if fault.kind == "whole":
        headers.pop("Range", None)
    _pass_on(proxy, store, handler, headers, sent, fault)


def _pass_on(
    proxy: Proxy, store: str, handler: BaseHTTPRequestHandler, headers: dict, sent: bytes, fault: Fault
) -> None:
    connection = http.client.HTTPConnection(store)
    try:
        connection.request(handler.command, handler.path, sent, headers)
        reply = connection.getresponse()
        body = reply.read()
        facts = [
            (name, value)
            for name, value in reply.getheaders()
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server")
        ]
        size = reply.headers.get("Content-Length", len(body)) if handler.command == "HEAD" else len(body)
    finally:
        connection.close()
    if fault.kind == "flip" and body:
        at = fault.at % len(body)
        body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    if fault.kind not in ("cut", "stall"):
        _answer(handler, reply.status, facts, body, size)
        return
    _answer(handler, reply.status, facts, body[: fault.at], size)
    handler.wfile.flush()
    if fault.kind == "stall":
        proxy.ended.wait(30)
    _hang_up(handler)


def _answer(
    handler: BaseHTTPRequestHandler, status: int, headers: list, body: bytes, size: int | None = None
) -> None:
    handler.send_response(status)
    for name, value in headers:
        handler.send_header(name, value)
    if status != 204:
        handler.send_header("Content-Length", str(len(body) if size is None else size))
    handler.end_headers()
    handler.wfile.write(body)


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()
