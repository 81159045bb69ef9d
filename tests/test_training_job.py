"""Training on several nodes: the job's manifest, and its start on a cluster."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from http_stand_in import Answer, Fault
from kubernetes_server import JOBS, Server, check_pods, strictly
from tiny import write_params
from training_jobs import CPU, container, rendered

from pipelines import placement as places
from pipelines import training_client, training_job


@pytest.fixture
def folder(tmp_path) -> Path:
    """Settings alone: enough to render a job."""
    write_params(tmp_path)
    return tmp_path


# ----------------------------------------------------------------------------------------- the manifest


FULL = places.Placement(
    image="my.org/diffse-python:1", image_pull_secrets=("registry",), s3_secret="store", namespace="team",
    environment={"AWS_ENDPOINT_URL": "http://store:9000"}, nodes={"zone": "a"}, gpu_nodes={"pool": "a100"},
    service_account="trainer", train=places.Resources(gpus=4, shared_memory="16Gi", hours=2, retries=3),
)  # fmt: skip


@pytest.mark.parametrize("placement", [CPU, places.Placement(), FULL], ids=["cpu", "default", "full"])
def test_the_manifest_is_what_the_client_and_kubernetes_define(placement):
    job = rendered(3, placement=placement)
    assert strictly(job) == job
    check_pods(job)
    assert yaml.safe_load(yaml.safe_dump(job)) == job


def test_a_wrong_pod_would_be_seen():
    job = rendered(3)
    container(job)["imagePullPolicyy"] = "Always"
    assert strictly(job) != job
    with pytest.raises(kubernetes_validate.ValidationError):
        check_pods(job)


def test_what_the_placement_says_is_in_the_manifest():
    job = rendered(3, placement=FULL)
    assert job["metadata"]["namespace"] == "team"
    assert job["spec"]["runPolicy"]["activeDeadlineSeconds"] == 7200
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert worker["replicas"] == 3
    pod, main = worker["template"]["spec"], container(job)
    assert main["image"] == "my.org/diffse-python:1"
    assert main["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert "--nproc-per-node=4" in main["command"]
    assert "--nnodes=3" in main["command"]
    assert pod["nodeSelector"] == {"zone": "a", "pool": "a100"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["serviceAccountName"] == "trainer"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1000}
    variables = {entry["name"]: entry for entry in main["env"]}
    assert variables["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "store"
    assert variables["DIFFSE_RUNNER"]["value"] == "kubeflow"
    assert variables["DIFFSE_PIPELINE_RUN"]["value"] == job["metadata"]["name"]
    assert variables["PET_RDZV_ENDPOINT"]["value"].startswith(f"{job['metadata']['name']}-worker-0:")
    assert {mount["mountPath"] for mount in main["volumeMounts"]} == {"/workspace", "/tmp", "/dev/shm"}


def test_a_job_on_cpus_asks_for_no_gpu():
    text = yaml.safe_dump(rendered(2))
    assert "nvidia" not in text
    assert "tolerations" not in text


def test_the_name_depends_on_the_content():
    names = [rendered(2)["metadata"]["name"], rendered(3)["metadata"]["name"]]
    assert rendered(2)["metadata"]["name"] == names[0] != names[1]
    long = training_job.manifest("A_very.long-name_of_a_recipe_indeed" * 2, 2, "/w", CPU).metadata.name
    assert len(f"{long}-worker-1000") <= 63


def main(folder: Path, *options: str) -> int:
    file = folder / "cpu.yaml"
    file.write_text("train: {cpu: '2', memory: 4Gi, gpus: 0}\n")
    return training_job.main(
        ["bridge.toy", "--params", str(folder / "params.yaml"), "--placement", str(file), *options]
    )


def test_the_front_end_writes_a_manifest(folder, capsys):
    assert main(folder, "--nodes", "2", "--compile", str(folder / "job.yaml")) == 0
    job = yaml.safe_load((folder / "job.yaml").read_text())
    check_pods(job)
    assert job["metadata"]["name"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nodes", "3"], "train.bridge.batch is 2, which 3 processes .* cannot share equally"),
        (["--nodes", "0"], "--nodes is 0"),
        (["--nodes", "2", "--params", "none.yaml"], "none.yaml: no such file"),
        (
            ["--nodes", "2", "--workspace", "s3://b/p"],
            "s3://b/p: the nodes .* needs a shared volume",
        ),
    ],
)
def test_mistakes_are_one_line(folder, capsys, options, message):
    assert main(folder, *options, "--compile", str(folder / "job.yaml")) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert not (folder / "job.yaml").exists()
    import re

    assert re.search(message, said)


# ---------------------------------------------------------------------------------------- on a cluster


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(training_client.Jobs.__init__, "__defaults__", ("", None, waited.append))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return waited


def on(server: Server, folder: Path, monkeypatch, *options: str, token: str = "of-the-team") -> int:
    """The front end against a cluster; its exit code."""
    from kubernetes.config import kube_config

    config = server.kube_config(folder, token)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    return main(folder, "--nodes", "2", "--namespace", "team", *options)


def test_a_job_is_started_once(server, folder, monkeypatch, capsys):
    assert on(server, folder, monkeypatch, "--submit") == 0
    assert on(server, folder, monkeypatch, "--submit") == 0
    assert len(server.requests("POST")) == len(server.jobs) == 1
    out = capsys.readouterr().out
    assert "started: pytorchjob diffse-train-bridge-toy-" in out
    assert "had been started before" in out
    server.end("Succeeded")
    assert on(server, folder, monkeypatch, "--submit", "--wait") == 0
    assert len(server.requests("POST")) == 1


def test_a_failed_job_is_started_anew(server, folder, monkeypatch, capsys):
    on(server, folder, monkeypatch, "--submit")
    server.end("Failed")
    assert on(server, folder, monkeypatch, "--submit") == 0
    assert len(server.requests("POST")) == 2
    assert len(server.requests("DELETE")) == len(server.jobs) == 1
    assert "starts again from its last state" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["lost before", "lost after"])
def test_a_lost_connection_starts_no_second_job(server, folder, monkeypatch, kind):
    server.faults = [Fault(kind, "POST")]
    assert on(server, folder, monkeypatch, "--submit") == 0
    assert len(server.jobs) == 1


def test_another_client_at_the_same_time(server, folder, monkeypatch, capsys):
    """409: theirs has the same name, and therefore the same content."""
    server.faults = [Fault("answer", "GET", f"{JOBS}/", answer=_not_found())]
    on(server, folder, monkeypatch, "--submit")
    server.faults = [Fault("answer", "GET", f"{JOBS}/", answer=_not_found())]
    assert on(server, folder, monkeypatch, "--submit") == 0
    assert "answers 409" in capsys.readouterr().err
    assert len(server.jobs) == 1


def _not_found() -> Answer:
    return Answer(404, {"kind": "Status", "message": "not found"})


def test_a_busy_cluster_is_asked_again(server, folder, monkeypatch, waits):
    server.faults = [Fault("answer", path=JOBS, times=3, answer=Answer(503, text="no"))]
    assert on(server, folder, monkeypatch, "--submit") == 0
    assert len(server.jobs) == 1
    assert waits == [1.0, 2.0, 4.0]


def test_an_operator_that_is_not_installed(server, folder, monkeypatch, capsys):
    server.installed = False
    assert on(server, folder, monkeypatch, "--submit") == 2
    assert "knows no PyTorchJob: Kubeflow's training operator (version 1) is not" in capsys.readouterr().err


def test_no_rights(server, folder, monkeypatch, capsys):
    server.allowed = False
    assert on(server, folder, monkeypatch, "--submit") == 2
    assert (
        "no rights to PyTorchJobs in namespace 'team' (pytorchjobs.kubeflow.org is" in capsys.readouterr().err
    )


def test_a_token_that_is_not_accepted_is_not_shown(server, folder, monkeypatch, capsys):
    assert on(server, folder, monkeypatch, "--submit", token="0ld-secret") == 2
    said = capsys.readouterr()
    assert "log in to the cluster again" in said.err
    assert "0ld-secret" not in said.out + said.err


def test_a_cluster_that_does_not_answer(folder, monkeypatch, capsys):
    with Server() as server:
        pass
    assert on(server, folder, monkeypatch, "--submit") == 2
    said = capsys.readouterr().err.splitlines()
    assert "the cluster cannot be reached" in said[-1]
    assert "gave up after 7 attempts" in said[-1]


def test_no_cluster_is_configured(folder, monkeypatch, capsys):
    from kubernetes.config import kube_config

    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(folder / "none"))
    assert main(folder, "--nodes", "2", "--submit") == 2
    assert "no cluster is configured" in capsys.readouterr().err


def test_waiting_and_status_name_the_pod_that_failed(server, folder, monkeypatch, capsys):
    assert on(server, folder, monkeypatch, "--status") == 2
    assert "there is no such job" in capsys.readouterr().err
    on(server, folder, monkeypatch, "--submit")
    assert on(server, folder, monkeypatch, "--status") == 0
    assert ": pending" in capsys.readouterr().out
    server.end("Failed", "job is failed because\n1 Worker replica(s) failed.")
    ended = {"name": "pytorch", "image": "", "imageID": "", "ready": False, "restartCount": 3}
    ended["state"] = {"terminated": {"exitCode": 2}}
    server.pods = [{"metadata": {"name": "diffse-worker-1"}, "status": {"containerStatuses": [ended]}}]
    assert on(server, folder, monkeypatch, "--status") == 1
    said = capsys.readouterr().err
    assert "job is failed because 1 Worker replica(s) failed." in said
    assert "pod diffse-worker-1 ended with 2 (kubectl logs -n team diffse-worker-1)" in said


def test_waiting_follows_a_job_to_its_end(server, folder, monkeypatch, capsys, waits):
    def end(seconds: float) -> None:
        waits.append(seconds)
        server.end("Succeeded")

    monkeypatch.setattr(training_client.Jobs.__init__, "__defaults__", ("", None, end))
    assert on(server, folder, monkeypatch, "--submit", "--wait") == 0
    out = capsys.readouterr().out
    assert out.index(": pending") < out.index(": succeeded")
    assert waits == [15.0]
