"""Training jobs of Kubeflow on a cluster: start once, look, follow. By kubeflow-training's own client."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import urllib3
from kubeflow.training import TrainingClient, models
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException

from diffse.errors import DiffseError

ANSWER = 30  # seconds that one request may take
POLL = 15.0  # between two looks
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # after a request that failed and may be repeated
GONE = 20  # looks for a deleted job's end
ENDED = ("Succeeded", "Failed")


class _Repeat(Exception):
    """A request that may be repeated: jobs have names of their own, so nothing is made twice."""


class Jobs:
    """The PyTorchJobs of a namespace ("": that of the kube config)."""

    def __init__(self, namespace: str = "", context: str | None = None, sleep: Callable = time.sleep) -> None:
        try:
            options = {"namespace": namespace} if namespace else {}
            self._client = TrainingClient(context=context, **options)
        except ConfigException as error:
            raise DiffseError(f"no cluster is configured: {' '.join(str(error).split())}") from None
        self.namespace, self._sleep = self._client.namespace, sleep

    def start(self, job: models.KubeflowOrgV1PyTorchJob) -> None:
        """Make a job, unless it is there. One of the same content that has failed is made anew."""
        name = job.metadata.name
        for wait in (*WAITS, None):
            try:
                if self._had(name):
                    return
                self._request(self._client.create_job, job, namespace=self.namespace)
                print(f"started: {self._place(name)}")
                return
            except _Repeat as error:
                self._repeat(error, wait)

    def _had(self, name: str) -> bool:
        """Whether there is such a job that goes on or has succeeded; a failed one goes."""
        found = self._find(name)
        if found is None:
            return False
        state = _state(found)
        if state != "Failed":
            print(f"had been started before: {self._place(name)} ({state.lower()})")
            return True
        print(f"{name} has failed before; it starts again from its last state")
        self._request(self._client.delete_job, name, namespace=self.namespace)
        for _ in range(GONE):
            if self._find(name) is None:
                return False
            self._sleep(WAITS[0])
        raise DiffseError(f"{self._place(name)} is being deleted; start it again when it is gone")

    def show(self, name: str) -> int:
        """Print what a job is doing; 1 if it failed, else 0."""
        job = self._patiently(name)
        if job is None:
            raise DiffseError(f"{self._place(name)}: there is no such job; start it with --submit")
        print(f"{name}: {_state(job).lower()}")
        return self._conclude(name, job) if _state(job) in ENDED else 0

    def follow(self, name: str) -> int:
        """Print what changes until a job has ended; 1 if it failed, else 0."""
        known = ""
        try:
            while True:
                job = self._patiently(name)
                if job is None:
                    raise DiffseError(f"{self._place(name)} was deleted")
                state = _state(job)
                if state != known:
                    print(f"{name}: {state.lower()}", flush=True)
                known = state
                if state in ENDED:
                    return self._conclude(name, job)
                self._sleep(POLL)
        except KeyboardInterrupt:
            print("the job goes on; look at it with --status", file=sys.stderr)
            return 130

    def _conclude(self, name: str, job: Any) -> int:
        if _state(job) == "Succeeded":
            return 0
        reason = next((c.message for c in reversed(job.status.conditions) if c.type == "Failed"), "") or ""
        print(f"{name}: {'; '.join([' '.join(reason.split()), *self._failed_pods(name)])}", file=sys.stderr)
        return 1

    def _failed_pods(self, name: str) -> list[str]:
        """'pod X ended with 2' for each, with the command that shows why."""
        try:
            pods = self._request(self._client.get_job_pods, name, namespace=self.namespace, timeout=ANSWER)
        except (DiffseError, _Repeat):  # not everyone who may see jobs may see pods
            return [f"kubectl logs -n {self.namespace} -l training.kubeflow.org/job-name={name}"]
        lines = []
        for pod in pods:
            for container in (pod.status and pod.status.container_statuses) or ():
                ended = container.state.terminated or (container.last_state and container.last_state.terminated)
                if ended and ended.exit_code:
                    text = f"pod {pod.metadata.name} ended with {ended.exit_code}"
                    lines.append(f"{text} (kubectl logs -n {self.namespace} {pod.metadata.name})")
        return lines

    # --------------------------------------------------------------------------------------- requests

    def _find(self, name: str) -> Any:
        try:
            return self._request(self._client.get_job, name, namespace=self.namespace, timeout=ANSWER)
        except LookupError:
            return None

    def _patiently(self, name: str) -> Any:
        for wait in (*WAITS, None):
            try:
                return self._find(name)
            except _Repeat as error:
                self._repeat(error, wait)
        raise AssertionError("not reached: the last attempt raises")

    def _repeat(self, error: _Repeat, wait: float | None) -> None:
        if wait is None:
            raise DiffseError(f"{error}; gave up after {len(WAITS) + 1} attempts")
        print(f"{error}; trying again in {wait:g} s", file=sys.stderr, flush=True)
        self._sleep(wait)

    def _request(self, function: Callable, *args: Any, **options: Any) -> Any:
        """One request. Raises _Repeat, LookupError for an object that is not there, or DiffseError."""
        try:
            return function(*args, **options)
        except TimeoutError:
            raise _Repeat(f"the cluster has not answered within {ANSWER} s") from None
        except RuntimeError as error:  # the client's, around what has happened
            raise self._meaning(error.__cause__ or error.__context__ or error) from None

    def _meaning(self, error: BaseException) -> Exception:
        if isinstance(error, urllib3.exceptions.HTTPError):
            return _Repeat(f"the cluster cannot be reached ({type(error).__name__})")
        if not isinstance(error, ApiException):
            return DiffseError(f"the cluster's answer is not understood ({type(error).__name__})")
        words = _words(error.body)
        if error.status == 404:
            if words is not None:
                return LookupError(words)
            return DiffseError(
                "this cluster knows no PyTorchJob: Kubeflow's training operator (version 1) is not installed"
            )
        if error.status == 403:
            return DiffseError(
                f"no rights to PyTorchJobs in namespace '{self.namespace}'" + (f" ({words})" if words else "")
            )
        if error.status == 401:
            return DiffseError("who you are is not accepted; log in to the cluster again")
        if error.status in (409, 429, 500, 502, 503, 504):
            return _Repeat(f"the cluster answers {error.status}" + (f" ({words})" if words else ""))
        return DiffseError(f"the cluster answers {error.status}" + (f" ({words})" if words else ""))

    def _place(self, name: str) -> str:
        return f"pytorchjob {name} in namespace {self.namespace}"


def _state(job: Any) -> str:
    """Type of the last condition that holds."""
    conditions = (job.status and job.status.conditions) or []
    return next((entry.type for entry in reversed(conditions) if entry.status == "True"), "Pending")


def _words(body: Any) -> str | None:
    """What Kubernetes says, on one line; None where it is no Status of its own."""
    try:
        found = json.loads(body or "")
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("kind") != "Status":
        return None
    return " ".join(str(found.get("message") or "").split())[:300]
