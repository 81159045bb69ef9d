"""pipelines/full.py: what it compiles to, and that it runs the same commands as dvc.yaml."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import small_project
import yaml

from diffse import steps

FULL = str(small_project.PROJECT / "pipelines" / "full.py")
PARAMS = small_project.PARAMS | small_project.MORE
# What may be used without a gate: numbers of a few kilobytes, and scores that only the report shows.
NOT_JUDGED = ("estimate", "sweep", "swap")


def compiled(folder: Path, *options: str, seed: str = "0") -> str:
    target = folder / "compiled" / "diffse.yaml"
    done = subprocess.run(
        [sys.executable, FULL, "--compile", target, "--params", folder / "params.yaml", *options],
        capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": seed},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = small_project.create(tmp_path_factory.mktemp("pipeline"))
    small_project.write_params(folder, PARAMS)
    return folder


@pytest.fixture(scope="module")
def text(folder) -> str:
    return compiled(folder)


@pytest.fixture(scope="module")
def documents(text) -> list[dict]:
    return list(yaml.safe_load_all(text))


def executors(documents: list[dict]) -> dict[str, list[tuple[dict, dict]]]:
    """verb -> (container, Kubernetes settings) of each task."""
    spec, platform = documents
    found: dict[str, list[tuple[dict, dict]]] = {verb: [] for verb in steps.VERBS}
    for name, executor in spec["deploymentSpec"]["executors"].items():
        verb = name.removeprefix("exec-").split("-")[0]
        more = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][name]
        found[verb].append((executor["container"], more))
    return found


def test_compiling_is_deterministic(folder, text):
    assert compiled(folder, seed="1") == text


def test_the_document_is_what_kubeflow_defines(documents):
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    spec, platform = documents
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())  # an unknown field is an error
    found = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(found) == set(spec["deploymentSpec"]["executors"])
    for executor in found.values():
        json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_the_graph_is_that_of_dvc(documents):
    """One task per stage, each named by its command, each behind the gates of what it uses."""
    tasks = documents[0]["root"]["dag"]["tasks"]
    names = [task["taskInfo"]["name"] for task in tasks.values()]
    assert sorted(f"diffse {name}" for name in names) == sorted(dvc_commands(PARAMS))
    for task in tasks.values():
        verb = task["taskInfo"]["name"].split()[0]
        for needed in task.get("dependentTasks", []):
            other = tasks[needed]["taskInfo"]["name"].split()[0]
            if other not in NOT_JUDGED:
                assert (other == "check") != (verb == "check"), task["taskInfo"]["name"]


def dvc_commands(params: dict) -> list[str]:
    """Every command of dvc.yaml, from its text: an independent reading of `foreach` and `matrix`."""
    import itertools

    commands = []
    for stage in yaml.safe_load((small_project.PROJECT / "dvc.yaml").read_text())["stages"].values():
        axes = stage.get("matrix") or ({"": stage["foreach"]} if "foreach" in stage else {})
        lists = [params[values.strip("${}")] for values in axes.values()]
        for values in itertools.product(*lists):
            command = stage.get("do", stage)["cmd"].replace(
                "${key}", "${item}"
            )  # all that is used of a mapping
            for axis, value in zip(axes, values, strict=True):
                command = command.replace(f"${{item.{axis}}}" if axis else "${item}", value)
            commands.append(command)
    return commands


def test_only_what_runs_networks_asks_for_a_gpu(documents):
    for verb, tasks in executors(documents).items():
        for container, more in tasks:
            accelerator = container["resources"].get("accelerator")
            assert bool(accelerator) == (verb in ("train", "enhance", "sweep", "swap")), verb
            assert bool(more.get("tolerations")) == bool(accelerator)
            if accelerator:
                assert accelerator["resourceType"] == "nvidia.com/gpu"
                assert accelerator["resourceCount"] == "1"


def test_every_step_has_the_volume_a_deadline_and_the_image(documents):
    for verb, tasks in executors(documents).items():
        assert tasks, verb
        for container, more in tasks:
            assert container["image"] == "diffse-python:0.1.0"
            assert more["pvcMount"][0]["mountPath"] == "/workspace"
            assert int(more["activeDeadlineSeconds"]) >= 3600
            shared = [mount for mount in more.get("emptyDirMounts", []) if mount["mountPath"] == "/dev/shm"]
            assert bool(shared) == (verb == "train")


def test_what_judges_is_never_answered_from_a_cache(documents):
    for task in documents[0]["root"]["dag"]["tasks"].values():
        verb, *names = task["taskInfo"]["name"].split()
        known = verb in ("cache", "estimate", "train", "enhance", "sweep", "swap") and names[0] != "theirs"
        assert task["cachingOptions"].get("enableCache", False) == known
        assert bool(task.get("retryPolicy", {}).get("maxRetryCount")) == (verb != "check")


def test_a_placement_file_changes_what_it_names(folder):
    file = folder / "placement.yaml"
    file.write_text("image: registry/diffse-python@sha256:1\ntrain: {gpus: 4}\ngpu_nodes: {pool: a100}\n")
    found = executors(list(yaml.safe_load_all(compiled(folder, "--placement", str(file)))))
    container, more = found["train"][0]
    assert container["image"] == "registry/diffse-python@sha256:1"
    assert container["resources"]["accelerator"]["resourceCount"] == "4"
    assert more["nodeSelector"]["labels"] == {"pool": "a100"}
    assert found["enhance"][0][0]["resources"]["accelerator"]["resourceCount"] == "1"


def test_a_sweep_of_what_is_not_trained_is_one_line(tmp_path):
    folder = small_project.create(tmp_path)
    small_project.write_params(folder, PARAMS | {"recipes": ["bridge"]})
    done = subprocess.run(
        [sys.executable, FULL, "--compile", folder / "x.yaml", "--params", folder / "params.yaml"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "sweeps.fine.system 'score.near' is no system that is trained" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--placement", "{folder}/wrong.yaml"], "unknown setting 'gpu'"),
        (["--params", "{folder}/none.yaml"], "no such file"),
    ],
)
def test_mistakes_are_one_line(folder, options, message):
    (folder / "wrong.yaml").write_text("gpu: 4\n")
    options = [option.format(folder=folder) for option in options]
    if "--params" not in options:
        options += ["--params", str(folder / "params.yaml")]
    done = subprocess.run(
        [sys.executable, FULL, "--compile", str(folder / "x.yaml"), *options], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "x.yaml").exists()


# ------------------------------------------------------------------------------------------- running it


@pytest.fixture(scope="module")
def local_run(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = small_project.create(tmp_path_factory.mktemp("local"))
    small_project.write_params(folder, PARAMS)
    done = small_project.run(folder, sys.executable, FULL, "--local", "--params", "params.yaml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, done


@pytest.mark.timeout(900)  # the local run is half a minute on an idle machine
def test_a_local_run_calls_the_commands_of_dvc(local_run):
    folder, done = local_run
    records = small_project.records(folder)
    called = [" ".join(("diffse", record["verb"], *record["names"])) for record in records]
    assert sorted(called) == sorted(dvc_commands(PARAMS))
    assert {record["state"] for record in records} == {"ok"}
    assert done.stdout.splitlines()[-1] == f"report: {folder / 'report/index.html'}"


def inputs_of(verb: str, names: list[str]) -> set[str]:
    """Locations that a step must be given references of."""
    corpus = names[-1].rpartition(".")[2] if names else ""
    mixtures = f"data/{corpus}/mixtures"
    if verb == "check":
        return {str(steps.describe(verb, names).artifact)}
    if verb == "report":
        systems = ("unprocessed", "score.near", "bridge.near", "theirs")
        scores = {f"results/{system}/{corpus}" for system in systems for corpus in ("near", "far")}
        return scores | {"results/sweeps/fine", "results/swaps/other"}
    if verb == "evaluate":
        return {mixtures} if names[0] == "unprocessed" else {mixtures, f"enhanced/{names[0]}/{corpus}"}
    cache, levels = f"data/{corpus}/cache", f"data/{corpus}/statistics.json"
    return {
        "prepare": set(),
        "cache": {mixtures},
        "estimate": {cache},
        "train": {mixtures, cache, levels},
        "enhance": {mixtures} if names[0] == "theirs" else {mixtures, f"models/{names[0]}"},
        "sweep": {"data/near/mixtures", "models/score.near"},
        "swap": {"data/near/mixtures", "models/score.near", "models/bridge.near"},
    }[verb]


@pytest.mark.timeout(900)
def test_steps_hand_over_references_of_their_inputs(local_run):
    folder, _ = local_run
    references = {}
    for record in small_project.records(folder):
        arguments = record["arguments"]
        needs = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--needs"]
        assert {needed.partition("@")[0] for needed in needs} == inputs_of(record["verb"], record["names"])
        for needed in needs:
            assert needed == references[needed.partition("@")[0]], arguments
        references[record["output"].partition("@")[0]] = record["output"]


@pytest.mark.timeout(900)
def test_an_input_that_changed_behind_the_pipeline_stops_it(local_run):
    folder, _ = local_run
    (folder / "data/near/mixtures/made.json").write_text("{}")
    train = next(record for record in small_project.records(folder) if record["verb"] == "train")
    done = small_project.run(folder, sys.executable, "-m", "diffse", *train["arguments"])
    assert done.returncode == 2
    assert "this step was given" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_failing_gate_ends_the_local_run(tmp_path):
    folder = small_project.create(tmp_path)
    params = json.loads(json.dumps(small_project.PARAMS))
    params["check"]["mixtures"]["min_seconds"] = 200.0
    small_project.write_params(folder, params)
    done = small_project.run(folder, sys.executable, FULL, "--local", "--params", "params.yaml")
    assert done.returncode == 1
    assert "duration: 3 utterances below 200.0 s" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("pipelines/full.py: ")
    assert {record["verb"] for record in small_project.records(folder)} == {"prepare", "check"}


class _Server(BaseHTTPRequestHandler):
    """Answers what kfp's client asks when it starts a run, and keeps the requests."""

    seen: ClassVar[list[tuple[str, str, dict]]] = []

    def _answer(self, body: dict) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.seen.append(("GET", self.path, {}))
        self._answer({"experiments": [{"experiment_id": "e1", "display_name": "night"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(("POST", self.path, body))
        self._answer({"run_id": "r1", "experiment_id": "e1"})

    def log_message(self, *_: object) -> None:
        pass


def test_submitting_sends_the_compiled_pipeline(folder, documents):
    server = HTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        host = f"http://127.0.0.1:{server.server_port}"
        options = ["--host", host, "--experiment", "night", "--params", "params.yaml"]
        command = [sys.executable, FULL, "--submit", *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert "started run r1" in done.stdout
    posts = [(path, body) for method, path, body in _Server.seen if method == "POST"]
    assert [path for path, _ in posts] == ["/apis/v2beta1/runs"]
    assert posts[0][1]["pipeline_spec"]["pipeline_spec"] == documents[0]
    assert posts[0][1]["pipeline_spec"]["platform_spec"] == documents[1]


def test_submitting_needs_a_host():
    done = subprocess.run([sys.executable, FULL, "--submit"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--submit needs --host" in done.stderr


def test_the_image_is_built_under_the_name_that_components_use():
    from components import IMAGE
    from diffse import __version__

    assert f"diffse-python:{__version__}" == IMAGE
    for file in ("Makefile", "Dockerfile"):
        assert f"-t {IMAGE} ." in (small_project.PROJECT / file).read_text()


# ------------------------------------------------------------------------------------- the real steps


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_dvc_and_kubeflow_make_the_same(tmp_path):
    """The whole chain with real steps on a tiny project: both runners end with the same bytes."""
    import tiny

    folders = {}
    for runner in ("dvc", "kubeflow"):
        folders[runner] = folder = tmp_path / runner
        small_project.create(folder)
        for corpus in small_project.PARAMS["corpora"]:
            (folder / "sources" / corpus / "speech.txt").unlink()
        tiny.make_sources(folder)
        checks = {"mixtures": {}, "cache": {}, "metrics": {"max_missing": 1.0}}
        checks |= {"checkpoint": {"max_final_loss_ratio": 100.0}, "enhanced": {"max_gain_db": 200.0}}
        (folder / "sources/external/theirs/copy.py").write_text(
            "import shutil, sys; shutil.copytree(*sys.argv[1:], dirs_exist_ok=True)"
        )
        program = [sys.executable, "sources/external/theirs/copy.py", "{input}", "{output}"]
        more = {"externals": ["theirs"], "external": {"theirs": {"command": program}}}
        sweep = {"system": "bridge.toy", "corpus": "toy", "values": [1, 3], "files": 2, "metrics": ["estoi"]}
        more |= {"sweeps": {"fine": sweep}, "report": {"title": "tiny"}}
        tiny.write_params(folder, check=checks, cache={"n_fft": 510}, **more)
    bin_folder = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    commands = {
        "dvc": ["dvc", "repro"],
        "kubeflow": [sys.executable, FULL, "--local", "--params", "params.yaml"],
    }
    for runner, command in commands.items():
        environment = {**os.environ, "PATH": bin_folder}
        done = subprocess.run(command, cwd=folders[runner], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    made = [files_of(folder) for folder in folders.values()]
    assert made[0] == made[1]
    assert {
        "data/toy/statistics.json",
        "models/bridge.toy/best/weights.safetensors",
        "results/unprocessed/toy/per_file.csv",
        "results/theirs/toy/per_file.csv",
        "results/sweeps/fine/figure.svg",
    } <= set(made[0])


def files_of(folder: Path) -> dict[str, str]:
    """Checksums of what must not depend on the runner: all but what says how long something took."""
    timed = {"enhanced.json", "summary.json", "table.csv"}
    kept = {}
    for top in ("data", "models", "enhanced", "results"):
        for file in sorted((folder / top).rglob("*")):
            hidden = any(part.startswith(".") or part == "dvclive" for part in file.relative_to(folder).parts)
            if file.is_file() and not hidden and file.name not in timed:
                content = file.read_bytes()
                if file.name == "checkpoint.json":  # the code may be edited while this test runs
                    content = json.dumps(json.loads(content) | {"code_version": None}).encode()
                kept[str(file.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return kept
