"""Streamlit's scripts, styles and fonts from memory: a first page asks for a hundred of them at once."""

import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX = "/static/"
_LASTING = b"public, immutable, max-age=31536000"  # their names hold a checksum of what is in them
_SPECIAL = {b"range", b"if-none-match", b"if-modified-since"}  # left to the application


class Statics:
    """ASGI middleware: answers for the files below `folder` as they were at the start; `app` does the rest."""

    def __init__(self, app: "ASGIApp", folder: Path) -> None:
        self.app = app
        files = (file for file in folder.rglob("*") if file.is_file())
        self._files = {_PREFIX + file.relative_to(folder).as_posix(): _answer(file) for file in files}

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        known = self._files.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if known is None or _SPECIAL & {name for name, _ in scope["headers"]}:
            await self.app(scope, receive, send)
            return
        headers, body = known
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _answer(file: Path) -> tuple[list[tuple[bytes, bytes]], bytes]:
    body = file.read_bytes()
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    headers = {"content-type": kind.encode(), "content-length": str(len(body)).encode()}
    return [(name.encode(), value) for name, value in (headers | {"cache-control": _LASTING}).items()], body
