"""Who the client is to a cluster: a token, a cookie, or the service account of the pod it runs in.

Secrets come from files or environment variables, never from the command line, where every process can read
them, and are read again for each request: a file that is renewed while a run is followed stays valid.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffse.errors import DiffseError

TOKEN, COOKIE = "DIFFSE_KFP_TOKEN", "DIFFSE_KFP_COOKIE"


@dataclass(frozen=True)
class Credentials:
    """`read` gives the secret as it is now; `text` says where it comes from and can be shown."""

    kind: str  # "token", "cookie" or "none"
    text: str
    read: Callable[[], str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name the source of a secret."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--token-file", type=Path, metavar="FILE", help=f"bearer token (or variable {TOKEN})")
    group.add_argument("--cookie-file", type=Path, metavar="FILE", help=f"cookie header (or variable {COOKIE})")
    group.add_argument("--service-account", action="store_true", help="the token that the pod was given")


def choose(args: argparse.Namespace) -> Credentials:
    """The credentials of the options, else of the variables, else of the pod, else none.

    Raises DiffseError when a named source cannot be read.
    """
    found = _choose(args)
    found.read()
    return found


def _choose(args: argparse.Namespace) -> Credentials:
    if args.token_file is not None:
        return Credentials("token", f"token of {args.token_file}", lambda: _from_file(args.token_file))
    if args.cookie_file is not None:
        return Credentials("cookie", f"cookie of {args.cookie_file}", lambda: _from_file(args.cookie_file))
    pod = _pod_token_file()
    if args.service_account:
        return _service_account(pod)
    for kind, variable in (("token", TOKEN), ("cookie", COOKIE)):
        if os.environ.get(variable):
            value = os.environ[variable].strip()
            return Credentials(kind, f"{kind} of the variable {variable}", lambda value=value: value)
    if pod.is_file():
        return _service_account(pod)
    return Credentials("none", "no credentials", str)


def _pod_token_file() -> Path:
    """Where Kubernetes puts the token of a pod that is allowed to call Kubeflow Pipelines."""
    from kfp import client

    return Path(os.environ.get(client.KF_PIPELINES_SA_TOKEN_ENV) or client.KF_PIPELINES_SA_TOKEN_PATH)


def _service_account(path: Path) -> Credentials:
    """kfp's own reader of the pod's token; the file is looked at first, because kfp logs before it fails."""
    from kfp.client import ServiceAccountTokenVolumeCredentials
    from kubernetes.client import Configuration

    reader = ServiceAccountTokenVolumeCredentials(str(path))

    def read() -> str:
        _from_file(path)
        holder = Configuration()
        reader.refresh_api_key_hook(holder)
        return holder.api_key["authorization"]

    return Credentials("token", f"service account token {path}", read)


def _from_file(path: Path) -> str:
    try:
        secret = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise DiffseError(f"{path}: cannot be read ({error.strerror}); it should hold the secret") from None
    except UnicodeDecodeError:
        raise DiffseError(f"{path}: holds no token or cookie, which are ASCII text on one line") from None
    if not secret or "\n" in secret:
        raise DiffseError(f"{path}: holds {'several lines' if secret else 'nothing'}; one line is needed")
    return secret
