"""dvc.yaml: which stages a changed setting runs again, and that it says the same as the steps."""

import copy
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import small_project
import yaml

from diffse import settings, steps


def ran(folder: Path, *options: str, expect: int = 0) -> set[str]:
    """Commands that `dvc repro` runs, without the leading 'diffse'."""
    before = len(small_project.records(folder))
    done = small_project.run(folder, "dvc", "repro", *options)
    assert done.returncode == expect, done.stdout + done.stderr
    new = small_project.records(folder)[before:]
    return {" ".join((record["verb"], *record["names"])) for record in new}


def each(verb: str, names: list[str]) -> set[str]:
    return {f"{verb} {name}" for name in names}


def after_enhancing(pairs: list[str]) -> set[str]:
    verbs = ("enhance", "check enhanced", "evaluate", "check metrics")
    return {f"{verb} {pair}" for verb in verbs for pair in pairs} | {"report"}


CORPORA = ["near", "far"]
UNPROCESSED = ["unprocessed near", "unprocessed far"]


def pairs(*systems: str) -> list[str]:
    return [f"{system} {corpus}" for system in systems for corpus in CORPORA]


def chain(*systems: str) -> set[str]:
    """All commands of a project with these systems, trained on `near`, and both corpora."""
    prepared = {f"{verb} {corpus}" for verb in ("prepare", "check mixtures") for corpus in CORPORA}
    trained = each("train", systems) | each("check checkpoint", systems) | after_enhancing(pairs(*systems))
    scored = each("evaluate", UNPROCESSED) | each("check metrics", UNPROCESSED)
    return prepared | {"cache near", "check cache near", "estimate near"} | trained | scored


SCORED = pairs("bridge.near") + UNPROCESSED

# setting -> new value, commands that run again in a project with one system and two corpora. A gate whose
# limit changed judges again, but while the artifact passes, nothing that uses the artifact runs.
TABLE = {
    "report.title": ("other", {"report"}),
    "check.mixtures.snr_tolerance_db": (0.7, {"check mixtures near", "check mixtures far", "report"}),
    "check.cache.sample_utterances": (3, {"check cache near", "report"}),
    "check.checkpoint.max_final_loss_ratio": (2.0, {"check checkpoint bridge.near", "report"}),
    "check.enhanced.max_gain_db": (30.0, each("check enhanced", pairs("bridge.near")) | {"report"}),
    "check.metrics.max_missing": (0.3, each("check metrics", SCORED) | {"report"}),
    "evaluate.bootstrap": (200, each("evaluate", SCORED) | each("check metrics", SCORED) | {"report"}),
    "cache.n_fft": (
        320,
        {"cache near", "check cache near", "estimate near", "train bridge.near", "check checkpoint bridge.near"}
        | after_enhancing(pairs("bridge.near")),
    ),
    "prepare.far.seed": (
        2,
        {"prepare far", "check mixtures far", "evaluate unprocessed far", "check metrics unprocessed far"}
        | after_enhancing(["bridge.near far"]),
    ),
}

