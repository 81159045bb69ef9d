"""A stand-in for the Kubernetes API on loopback: PyTorchJobs and pods of one namespace."""

import json
import re
from pathlib import Path

import kubernetes_validate
import yaml
from http_stand_in import Answer, Request, StandIn
from kubeflow.training import ApiClient
from kubeflow.training.utils import utils

JOBS = "/apis/kubeflow.org/v1/namespaces/team/pytorchjobs"
KUBERNETES = "1.34"


def strictly(job: dict) -> dict:
    """A job as kubeflow-training reads and writes it: keys that it does not know would be gone."""
    client = ApiClient()
    return client.sanitize_for_serialization(
        client.deserialize(utils.FakeResponse(job), "KubeflowOrgV1PyTorchJob")
    )


def check_pods(job: dict) -> None:
    """Judge the pod of each replica by the schema of Kubernetes, strictly (ValidationError)."""
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        pod = {"apiVersion": "v1", "kind": "Pod"} | replica["template"]
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


class Server(StandIn):
    """`token`: who asks without it gets 401. `installed`: whether the cluster knows PyTorchJobs."""

    def __init__(self, token: str = "of-the-team", installed: bool = True) -> None:
        self.token, self.installed, self.allowed = token, installed, True
        self.jobs: dict[str, dict] = {}
        self.pods: list[dict] = []
        super().__init__()

    def kube_config(self, folder: Path, token: str = "of-the-team") -> Path:
        """A kube config that leads here."""
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "team"}}],
        }  # fmt: skip
        (folder / "kube.yaml").write_text(yaml.safe_dump(config))
        return folder / "kube.yaml"

    def end(self, state: str, message: str = "") -> None:
        """Let all jobs come to an end."""
        for job in self.jobs.values():
            conditions = [{"type": "Created", "status": "True"}, {"type": "Running", "status": "False"}]
            conditions.append({"type": state, "status": "True", "message": message})
            job["status"] = {"conditions": conditions}

    def handle(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        if request.path.endswith("/pods"):
            return Answer(body={"kind": "PodList", "apiVersion": "v1", "items": self.pods})
        if not self.installed:
            return Answer(404, text="404 page not found\n")
        if not self.allowed:
            return _status(403, 'pytorchjobs.kubeflow.org is forbidden: User "me" cannot get resource')
        name = re.fullmatch(f"{JOBS}(?:/([^/]+))?", request.path).group(1)
        if request.method == "POST":
            return self._make(request.json)
        if name not in self.jobs:
            return _status(404, f'pytorchjobs.kubeflow.org "{name}" not found')
        if request.method == "DELETE":
            del self.jobs[name]
            return _status(200, "")
        return Answer(body=self.jobs[name])

    def _make(self, job: dict) -> Answer:
        assert strictly(job) == job
        check_pods(job)
        name = job["metadata"]["name"]
        if name in self.jobs:
            return _status(409, f'pytorchjobs.kubeflow.org "{name}" already exists')
        self.jobs[name] = json.loads(json.dumps(job))
        return Answer(201, job)


def _status(code: int, message: str) -> Answer:
    return Answer(code, {"kind": "Status", "apiVersion": "v1", "code": code, "message": message})
