"""A web server on this machine that serves files with HTTP ranges, and the faults that servers have."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What is served, how the next requests go wrong, and what was asked for."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)  # bytes after which the next replies break off
    claim: int | None = None  # length that every reply claims instead of its own
    ranges: bool = True
    status: list[int] = field(default_factory=list)  # of the next replies
    redirect: str = ""
    etag: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)  # (path, Range)


@contextmanager
def serving(**files: bytes) -> Iterator[Server]:
    """A server of `files` (name -> content) on the loopback address."""
    server = Server(files={name.replace("__", "."): data for name, data in files.items()})

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            _reply(server, self)

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    server.address = f"http://127.0.0.1:{web.server_port}"
    try:
        yield server
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


def _reply(server: Server, handler: BaseHTTPRequestHandler) -> None:
    name, wanted = handler.path.lstrip("/"), handler.headers.get("Range", "")
    server.asked.append((name, wanted))
    if server.redirect:
        handler.send_response(302)
        handler.send_header("Location", server.redirect)
        handler.end_headers()
        return
    if server.status:
        handler.send_error(server.status.pop(0))
        return
    if name not in server.files:
        handler.send_error(404)
        return
    data = server.files[name]
    etag = f'"{md5(data).hexdigest()}"'
    start = 0
    if server.ranges and wanted and handler.headers.get("If-Range") == etag:
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(data):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(data)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    else:
        handler.send_response(200)
    if server.etag:
        handler.send_header("ETag", etag)
    body = data[start:]
    handler.send_header("Content-Length", str(server.claim if server.claim is not None else len(body)))
    handler.end_headers()
    if server.break_after:
        body = body[: server.break_after.pop(0)]
    handler.wfile.write(body)
    handler.close_connection = True