# The same in a project with two systems, an external one, a sweep of `score`, a swap of both, and one corpus.
# Sweeps and swaps read all of `enhance`, because DVC cannot tell the recipe from a system's name.
COMPARED = {"sweep fine", "swap other"}
TABLE_OF_SYSTEMS = {
    "enhance.bridge.sampler.steps": (20, after_enhancing(["bridge.near near"]) | COMPARED),
    "train.score.lr": (
        0.01,
        {"train score.near", "check checkpoint score.near"} | after_enhancing(["score.near near"]) | COMPARED,
    ),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The small project after its first `dvc repro`. Tests work on copies."""
    folder = small_project.create(tmp_path_factory.mktemp("built"))
    small_project.write_params(folder, one_system())
    assert ran(folder) == chain("bridge.near")
    return folder


def one_system() -> dict:
    """Settings of a project with one system: DVC's time grows with the number of stages."""
    return copy.deepcopy(small_project.PARAMS) | {"recipes": ["bridge"]}


@pytest.fixture
def folder(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "project", symlinks=True)


def change(params: dict, key: str, value: object) -> None:
    *parents, last = key.split(".")
    for name in parents:
        params = params.setdefault(name, {})
    params[last] = value


def check_table(folder: Path, params: dict, table: dict) -> None:
    for key, (value, expected) in table.items():
        change(params, key, value)
        small_project.write_params(folder, params)
        assert ran(folder) == expected, key


def test_a_change_runs_what_reads_it(folder):
    assert ran(folder) == set()
    params = one_system()
    gates = {key: row for key, row in TABLE.items() if key.startswith("check.")}
    # All in one run, because each takes seconds. That each gate reads its own limits alone follows from
    # test_commands_are_steps_with_their_settings_and_products.
    for key, (value, _) in gates.items():
        change(params, key, value)
    check_table(folder, params, {key: (value, set().union(*(row[1] for row in gates.values())))})
    check_table(folder, params, {key: row for key, row in TABLE.items() if key not in gates})


@pytest.mark.slow  # minutes of DVC writing its lock file; test_pipelines_changes has the same table
def test_a_change_of_one_system_leaves_the_other(folder):
    params = one_system() | {"corpora": ["near"], "recipes": ["bridge", "score"]}
    params |= copy.deepcopy(small_project.MORE)
    small_project.write_params(folder, params)
    new = {"train score.near", "check checkpoint score.near"} | COMPARED
    assert ran(folder) == new | after_enhancing(["score.near near", "theirs near"])
    check_table(folder, params, TABLE_OF_SYSTEMS)
    change(params, "external.theirs.paper", "theirs")
    check_table(
        folder, params, {"sweeps.fine.values": ([1, 2], after_enhancing(["theirs near"]) | {"sweep fine"})}
    )
    (folder / "sources/external/theirs/speech.txt").write_text("another version")
    check_table(folder, params, {"swaps.other.files": (3, after_enhancing(["theirs near"]) | {"swap other"})})


def test_a_failing_gate_stops_what_follows_and_keeps_what_it_judged(folder):
    (folder / "sources" / "near" / "more.txt").write_text("more")
    params = one_system()
    change(params, "check.mixtures.min_seconds", 200.0)
    small_project.write_params(folder, params)
    old = (folder / "data/near/mixtures/made.json").read_text()
    assert ran(folder, expect=255) <= {"prepare near", "check mixtures near", "check mixtures far"}
    assert (folder / "data/near/mixtures/made.json").read_text() != old
    failed = small_project.records(folder)[-1]
    assert failed["state"] == "failed"
    assert failed["error"].endswith("mixtures: duration: 3 utterances below 200.0 s")
    assert (
        json.loads((folder / "gates/mixtures/near.json").read_text())["success"] is False
        or "far" in failed["names"]
    )
    again = ran(folder, expect=255)
    assert again and all(command.startswith("check mixtures") for command in again)


# ------------------------------------------------------------------------- without running anything


def stages() -> dict[str, dict]:
    """The stages of dvc.yaml for the small project, as DVC resolves them: command -> entries."""
    script = (
        "import json, dvc.repo; repo = dvc.repo.Repo('.');"
        "print(json.dumps([[s.cmd, [d.def_path for d in s.deps], [o.def_path for o in s.outs],"
        " {d.def_path: list(d.params) for d in s.deps if hasattr(d, 'params')},"
        " [o.def_path for o in s.outs if o.persist]] for s in repo.index.stages]))"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = small_project.create(Path(name))
        small_project.write_params(folder, small_project.PARAMS | small_project.MORE)
        done = small_project.run(folder, sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    keys = ("deps", "outs", "params", "persist")
    return {cmd: dict(zip(keys, rest, strict=True)) for cmd, *rest in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def resolved() -> dict[str, dict]:
    return stages()


def test_commands_are_steps_with_their_settings_and_products(resolved):
    expected = chain("bridge.near", "score.near") | after_enhancing(pairs("theirs")) | COMPARED
    assert {command.removeprefix("diffse ") for command in resolved} == expected
    for command, stage in resolved.items():
        _, verb, *names = command.split()
        step = steps.describe(verb, names)
        assert step.command == command
        assert tuple(stage["params"]["params.yaml"]) == step.settings, command
        promised = {str(path) for path in step.writes}
        wider = {"train": {str(step.artifact)}, "report": {"report"}}  # folders that hold more than is promised
        assert set(stage["outs"]) == wider.get(verb, promised), command


def test_what_a_stage_uses_has_passed_its_gate(resolved):
    judged_by = {}  # artifact -> gate
    for command, stage in resolved.items():
        if command.startswith("diffse check"):
            judged_by[str(steps.describe("check", command.split()[2:]).artifact)] = stage["outs"][0]
    uses = 0
    for command, stage in resolved.items():
        if command.startswith(("diffse check", "diffse report")):
            continue
        for artifact, gate in judged_by.items():
            if not any(dep == artifact or dep.startswith(f"{artifact}/") for dep in stage["deps"]):
                continue
            if command.startswith("diffse evaluate") and f"/{command.split()[2]}/" not in f"/{artifact}/":
                continue  # the pairs were judged before the enhancement that this evaluates
            assert stage["params"][gate] == ["success"], (command, artifact)
            uses += 1
    assert uses > 10


def test_a_stage_that_fails_leaves_what_it_made_before(resolved):
    """DVC deletes the other outputs before it runs a stage."""
    for command, stage in resolved.items():
        assert stage["persist"] == stage["outs"], command


def test_the_settings_of_the_project_have_every_key_that_a_stage_reads():
    """DVC does not run a stage whose key is missing, even if diffse has a default for it."""
    file = small_project.PROJECT / "params.yaml"
    params, raw = settings.load(file), yaml.safe_load(file.read_text())
    verbs = [("check", (artifact, *names)) for artifact, (_, names) in steps.JUDGED.items()]
    keys = {*steps.SELECTION, "cache", "enhance", "evaluate", "report"}
    keys |= {f"check.{names[0]}" for _, names in verbs}
    keys |= {f"prepare.{corpus}" for corpus in params.corpora}
    keys |= {f"{block}.{recipe}" for block in ("train", "enhance") for recipe in params.recipes}
    keys |= {f"external.{name}" for name in params.externals}
    for key in keys:
        value = raw
        for part in key.split("."):
            assert part in value, key
            value = value[part]


def test_the_workspace_of_the_project_is_not_for_git():
    """DVC tracks outputs; git must not, and DVC must not have to write .gitignore files for it."""
    names = [
        "data/demo/mixtures",
        "models/a.b",
        "enhanced/a.b/c",
        "results/a.b/c/per_file.csv",
        "report/index.html",
        "runs/x",
    ]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *names, "gates/x/y.json"],
        cwd=small_project.PROJECT, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert len(done.stdout.splitlines()) == len(names) + 1
