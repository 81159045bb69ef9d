"""What would fail, said in seconds and before anything is uploaded: one line for each check, all of them."""

import dataclasses
import os
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffse import objects, settings
from diffse.errors import DiffseError
from pipelines import graph, registry
from pipelines.api import Api, Refused, is_loopback

NAMES = ("settings", "host", "rights", "image", "storage", "sources")
ATTEMPTS, ANSWER = 2, 10.0  # a check is to take seconds
UNNAMED_VERSION = (
    "; Kubeflow's cache does not see that this tag is moved to other code: name its digest, or --no-cache"
)


class NotChecked(Exception):
    """A check that cannot be made from here; its text says why."""


@dataclass(frozen=True)
class Outcome:
    """What came of one check."""

    check: str
    state: str  # "ok", "failed" or "not checked"
    text: str

    def __str__(self) -> str:
        return f"{self.check}: {self.state}" + (f": {self.text}" if self.text else "")


Check = tuple[str, Callable[[], str]]  # name, and what returns a text, or raises DiffseError or NotChecked


def run(groups: Iterable[list[Check]], skip: Iterable[str] = ()) -> list[Outcome]:
    """The outcome of each check. The groups are made side by side, the checks of a group one after another."""
    with ThreadPoolExecutor() as pool:
        done = pool.map(lambda group: [_outcome(*check, skip) for check in group], list(groups))
        return [outcome for group in done for outcome in group]


def _outcome(name: str, check: Callable[[], str], skip: Iterable[str]) -> Outcome:
    if name in skip:
        return Outcome(name, "not checked", "left out by --skip")
    try:
        return Outcome(name, "ok", check())
    except DiffseError as error:
        return Outcome(name, "failed", "; ".join(str(error).splitlines()))
    except NotChecked as reason:
        return Outcome(name, "not checked", str(reason))


# ------------------------------------------------------------------------------------------- the cluster


class Cluster:
    """Checks of the host and of the rights there."""

    def __init__(self, connect: Callable[[], Api]) -> None:
        self._connect = connect
        self.api: Api | None = None  # once the host has answered
        self._multi_user = False

    def checks(self) -> list[Check]:
        """Both, in their order."""
        return [("host", self.host), ("rights", self.rights)]

    def host(self) -> str:
        """It answers as Kubeflow Pipelines does, over a connection that is trusted."""
        api = self._connect()
        api.patience = dataclasses.replace(api.patience, attempts=ATTEMPTS, answer=ANSWER)
        found = api.read(api.health.healthz_service_get_healthz)
        self.api, self._multi_user = api, bool(found.multi_user)
        text = f"{api.host}, {'several users' if self._multi_user else 'one user'}"
        if api.credentials.kind != "none" and _in_the_open(api.host):
            text += f"; the {api.credentials.kind} travels unencrypted, use https://"
        return text

    def rights(self) -> str:
        """Experiments, pipelines and runs of the namespace can be listed."""
        if self.api is None:
            raise NotChecked("the host does not answer")
        api = self.api
        if self._multi_user and not api.namespace:
            raise DiffseError(f"{api.host} serves several users: name yours with --namespace")
        try:
            for request in (
                api.experiments.experiment_service_list_experiments,
                api.pipelines.pipeline_service_list_pipelines,
                api.runs.run_service_list_runs,
            ):
                api.read(request, namespace=api.namespace, page_size=1)
        except Refused as error:
            raise DiffseError(str(error)) from None
        return f"namespace '{api.namespace}', {api.credentials.text}" if api.namespace else api.credentials.text


def _in_the_open(host: str) -> bool:
    """Whether requests cross a network that others may listen to."""
    parts = urllib.parse.urlsplit(host)
    inside = parts.hostname.endswith((".svc", ".svc.cluster.local"))
    return parts.scheme == "http" and not inside and not is_loopback(host)


# ------------------------------------------------------------------------------------- what the steps need


def images(names: Iterable[str], cached: bool = False) -> list[Check]:
    """Each image is in its registry. `cached`: Kubeflow may reuse what an image of that name made."""

    def check(image: str) -> Callable[[], str]:
        more = UNNAMED_VERSION if cached and "@sha256:" not in image else ""

        def ask() -> str:
            try:
                return registry.find(image) + more
            except registry.Unknown as reason:
                raise NotChecked(f"{image}: {reason}{more}") from None

        return ask

    return [("image", check(name)) for name in names]


def storages(params: settings.Params, *more: str) -> list[Check]:
    """Each S3 location of the settings can be read with the credentials of this machine.

    Those of `more` may still be empty.
    """

    def check(url: str, may_be_empty: bool) -> Callable[[], str]:
        def read() -> str:
            if next(objects.listing(url), None) is None and not may_be_empty and not objects.exists(url):
                raise DiffseError(f"{url}: nothing is there")
            return url

        return read

    read = {text for text in _texts(dataclasses.asdict(params)) if objects.is_url(text)}
    written = {url for url in more if objects.is_url(url)} - read
    return [("storage", check(url, url in written)) for url in sorted(read | written)]


def _texts(value: Any) -> Iterator[str]:
    """All texts in plain settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def sources(project: graph.Project, corpora: Iterable[str]) -> list[Check]:
    """The project that the steps will see has the same settings, and what the corpora are made from."""
    look = _in_a_store if objects.is_url(project.workspace) else _in_a_folder

    def check() -> str:
        settings_there, has_any = look(project.workspace)
        there = f"{project.workspace}/params.yaml"
        if settings_there is None:
            raise DiffseError(f"{there}: no such file; copy the project there")
        if settings_there != project.params_file.read_bytes():
            raise DiffseError(f"{there} differs from {project.params_file}; copy the project there again")
        wanted = [name for name in corpora if not _needs_nothing(project.params.prepare[name])]
        missing = [place for name in wanted if not has_any(place := f"{project.workspace}/sources/{name}")]
        if missing:
            raise DiffseError(f"no recordings in {', '.join(missing)}")
        return project.workspace

    return [("sources", check)]


Found = tuple[bytes | None, Callable[[str], bool]]  # params.yaml there; whether there is anything in a place


def _in_a_folder(workspace: str) -> Found:
    if not Path(workspace).is_dir():
        raise NotChecked(f"{workspace} is on the cluster's volume, which is not mounted here")
    there = Path(workspace, "params.yaml")
    return (
        there.read_bytes() if there.is_file() else None,
        lambda place: Path(place).is_dir() and any(os.scandir(place)),
    )


def _in_a_store(workspace: str) -> Found:
    there = f"{workspace}/params.yaml"
    return (
        objects.read(there) if objects.exists(there) else None,
        lambda place: next(objects.listing(place), None) is not None,
    )


def _needs_nothing(corpus: Any) -> bool:
    """Whether a corpus makes its own recordings, or names a place of them on S3."""
    return corpus.kind == "demo" or any(text.startswith("s3://") for text in _texts(dataclasses.asdict(corpus)))
