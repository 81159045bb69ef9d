"""Runs of a Kubeflow Pipelines server, read through its API."""

import datetime
import os
import socket
from typing import Any
from urllib.parse import urlsplit

from diffse.dashboard.entries import KUBEFLOW, Entry
from diffse.errors import DiffseError

HOST, NAMESPACE = "KFP_HOST", "KFP_NAMESPACE"  # variables that name the server and the namespace
TOKEN = "DIFFSE_KFP_TOKEN"  # that of the submission
CONNECT_SECONDS, READ_SECONDS = 3.0, 10.0
PAGE, MOST = 100, 1000  # runs asked for at once and at all
STATES = {
    "SUCCEEDED": "ok",
    "SKIPPED": "ok",
    "FAILED": "failed",
    "CANCELED": "interrupted",
    "CANCELING": "interrupted",
}


def fetch(host: str) -> list[Entry]:
    """The newest runs of the server. DiffseError when it cannot be reached or refuses."""
    check_reachable(host)
    listed, token = [], ""
    try:
        client = _client(host)
        while len(listed) < MOST:
            found = client.list_runs(
                page_token=token, page_size=PAGE, sort_by="created_at desc", namespace=os.environ.get(NAMESPACE)
            )
            listed += found.runs or []
            token = found.next_page_token or ""
            if not token:
                break
    except Exception as error:  # of kfp, its generated client, urllib3 or yaml
        raise DiffseError(f"{shown(host)}: {_reason(error)}") from None
    return [entry(run, host) for run in listed]


def check_reachable(host: str) -> None:
    """Try to connect before kfp does, which would try for minutes. DiffseError: nobody answers."""
    place = urlsplit(host if "://" in host else f"http://{host}")
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        socket.create_connection((place.hostname or "", port), CONNECT_SECONDS).close()
    except OSError as error:
        raise DiffseError(f"{shown(host)}: cannot be reached ({error.strerror or error})") from None


def shown(host: str) -> str:
    """The address without user name and password."""
    place = urlsplit(host if "://" in host else f"http://{host}")
    return f"{place.scheme}://{place.hostname}" + (f":{place.port}" if place.port else "")


def _client(host: str) -> Any:
    """kfp's client; it is given no more time than READ_SECONDS for each request."""
    import kfp
    from kfp_server_api import rest

    request = rest.RESTClientObject.request
    if not getattr(request, "bounded", False):  # the client leaves it to urllib3, which waits for ever

        def bounded(self, *args: Any, _request_timeout: Any = None, **options: Any) -> Any:
            return request(self, *args, _request_timeout=_request_timeout or READ_SECONDS, **options)

        bounded.bounded = True
        rest.RESTClientObject.request = bounded
    return kfp.Client(host=host, existing_token=os.environ.get(TOKEN))


def _reason(error: Exception) -> str:
    status = getattr(error, "status", None)
    if status in (401, 403):
        return f"refuses access (HTTP {status}); set {TOKEN}"
    if status:
        return f"answers with HTTP {status}"
    return " ".join(str(error).split())[:150] or type(error).__name__


def entry(run: Any, host: str) -> Entry:
    """A run as the API describes it."""
    state = STATES.get(str(run.state), "running")
    started = run.scheduled_at or run.created_at
    ended = run.finished_at if state != "running" else datetime.datetime.now(datetime.UTC)
    # the API says 1970 for a run that has not ended
    seconds = (ended - started).total_seconds() if ended and started and ended > started else None
    parameters = getattr(run.runtime_config, "parameters", None) or {}
    return Entry(
        key=f"kfp:{run.run_id}",
        kind=KUBEFLOW,
        title=str(run.display_name or run.run_id),
        state=state,
        started=started or datetime.datetime.fromtimestamp(0, datetime.UTC),
        seconds=seconds,
        pipeline=str(run.run_id),
        settings={str(name): str(value) for name, value in parameters.items()},
        error=str(getattr(run.error, "message", "") or "") if run.error else "",
        link=f"{shown(host)}/#/runs/details/{run.run_id}",
        is_pipeline=True,
    )
