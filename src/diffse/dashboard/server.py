"""Start the dashboard: Streamlit behind the gate, in this process."""

import datetime
import importlib
import os
import pkgutil
import socket
from pathlib import Path
from typing import Any

from diffse.dashboard import entries, look, session
from diffse.dashboard.gate import SHORTEST, Gate, is_loopback, new_token
from diffse.dashboard.project import Project
from diffse.dashboard.statics import Statics
from diffse.errors import DiffseError

TOKEN = "DIFFSE_DASHBOARD_TOKEN"  # a variable is not seen by other users, as an argument is
MAX_UPLOAD_MB = 50

_OPTIONS = {
    "server.headless": True,
    "server.fileWatcherType": "none",
    "server.runOnSave": False,
    "server.enableStaticServing": False,
    "server.maxUploadSize": MAX_UPLOAD_MB,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "runner.magicEnabled": False,
    "theme.light.primaryColor": "#0b62c4",  # with one theme only, Streamlit shows it to everybody
    "theme.dark.primaryColor": "#3a86e8",
    "theme.baseRadius": "0.6rem",
    "theme.chartCategoricalColors": list(look.SYSTEMS),
}


def token_for(host: str, given: str | None) -> str | None:
    """The token that guards an address: none on loopback unless one is given. DiffseError: it is too short."""
    token = given or os.environ.get(TOKEN)
    if token is not None and len(token) < SHORTEST:
        raise DiffseError(f"the dashboard's token has {len(token)} characters; give {SHORTEST} or more")
    return token or (None if is_loopback(host) else new_token())


def serve(root: Path, host: str, port: int, given_token: str | None, kubeflow: str) -> None:
    """Serve the project until Ctrl-C. Prints the address, with the token where there is one."""
    import uvicorn

    token = token_for(host, given_token)
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    project = Project(root, kubeflow)
    session.open_project(project)
    project.warm()
    _load_pages()
    server = uvicorn.Server(uvicorn.Config(_app(token, host, port), log_level="warning", ws="auto"))
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    print(f"diffse dashboard of {root.resolve()}")
    print(f"  http://{shown}:{port}/{f'?token={token}' if token else ''}")
    if token and not is_loopback(host):
        print("  The connection is not encrypted: use it in a network you trust, or behind a proxy with TLS.")
    print("  Ctrl-C ends it.", flush=True)
    server.run(sockets=[listening])


def _load_pages() -> None:
    """Import what pages need, so that the first visitor does not wait for it."""
    import pandas
    from streamlit import dataframe_util

    from diffse.dashboard import views
    from diffse.dashboard.views import common

    for module in pkgutil.iter_modules(views.__path__):
        importlib.import_module(f"{views.__name__}.{module.name}")
    now = datetime.datetime.now(datetime.UTC)
    line = entries.Entry("run:none", "command line", "train", "ok", now)
    dataframe_util.convert_pandas_df_to_arrow_bytes(pandas.DataFrame(common.lines([line])))


def _listen(host: str, port: int) -> socket.socket:
    """A socket of the address; DiffseError when it is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol left open, asyncio leaves Nagle's algorithm on: 40 ms for each small file of a page.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # from now on, so that whoever follows the printed address at once waits a moment
    except OSError as error:
        listening.close()
        reason = error.strerror or error
        raise DiffseError(
            f"dashboard: cannot listen on {host}, port {port} ({reason}); choose another with --port or --host"
        ) from None
    return listening


def _app(token: str | None, host: str, port: int) -> Any:
    """Streamlit's ASGI application inside the gate."""
    from starlette.middleware import Middleware
    from streamlit import config, file_util
    from streamlit.starlette import App

    options = _OPTIONS | {"server.address": host, "server.port": port}
    config.get_config_options(force_reparse=True, options_from_flags=options)
    files = Path(file_util.get_static_dir()) / "static"
    layers = [Middleware(Gate, token=token), Middleware(Statics, folder=files)]
    return App(Path(__file__).with_name("app.py"), middleware=layers)
