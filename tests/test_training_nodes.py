"""Training on several nodes: the command of the job, run here with a process for each node."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tiny import make_project, write_params
from training_jobs import container, rendered

from diffse import paths, training
from diffse.errors import DiffseError

TOLERANCE = {"rtol": 2e-3, "atol": 2e-4}  # the same batches; only the order of the sums differs


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_project(folder, recipes=["bridge"])
    return folder


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
        assert [one.wait(timeout=600) for one in nodes] == [0, 0], logs(project)
    two = weights(project)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], **TOLERANCE, msg=name)
    records = list((project / "runs").glob("*.json"))
    assert len(records) == 1  # of the first process alone
    assert '"kubeflow"' in records[0].read_text()


@pytest.mark.slow
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
@pytest.mark.timeout(1800)
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
            assert [one.wait(timeout=600) for one in started] == [0] * nodes, logs(project)
        found.append(weights(project))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_nodes_that_see_different_folders_are_refused(project, monkeypatch):
    params = write_params(project, recipes=["bridge"])
    shutil.rmtree(project / "models", ignore_errors=True)
    monkeypatch.setattr(training.Processes, "agree", lambda self, value: value != -1)
    with pytest.raises(DiffseError, match="see different states of it; let all nodes use one folder"):
        training.run(params, "bridge.toy", project)
