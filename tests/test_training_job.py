"""Training on several nodes: the job's manifest, its command run here, and its start on a cluster."""

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import psutil
import pytest
import torch
import yaml
from http_stand_in import Answer, Fault
from kubernetes_server import JOBS, Server, check_pods, strictly
from safetensors.torch import load_file
from tiny import make_project, write_params

from diffse import paths, training
from diffse.errors import DiffseError
from pipelines import placement as places
from pipelines import training_client, training_job

CPU = dataclasses.replace(places.Placement(), train=places.Resources(cpu="2", memory="4Gi", retries=3))
TOLERANCE = {"rtol": 2e-3, "atol": 2e-4}  # the same batches; only the order of the sums differs


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_project(folder, recipes=["bridge"])
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """Settings alone: enough to render a job."""
    write_params(tmp_path)
    return tmp_path


def rendered(nodes: int, workspace: str = "/workspace/diffse", placement: places.Placement = CPU) -> dict:
    return training_job.plain(training_job.manifest("bridge.toy", nodes, workspace, placement))


def container(job: dict) -> dict:
    return job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]


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
    ],
)
def test_mistakes_are_one_line(folder, capsys, options, message):
    assert main(folder, *options, "--compile", str(folder / "job.yaml")) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert not (folder / "job.yaml").exists()
    import re

    assert re.search(message, said)


# --------------------------------------------------------------------------------- its command, run here


def node(job: dict, folder: Path, port: int) -> subprocess.Popen:
    """One node of the job: the container's own command, and the variables that a pod would have."""
    main = container(job)
    variables = {entry["name"]: entry.get("value", "127.0.0.1") for entry in main["env"]}
    variables["PET_RDZV_ENDPOINT"] = f"127.0.0.1:{port}"  # for the name of the first pod
    environment = (
        os.environ | variables | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    )
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with open(folder / f"node-{time.monotonic_ns()}.log", "w") as log:
        return subprocess.Popen(
            main["command"] + main["args"], cwd=main["workingDir"], env=environment,
            stdout=log, stderr=subprocess.STDOUT
        )  # fmt: skip


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def to_the_end(job: dict, folder: Path, port: int, nodes: list[subprocess.Popen]) -> None:
    """Wait for all nodes. One that fails is started again, as Kubernetes does (restartPolicy OnFailure)."""
    restarts = job["spec"]["runPolicy"]["backoffLimit"]
    while any(one.poll() != 0 for one in nodes):
        for place, one in enumerate(nodes):
            if one.poll():
                assert restarts, logs(folder)
                restarts -= 1
                nodes[place] = node(job, folder, port)
        time.sleep(0.1)


def kill(one: subprocess.Popen) -> None:
    """End a node as the loss of a pod does: the launcher and, in a session of its own, the training."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(one.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    one.kill()
    one.wait()


@contextlib.contextmanager
def all_ended(nodes: list[subprocess.Popen]):
    """Leave no process behind, whatever happens."""
    try:
        yield
    finally:
        for one in nodes:
            kill(one)


def logs(folder: Path) -> str:
    return "\n".join(file.read_text()[-1500:] for file in sorted(folder.glob("node-*.log")))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(paths.model(folder, "bridge.toy") / "last" / "weights.safetensors")


def test_two_nodes_make_the_checkpoint_of_one_process(project):
    params = write_params(project, recipes=["bridge"])
    shutil.rmtree(project / "models", ignore_errors=True)
    training.run(params, "bridge.toy", project)
    one = weights(project)
    shutil.rmtree(project / "models")
    job, port = rendered(2, str(project)), free_port()
    nodes = [node(job, project, port) for _ in range(2)]
    with all_ended(nodes):
        assert [one.wait(timeout=280) for one in nodes] == [0, 0], logs(project)
    two = weights(project)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], **TOLERANCE, msg=name)
    records = list((project / "runs").glob("*.json"))
    assert len(records) == 1  # of the first process alone
    assert '"kubeflow"' in records[0].read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_was_lost_joins_again(project):
    """Killed in the middle and started again: both go on, and the weights are the undisturbed ones."""
    long = {"steps": 150, "checkpoint_every": 10, "validate_every": 150}
    write_params(project, recipes=["bridge"], **{f"train__bridge__{key}": value for key, value in long.items()})
    job = rendered(2, str(project))
    folder = paths.model(project, "bridge.toy")
    found = {}
    for lost in (None, 0, 1):  # one of the two holds the rendezvous, which then is lost too
        shutil.rmtree(project / "models", ignore_errors=True)
        port = free_port()
        nodes = [node(job, project, port) for _ in range(2)]
        with all_ended(nodes):
            if lost is not None:
                while not (folder / training.STATE).exists():
                    assert nodes[lost].poll() is None, logs(project)
                    time.sleep(0.02)
                kill(nodes[lost])
                assert (folder / training.STATE).exists(), "it was over already"
            to_the_end(job, project, port, nodes)
        found[lost] = weights(project)
    for name, value in found[None].items():
        assert torch.equal(value, found[0][name]), name
        assert torch.equal(value, found[1][name]), name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_several_processes_of_one_node_make_the_same(project):
    """torchrun on one node with two processes, and two nodes with one: the same weights, bit for bit."""
    write_params(project, recipes=["bridge"])
    found = []
    for nodes, processes in ((2, 1), (1, 2)):
        shutil.rmtree(project / "models", ignore_errors=True)
        job, port = rendered(nodes, str(project)), free_port()
        command = container(job)["command"]
        command[command.index("--nproc-per-node=1")] = f"--nproc-per-node={processes}"
        started = [node(job, project, port) for _ in range(nodes)]
        with all_ended(started):
            assert [one.wait(timeout=280) for one in started] == [0] * nodes, logs(project)
        found.append(weights(project))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_nodes_that_see_different_folders_are_refused(project, monkeypatch):
    params = write_params(project, recipes=["bridge"])
    shutil.rmtree(project / "models", ignore_errors=True)
    monkeypatch.setattr(training.Processes, "agree", lambda self, value: value != -1)
    with pytest.raises(DiffseError, match="see different states of it; let all nodes use one folder"):
        training.run(params, "bridge.toy", project)


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
