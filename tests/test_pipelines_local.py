"""Pipelines in kfp's local runner: the commands of dvc.yaml, what they hand over, the results."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_project
import tiny_chain
import yaml
from small_project import PROJECT
from test_pipelines import FULL, PARAMS, dvc_commands

from diffse import objects, steps

MADE = ("data", "models", "enhanced", "results", "gates", "report")


@pytest.fixture(scope="module")
def local_run(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = small_project.create(tmp_path_factory.mktemp("local"))
    small_project.write_params(folder, PARAMS)
    done = small_project.run(folder, sys.executable, FULL, "--local", "--params", "params.yaml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, done


def steps_of(folder: Path) -> list[dict]:
    """Run records but that of the pipeline itself."""
    return [record for record in small_project.records(folder) if record["verb"] != "pipeline"]


def test_a_local_run_calls_the_commands_of_dvc(local_run):
    folder, done = local_run
    records = steps_of(folder)
    called = [" ".join(("diffse", record["verb"], *record["names"])) for record in records]
    assert sorted(called) == sorted(dvc_commands(PARAMS))
    assert {record["state"] for record in records} == {"ok"}
    assert done.stdout.splitlines()[-1] == f"diffse: {folder / 'report/index.html'}"


def test_all_records_of_a_local_run_name_it(local_run):
    folder, _ = local_run
    records = small_project.records(folder)
    assert {record["runner"] for record in records} == {"kfp-local"}
    assert len({record["pipeline"] for record in records}) == 1
    last = records[-1]
    assert (last["verb"], last["names"], last["state"]) == ("pipeline", ["diffse"], "ok")
    assert last["result"] == {"state": "SUCCEEDED", "failed_steps": {}}


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


def test_steps_hand_over_references_of_their_inputs(local_run):
    folder, _ = local_run
    references = {}
    for record in steps_of(folder):
        arguments = record["arguments"]
        needs = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--needs"]
        assert {needed.partition("@")[0] for needed in needs} == inputs_of(record["verb"], record["names"])
        for needed in needs:
            assert needed == references[needed.partition("@")[0]], arguments
        references[record["output"].partition("@")[0]] = record["output"]


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
    assert {record["verb"] for record in steps_of(folder)} == {"prepare", "check"}
    last = small_project.records(folder)[-1]
    assert (last["verb"], last["state"]) == ("pipeline", "failed")
    assert set(last["result"]["failed_steps"]) == {"check mixtures near", "check mixtures far"}
    assert "duration: 3 utterances below 200.0 s" in last["error"]
    assert "- `diffse check mixtures near`: data/near/mixtures: duration" in done.stdout


def test_dvc_makes_the_same_with_steps_of_no_work(local_run, tmp_path):
    """What a step of no work writes depends on all that it was given, so that a wrong input shows here."""
    folder = small_project.create(tmp_path / "dvc")
    small_project.write_params(folder, PARAMS)
    done = small_project.run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    made = {str(path.relative_to(folder)) for top in MADE for path in (folder / top).rglob("*.*")}
    assert "report/index.html" in made and len(made) > 50
    changed = {"data/near/mixtures/made.json"}  # by the test before
    for name in made - changed:
        if (folder / name).is_file() and not Path(name).name.startswith("."):
            assert (folder / name).read_bytes() == (local_run[0] / name).read_bytes(), name


# ------------------------------------------------------------------------------------- the real steps


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_dvc_and_kubeflow_make_the_same(tmp_path, store):
    """The whole chain with real steps on a tiny project, in a folder and on S3 alone: the same bytes."""
    folders = {runner: tiny_chain.create(tmp_path / runner) for runner in ("dvc", "kubeflow", "s3")}
    workspace = f"{store}/project"
    for file in (folders["s3"] / "params.yaml", *(folders["s3"] / "sources").rglob("*.*")):
        objects.upload(file, f"{workspace}/{file.relative_to(folders['s3'])}")
    local = [sys.executable, FULL, "--local", "--params", "params.yaml"]
    commands = {"dvc": ["dvc", "repro"], "kubeflow": local, "s3": [*local, "--workspace", workspace]}
    for runner, command in commands.items():
        run_real(folders[runner], command)
    assert not [top for top in MADE if (folders["s3"] / top).exists()]
    for entry in list(objects.listing(workspace)):
        objects.download(entry.url, folders["s3"] / entry.url.removeprefix(f"{workspace}/"))
    made = {runner: files_of(folder) for runner, folder in folders.items()}
    assert made["dvc"] == made["kubeflow"] == made["s3"]
    assert {
        "data/toy/statistics.json",
        "models/bridge.toy/best/weights.safetensors",
        "results/unprocessed/toy/per_file.csv",
        "results/theirs/toy/per_file.csv",
        "results/sweeps/fine/figure.svg",
    } <= set(made["dvc"])
    ended = {runner: verdicts(folder) for runner, folder in folders.items()}
    settings = yaml.safe_load((folders["dvc"] / "params.yaml").read_text())
    assert len(ended["dvc"]) == sum(command.split()[1] == "check" for command in dvc_commands(settings))
    assert ended["dvc"] == ended["kubeflow"] == ended["s3"]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_demo_corpus_comes_out_the_same(tmp_path):
    """The project as it is in git, to its report: a quarter of an hour for both runners on an idle machine."""
    made, took = {}, {}
    for runner in ("kubeflow", "dvc"):
        folder = small_project.create(tmp_path / runner)
        shutil.copy(PROJECT / "params.yaml", folder)
        shutil.rmtree(folder / "sources")
        shutil.copytree(PROJECT / "sources", folder / "sources")
        local = [sys.executable, FULL, "--local", "--params", "params.yaml"]
        began = time.monotonic()
        run_real(folder, ["dvc", "repro"] if runner == "dvc" else local)
        took[runner] = time.monotonic() - began
        assert (folder / "report/index.html").stat().st_size > 100_000
        made[runner] = files_of(folder) | verdicts(folder)
    print({runner: f"{seconds:.0f} s" for runner, seconds in took.items()})
    assert made["kubeflow"] == made["dvc"]


def run_real(folder: Path, command: list[str]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


def verdicts(folder: Path) -> dict[str, list]:
    """Gate -> its rules with what was observed."""
    files = sorted((folder / "gates").rglob("*.json"))
    return {str(file.relative_to(folder)): json.loads(file.read_text())["rules"] for file in files}


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
