"""Whether an image is in its registry, by the registry's HTTP API (OCI distribution specification)."""

import re
import urllib.parse
from dataclasses import dataclass

import urllib3

from diffse.errors import DiffseError
from pipelines.api import is_loopback, plain

_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9][\w./:-]*?)(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


class Unknown(Exception):
    """The registry cannot be asked; the text says why."""


@dataclass(frozen=True)
class Reference:
    """An image's name in its parts; no `registry` where the name has none."""

    registry: str
    repository: str
    version: str  # tag or digest


def parse(image: str) -> Reference:
    """Read an image's name as Kubernetes does. Raises DiffseError for what is no name."""
    match = _REFERENCE.fullmatch(image)
    if not match:
        raise DiffseError(f"'{image}' names no image; write registry/name:tag or registry/name@sha256:...")
    first, slash, rest = match["name"].partition("/")
    has_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    version = match["digest"] or match["tag"] or "latest"
    return Reference(first, rest, version) if has_registry else Reference("", match["name"], version)


def find(image: str) -> str:
    """The image and its digest. Raises DiffseError if the registry lacks it, Unknown if it cannot be asked."""
    wanted = parse(image)
    if not wanted.registry:
        raise Unknown("its name has no registry, so that each node must hold it already")
    scheme = "http" if is_loopback(f"http://{wanted.registry}") else "https"
    url = f"{scheme}://{wanted.registry}/v2/{wanted.repository}/manifests/{wanted.version}"
    answer = _ask("HEAD", url)
    if answer.status == 401:
        answer = _ask("HEAD", url, _visitor_token(answer.headers.get("WWW-Authenticate", "")))
    if answer.status == 404:
        raise DiffseError(f"{image} is not in the registry; push it, or name another one in the settings")
    if answer.status in (401, 403):
        raise Unknown(f"{wanted.registry} wants a login; the nodes use their pull secret")
    if answer.status != 200:
        raise Unknown(f"{wanted.registry} answers {answer.status}")
    digest = answer.headers.get("Docker-Content-Digest", "")
    return f"{image} ({digest[:19]})" if digest and "@" not in image else image


def _visitor_token(challenge: str) -> str:
    """The token that a registry's own service gives to anyone, or "" without one."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm", "")
    if not challenge.lower().startswith("bearer") or not (realm.startswith("https://") or is_loopback(realm)):
        return ""
    query = {name: fields[name] for name in ("service", "scope") if name in fields}
    answer = _ask("GET", f"{realm}?{urllib.parse.urlencode(query)}")
    if answer.status != 200:
        return ""
    try:
        found = answer.json()
        return str(found.get("token") or found.get("access_token") or "")
    except (ValueError, AttributeError):
        return ""


def _ask(method: str, url: str, token: str = "") -> urllib3.BaseHTTPResponse:
    headers = {"Accept": _ACCEPT} | ({"Authorization": f"Bearer {token}"} if token else {})
    limits = urllib3.Timeout(connect=5.0, read=10.0)
    retries = urllib3.Retry(total=0, redirect=3, raise_on_redirect=False)
    try:
        return urllib3.request(method, url, headers=headers, timeout=limits, retries=retries)
    except urllib3.exceptions.SSLError:
        raise Unknown("the registry's certificate is not trusted here") from None
    except urllib3.exceptions.HTTPError as error:
        cause = getattr(error, "reason", None) or error
        raise Unknown(f"the registry cannot be reached from here ({plain(cause)})") from None
