"""Steps that a cluster takes away in the middle, and that are repeated: nothing may depend on it.

A process that starts with the hook on its path is killed (SIGKILL: no clean-up, as with a lost node) when it is
about to rename what it has made to its final name, which is after the work and before the result.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import tiny_chain
from small_project import PROJECT
from test_pipelines_local import files_of

# Kills `diffse` at its nth rename to a name that ends with SUFFIX in the project. ONCE: each step only once.
HOOK = """
import os, pathlib, signal, sys

words = sys.orig_argv
if "diffse" in words and "KILL_AT" in os.environ:
    step = "-".join(words[words.index("diffse") + 1 :]).split("---")[0].replace("/", "_")
    root, marks, count = pathlib.Path.cwd(), pathlib.Path(os.environ["KILL_MARKS"]), [0]
    replace = os.replace

    def replace_or_die(source, target, **options):
        place, done = os.path.abspath(target), list(marks.glob(f"{step}.*"))
        made = place.startswith(f"{root}{os.sep}") and not place.startswith(f"{root}{os.sep}runs")
        if made and place.endswith(os.environ["KILL_SUFFIX"]):
            count[0] += 1
            if count[0] == int(os.environ["KILL_AT"]) and not (done and "ONCE" in os.environ):
                (marks / f"{step}.{len(done)}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return replace(source, target, **options)

    os.replace = replace_or_die
"""

# The full pipeline with kfp's local runner, each step repeated by kfp itself when it fails.
PIPELINE = """
from pathlib import Path
from kfp import local
from diffse import settings
from pipelines import full, graph, placement

wants = placement.Placement(retry_wait="1s", retry_factor=1.0, check=placement.Resources(retries=2))
file = Path("params.yaml").resolve()
project = graph.Project(settings.load(file), file, str(file.parent), wants)
local.init(local.SubprocessRunner(use_venv=False), pipeline_root="root", raise_on_error=True)
graph.build("diffse", "", lambda chain: full.add_tasks(chain, None), project)()
"""


def environment(folder: Path, **kill: str) -> dict[str, str]:
    """Environment with the hook; its marks are in the folder."""
    hook, marks = folder / ".hook", folder / ".marks"
    hook.mkdir(exist_ok=True)
    marks.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(HOOK)
    paths = os.pathsep.join((str(hook), str(PROJECT / "src"), str(PROJECT)))
    return {**os.environ, "PYTHONPATH": paths, "KILL_MARKS": str(marks), "KILL_SUFFIX": "", **kill}


def run(folder: Path, *command: str, **kill: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment(folder, **kill), capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_step_is_killed_once_and_repeated_to_the_same_result(tmp_path):
    made = {}
    for kind, kill in (("undisturbed", {}), ("killed", {"KILL_AT": "1", "ONCE": "1"})):
        folder = tiny_chain.create(tmp_path / kind)
        done = run(folder, "-c", PIPELINE, **kill)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        made[kind] = files_of(folder)
    assert made["killed"] == made["undisturbed"]
    records = [json.loads(file.read_text()) for file in (tmp_path / "undisturbed" / "runs").glob("*.json")]
    steps = {"-".join((r["verb"], *r["names"])) for r in records if r["verb"] != "pipeline"}
    killed = {file.name.removesuffix(".0") for file in (tmp_path / "killed" / ".marks").iterdir()}
    assert killed == steps | {"conclude-diffse"}  # the exit handler too


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_training_taken_away_ten_times_ends_with_the_same_weights(tmp_path):
    weights = {}
    for kind in ("undisturbed", "taken"):
        root = tmp_path / kind
        tiny.make_project(root, train__bridge__checkpoint_every=1)
        train = ("-m", "diffse", "train", "bridge.toy")
        for taken in range(10 if kind == "taken" else 0):
            done = run(root, *train, KILL_AT="2", KILL_SUFFIX="state.pt")
            assert done.returncode == -9, (taken, done.stdout, done.stderr)
        done = run(root, *train)
        assert done.returncode == 0, done.stderr
        folder = root / "models/bridge.toy"
        weights[kind] = [(folder / name / "weights.safetensors").read_bytes() for name in ("best", "last")]
    assert weights["taken"] == weights["undisturbed"]
