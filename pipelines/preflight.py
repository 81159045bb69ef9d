"""What would fail, said in seconds and before anything is uploaded: one line for each check, all of them."""

import dataclasses
import os
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffse import paths, settings, storage
from diffse.errors import DiffseError
from pipelines import graph, registry
from pipelines.api import Api, Refused, is_loopback

NAMES = ("settings", "host", "rights", "image", "storage", "sources")
ATTEMPTS, ANSWER = 2, 10.0  # a check is to take seconds


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


def images(names: Iterable[str]) -> list[Check]:
    """Each image is in its registry."""

    def check(image: str) -> Callable[[], str]:
        def ask() -> str:
            try:
                return registry.find(image)
            except registry.Unknown as reason:
                raise NotChecked(f"{image}: {reason}") from None

        return ask

    return [("image", check(name)) for name in names]


def storages(params: settings.Params, *more: str) -> list[Check]:
    """Each S3 location of the settings can be read with the credentials of this machine.

    Those of `more` may still be empty.
    """
    from diffse import objects

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
    workspace, params = Path(project.workspace), project.params

    def check() -> str:
        if not workspace.is_dir():
            raise NotChecked(f"{workspace} is on the cluster's volume, which is not mounted here")
        there = workspace / "params.yaml"
        if not there.is_file():
            raise DiffseError(f"{there}: no such file; copy the project to the volume")
        if storage.sha256_file(there) != storage.sha256_file(project.params_file):
            raise DiffseError(
                f"{there} differs from {project.params_file}; copy the project to the volume again"
            )
        missing = [name for name in corpora if not _has_sources(params.prepare[name], workspace, name)]
        if missing:
            wanted = ", ".join(str(paths.source(workspace, name)) for name in missing)
            raise DiffseError(f"no recordings in {wanted}")
        return str(workspace)

    return [("sources", check)]


def _has_sources(corpus: Any, workspace: Path, name: str) -> bool:
    """Whether a corpus has something to be made from: recordings here or on S3, or it makes its own."""
    if corpus.kind == "demo" or any(text.startswith("s3://") for text in _texts(dataclasses.asdict(corpus))):
        return True
    folder = paths.source(workspace, name)
    return folder.is_dir() and any(os.scandir(folder))
