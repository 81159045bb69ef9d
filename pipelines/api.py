"""Requests to Kubeflow Pipelines (v2beta1): time limits, repetition that is safe, and errors of one line.

kfp's own client waits without limit, logs tracebacks and keeps settings in the home folder; this goes to the
generated client (kfp-server-api) below it.
"""

import datetime
import email.utils
import json
import os
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp_server_api
import urllib3

from diffse.errors import DiffseError
from pipelines.credentials import Credentials

IN_PROGRESS = (429, 500, 502, 503, 504)  # the same request may be answered later
CONFLICT = 409
LONGEST_ANSWER = 300  # characters of a server's own words in a message


@dataclass(frozen=True)
class Patience:
    """How long a client waits, in seconds, and how often it tries."""

    connect: float = 5.0
    answer: float = 30.0
    attempts: int = 7
    first_wait: float = 1.0  # before the second attempt; doubled from one to the next
    longest_wait: float = 60.0  # also of what a server asks for
    settle: tuple[float, ...] = (1.0, 4.0, 10.0)  # looks for what may have been made before making it again
    poll: float = 15.0  # between two looks at a run
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)


class Busy(Exception):
    """A request that may be repeated: `sent` unless it surely had no effect, `wait` as the server asks."""

    def __init__(self, text: str, sent: bool = True, wait: float = 0.0) -> None:
        super().__init__(text)
        self.sent, self.wait = sent, wait


class Refused(DiffseError):
    """A final answer; `status` is that of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Exists(Exception):
    """Something of that name is there already (409)."""


class Api:
    """Kubeflow Pipelines at `host`, seen from one namespace ("" where it serves a single user)."""

    def __init__(
        self, host: str, namespace: str, credentials: Credentials, ca_file: Path | None, patience: Patience
    ) -> None:
        self.host, self.namespace = checked_host(host), namespace
        self.page_host = os.environ.get("KF_PIPELINES_UI_ENDPOINT", self.host).rstrip("/")
        self.credentials, self.patience = credentials, patience
        configuration = kfp_server_api.Configuration(host=self.host)
        configuration.ssl_ca_cert = _ca_file(ca_file)
        configuration.proxy = _proxy(self.host)
        # One attempt, and no redirect: a login page is no answer.
        configuration.retries = urllib3.Retry(total=0, redirect=0, raise_on_redirect=False)
        if credentials.kind == "token":
            configuration.api_key["authorization"] = "read for each request"
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.refresh_api_key_hook = self._renew
        self._client = client = kfp_server_api.ApiClient(configuration)
        self.health = kfp_server_api.HealthzServiceApi(client)
        self.experiments = kfp_server_api.ExperimentServiceApi(client)
        self.pipelines = kfp_server_api.PipelineServiceApi(client)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(client)
        self.runs = kfp_server_api.RunServiceApi(client)
        self.schedules = kfp_server_api.RecurringRunServiceApi(client)

    def _renew(self, configuration: kfp_server_api.Configuration) -> None:
        configuration.api_key["authorization"] = self.credentials.read()

    # --------------------------------------------------------------------------------------- requests

    def once(self, request: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """One request. Raises Busy, Exists or Refused."""
        if self.credentials.kind == "cookie":
            self._client.cookie = self.credentials.read()
        limits = (self.patience.connect, self.patience.answer)
        try:
            answer = request(*args, **options, _request_timeout=limits)
        except kfp_server_api.ApiException as error:
            raise self._said(error) from None
        except urllib3.exceptions.HTTPError as error:
            raise self._broken(getattr(error, "reason", None) or error) from None
        except (ValueError, UnicodeDecodeError):  # the generated client's for an answer of another form
            raise Refused(200, f"{self.host}: {_NOT_THE_API}") from None
        if not self._client.last_response.data.lstrip().startswith("{"):
            raise Refused(200, f"{self.host}: {_NOT_THE_API}")
        return answer

    def read(self, request: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """A request that changes nothing, repeated while the server is busy or cannot be reached."""
        for attempt in range(self.patience.attempts):
            try:
                return self.once(request, *args, **options)
            except Busy as busy:
                self._wait(attempt, busy)
            except Exists as error:
                raise Refused(CONFLICT, str(error)) from None
        raise AssertionError("not reached: the last attempt raises")

    def ensure(self, find: Callable[[], Any], make: Callable[[], Any]) -> tuple[Any, bool, bool]:
        """What `find` finds, or else what `make` makes, which is sent again only after looking for it.

        Returns it, whether it was made by this call, and whether an attempt ended without an answer, so that
        the server may still be making a second one. `find` and `make` call `read` and `once`.
        """
        unanswered = False
        for attempt in range(self.patience.attempts):
            found = self._look(find) if unanswered else find()
            if found is not None:
                return found, unanswered, unanswered
            try:
                return make(), True, unanswered
            except Exists:
                self._wait(attempt, Busy("made by another client at the same time", sent=False))
            except Busy as busy:
                unanswered = unanswered or busy.sent
                self._wait(attempt, busy)
        raise AssertionError("not reached: the last attempt raises")

    def _look(self, find: Callable[[], Any]) -> Any:
        """Look several times: a request without an answer may still be at work."""
        for seconds in self.patience.settle:
            found = find()
            if found is not None:
                return found
            self.patience.sleep(seconds)
        return find()

    def listing(self, request: Callable[..., Any], items: str, name: str, **options: Any) -> Iterator[Any]:
        """All entries of a list whose display name is `name`, over all pages."""
        wanted = {"operation": "EQUALS", "key": "display_name", "string_value": name}
        options |= {"filter": json.dumps({"predicates": [wanted]}), "page_size": 100}
        token = ""
        while True:
            page = self.read(request, **options, page_token=token)
            for entry in getattr(page, items) or ():
                if entry.display_name == name:
                    yield entry
            token = page.next_page_token
            if not token:
                return

    def _wait(self, attempt: int, busy: Busy) -> None:
        """Wait longer from attempt to attempt; after the last one the reason becomes final."""
        patience = self.patience
        if attempt + 1 >= patience.attempts:
            raise DiffseError(f"{busy}; gave up after {patience.attempts} attempts")
        seconds = max(patience.first_wait * 2**attempt, busy.wait)
        seconds = min(seconds, patience.longest_wait)
        print(f"{busy}; trying again in {seconds:g} s", file=sys.stderr, flush=True)
        patience.sleep(seconds)

    # ----------------------------------------------------------------------------------- what went wrong

    def _said(self, error: kfp_server_api.ApiException) -> Exception:
        status, words = error.status, _words(error.body)
        text = f"{self.host} answers {status}" + (f" ({words})" if words else "")
        if status == CONFLICT:
            return Exists(text)
        if status in IN_PROGRESS:
            wait = _seconds((error.headers or {}).get("Retry-After"))
            return Busy(text, sent=status != 429, wait=wait)
        if 300 <= status < 400:
            return Refused(status, f"{self.host} sends to another page: {_LOGIN} ({self.credentials.text})")
        return Refused(status, f"{text}{self._advice(status)}")

    def _advice(self, status: int) -> str:
        if status == 401:
            return f": who you are is not accepted ({self.credentials.text}); {_LOGIN}"
        if status == 403:
            place = f"namespace '{self.namespace}'" if self.namespace else "this namespace"
            return f": no rights in {place}, or it does not exist ({self.credentials.text})"
        return ""

    def _broken(self, error: Exception) -> Exception:
        """A connection that failed: before the request was sent, or after."""
        if isinstance(error, urllib3.exceptions.SSLError):
            return Refused(0, f"{self.host}: {_tls(error)}")
        early = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
        if isinstance(error, (*early, urllib3.exceptions.ProxyError)):
            return Busy(f"{self.host} cannot be reached: {plain(error)}", sent=False)
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            return Busy(f"{self.host} has not answered within {self.patience.answer:g} s")
        return Busy(f"{self.host}: the connection was lost")


# ---------------------------------------------------------------------------------------------- details

_LOGIN = "log in again and renew the token or cookie"
_NOT_THE_API = f"answers, but not as Kubeflow Pipelines does; is --host right? If so, {_LOGIN}"


def checked_host(host: str) -> str:
    """The address without its last slash. Raises DiffseError for what is no address or holds a secret."""
    parts = urllib.parse.urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DiffseError(
            f"--host '{host}': write http:// or https:// and a name, as in https://kubeflow.my.org"
        )
    if parts.username or parts.password:
        raise DiffseError("--host holds a user name; give who you are by --token-file or --cookie-file")
    if parts.fragment or parts.query:
        raise DiffseError(f"--host '{host}': give the address without what follows '#' or '?'")
    return host.rstrip("/")


def plain(error: Exception) -> str:
    """The system's own reason behind a failed connection."""
    if (
        type(error) is urllib3.exceptions.ConnectTimeoutError
    ):  # a refused connection is one too, of another type
        return "no answer"
    cause = error.__cause__ or error.__context__
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return str(getattr(cause, "strerror", None) or cause or str(error).rpartition(": ")[2])


