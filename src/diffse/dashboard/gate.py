"""Who may use the dashboard: a token in front of every page, medium and socket, and hosts it is called by."""

import hashlib
import hmac
import html
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "diffse_dashboard"
SHORTEST = 16  # characters of a token
_MAX_FORM = 4096  # bytes of the form that brings a token
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>diffse dashboard</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 24rem; margin: 20vh auto 0; padding: 0 1rem; }}
input, button {{ font: inherit; width: 100%; box-sizing: border-box; padding: .5rem .75rem; margin-top: .5rem;
border: 1px solid #8c959f; border-radius: .5rem; }}
button {{ background: #0b62c4; color: #fff; border: 0; }} p {{ min-height: 1.5em; }}</style>
<h1>diffse dashboard</h1><p>{message}</p><form method="post" action="/">
<label>Token<input type="password" name="token" autocomplete="current-password" autofocus required></label>
<button>Open</button></form></html>"""


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine alone."""
    return host in ("localhost", "::1") or host.startswith("127.")


class Gate:
    """ASGI middleware: lets a request through to `app`, asks for the token, or refuses.

    token: None where the dashboard listens on loopback; then only the names of this machine are answered, so
    that no web page can reach it under a name of its own (DNS rebinding).
    """

    def __init__(self, app: "ASGIApp", token: str | None) -> None:
        self.app, self.token = app, token
        self._pass = hashlib.sha256(f"diffse dashboard {token}".encode()).hexdigest()  # not the token itself

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] not in ("http", "websocket") or self._may_enter(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            response = await self._answer(scope, receive)
            await response(scope, receive, send)

    def _may_enter(self, scope: "Scope") -> bool:
        from starlette.requests import HTTPConnection

        connection = HTTPConnection(scope)
        if self.token is None:
            return is_loopback(connection.url.hostname or "")
        return hmac.compare_digest(connection.cookies.get(COOKIE, "").encode(), self._pass.encode())

    async def _answer(self, scope: "Scope", receive: "Receive") -> "Response":
        from starlette.requests import Request
        from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse

        request = Request(scope, receive)
        if self.token is None:
            return PlainTextResponse("This dashboard answers to localhost alone.", 403)
        given = await _given(request)
        if given is None or not hmac.compare_digest(given.encode(), self.token.encode()):
            message = "Wrong token." if given is not None else "This dashboard needs its token."
            return HTMLResponse(_PAGE.format(message=html.escape(message)), 401, _headers())
        response = RedirectResponse(request.url.path if _is_plain(request.url.path) else "/", 303, _headers())
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, self._pass, httponly=True, samesite="strict", secure=secure)
        return response


def _headers() -> dict[str, str]:
    return {
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    }


def _is_plain(path: str) -> bool:
    """A path of this site: browsers read '//name' as another site."""
    return path.startswith("/") and not path.startswith(("//", "/\\"))


async def _given(request: Any) -> str | None:
    """The token in a request's query or form, None when there is none."""
    if request.method == "POST":
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_FORM:
                return ""
        return parse_qs(body.decode("utf-8", errors="replace")).get("token", [""])[0]
    return request.query_params.get("token")