def _tls(error: Exception) -> str:
    text = str(error)
    if "certificate verify failed" in text.lower():
        reason = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "unknown issuer"
        return f"its certificate is not trusted ({reason}); name your authority's with --ca-file"
    if "WRONG_VERSION_NUMBER" in text:
        return "does not speak TLS; write http:// instead of https://, or another port"
    return f"TLS failed ({text.partition(' (_ssl')[0]})"


def _words(body: str | None) -> str:
    """What a server says about an error, on one line."""
    try:
        said = json.loads(body or "")
    except ValueError:
        return ""  # a proxy's page
    fields = said if isinstance(said, dict) else {}
    text = next((fields[key] for key in ("error_message", "message", "error") if fields.get(key)), "")
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST_ANSWER else f"{line[:LONGEST_ANSWER]}..."


def _seconds(value: str | None) -> float:
    """Retry-After: seconds or a date."""
    if not value:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    try:
        then = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (then - datetime.datetime.now(datetime.UTC)).total_seconds())


def _ca_file(path: Path | None) -> str | None:
    chosen = str(path) if path else os.environ.get("SSL_CERT_FILE")
    if chosen and not Path(chosen).is_file():
        raise DiffseError(f"{chosen}: no such file; it should hold the certificates of your authority")
    return chosen


def _proxy(host: str) -> str | None:
    """The proxy that the standard variables name for a host, if any."""
    parts = urllib.parse.urlsplit(host)
    if is_loopback(host) or urllib.request.proxy_bypass_environment(parts.netloc):
        return None
    return urllib.request.getproxies_environment().get(parts.scheme)


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine."""
    name = urllib.parse.urlsplit(url).hostname or ""
    return name in ("localhost", "::1") or name.startswith("127.")
