"""The image of the Dockerfile: built without a Docker engine, and steps of a pipeline run in it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import compiled
import launcher
import pytest
import small_project
import tiny_chain
from image_builder import CPU_INDEX, PROJECT, Images, has_cpu_wheels, why_not
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from diffse import steps

COMMIT = "0123456789abcdef0123456789abcdef01234567"
USER = 1000
LAYER_MB = 40  # what a change of the code sends again
# Run in the image: what is installed, and what diffse asks for when it is not to be developed.
INSTALLED = """
import importlib.metadata, json, torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.utils import canonicalize_name

def asked_for(name, extras, found):
    name = canonicalize_name(name)
    new = extras - found.setdefault(name, set()) if name in found else extras | {""}
    found.setdefault(name, set()).update(new)
    for line in importlib.metadata.requires(name) or () if new else ():
        one = Requirement(line)
        if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in new):
            asked_for(one.name, set(one.extras), found)
    return found

extras = set(importlib.metadata.metadata("diffse").get_all("Provides-Extra")) - {"dev", "all"}
print(json.dumps({
    "packages": {canonicalize_name(one.name): one.version for one in importlib.metadata.distributions()},
    "asked for": sorted(asked_for("diffse", extras, {})),
    "cuda": torch.version.cuda,
}))
"""


def test_the_dockerfile_is_without_findings():
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, PROJECT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_see_a_mistake(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp && apt-get install gcc\n")
    program = Path(sys.executable).with_name("hadolint")
    assert subprocess.run([program, tmp_path / "Dockerfile"], capture_output=True).returncode == 1


# --------------------------------------------------------------------------------------------- the image


@dataclass(frozen=True)
class Built:
    images: Images
    name: str
    target: str

    def python(self, *words: str, **options: str | Path) -> str:
        done = self.images.step(self.name, *words, entrypoint="python", **options)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Iterator[Images]:
    kept = os.environ.get("DIFFSE_TEST_IMAGES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("images")
    reason = why_not(folder if folder.is_dir() else folder.parent)
    if reason:
        pytest.skip(reason)
    store = Images(folder)
    try:
        store.make_base()
        yield store
    finally:
        if not kept:
            store.remove()


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def built(request, images) -> Built:
    if request.param == "cpu" and not has_cpu_wheels():
        pytest.skip(f"{CPU_INDEX} cannot be reached from here, and PyTorch for processors is nowhere else")
    return Built(images, images.build(request.param, COMMIT=COMMIT), request.param)


def image_test(function):
    """A test of the built image: minutes, and gigabytes of packages the first time."""
    return pytest.mark.slow(pytest.mark.timeout(7200)(function))


@image_test
def test_the_packages_are_those_of_the_lock_without_what_develops(built):
    found = json.loads(built.python("-c", INSTALLED))
    lines = [line for line in (PROJECT / "requirements.lock").read_text().splitlines() if line[:1] not in "# "]
    locked: dict[str, set[str]] = {}  # some have a version for each version of Python
    for one in map(Requirement, lines):
        locked.setdefault(canonicalize_name(one.name), set()).add(str(one.specifier).removeprefix("=="))
    versions = {name: version.partition("+")[0] for name, version in found["packages"].items()}
    assert versions.pop("diffse")
    assert not [name for name, version in versions.items() if version not in locked[name]]
    assert set(versions) | {"diffse"} == set(found["asked for"])
    assert not {"pytest", "moto", "selenium", "pip", "uv"} & set(versions)
    assert (found["cuda"] is None) == (built.target == "cpu") == ("triton" not in versions)


@image_test
def test_a_step_has_no_rights_and_writes_nowhere_else(built, tmp_path):
    facts = """
import json, os, pathlib
def writes(place):
    try:
        pathlib.Path(place, "probe").write_text("x")
    except OSError:
        return False
    return True
places = ("/", "/opt/venv", "/usr", "/etc", "/home", "/tmp", "/workspace")
print(json.dumps({"user": os.getuid(), "written": [place for place in places if writes(place)]}))
"""
    shutil.chown(tmp_path, USER)
    found = json.loads(built.python("-c", facts, workspace=tmp_path))
    assert found == {"user": USER, "written": ["/tmp", "/workspace"]}
    user = built.images.must("podman", "image", "inspect", "--format={{.User}}", built.name)
    assert user.strip() == str(USER)  # a number: a cluster cannot see whether a name is root's


@image_test
def test_layers_hold_what_runs_and_change_apart(built):
    history = json.loads(built.images.must("podman", "history", "--format=json", built.name))
    print(f"\n{built.target}: {sum(layer['size'] for layer in history) / 1e6:.0f} MB in", end=" ")
    print([round(layer["size"] / 1e6) for layer in history if layer["size"]])
    copied = [layer for layer in history if "COPY" in layer["CreatedBy"] or "from=" in layer["CreatedBy"]]
    assert copied[0]["size"] < LAYER_MB * 1e6  # the newest: diffse itself
    without = """
import pathlib, shutil
print([name for name in ("gcc", "cc", "uv", "pip") if shutil.which(name)])
print([str(path) for path in pathlib.Path("/var/lib/apt/lists").iterdir()])
print([str(path) for place in ("/lock", "/source", "/opt/uv") if (path := pathlib.Path(place)).exists()])
"""
    assert built.python("-c", without).splitlines() == ["[]", "[]", "[]"]


@image_test
def test_a_mistake_is_one_line_there_too(built):
    done = built.images.step(built.name, "prepare", "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"diffse: .*params.yaml: no such file.*\n", done.stderr)


@image_test
def test_steps_of_the_pipeline_run_in_it(built, tmp_path):
    """The containers' own commands, as Kubeflow starts them; the mixtures are those that are made here."""
    here, there = (tiny_chain.create(tmp_path / name) for name in ("here", "there"))
    prepare = (sys.executable, "-m", "diffse", "prepare", "toy")
    done = subprocess.run(prepare, cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    documents = compiled.documents_of(compiled.compile_here(here))
    subprocess.run(["chown", "-R", str(USER), there], check=True)

    def step(name: str, **inputs) -> str:
        return in_container(built, documents, name, there, **inputs)

    mixtures = step("prepare toy")
    assert mixtures == steps.reference(here, Path("data/toy/mixtures"))
    assert step("check mixtures toy", judged=mixtures) == mixtures
    spectrograms = step("cache toy", mixtures=mixtures)
    statistics = step("estimate toy", spectrograms=spectrograms)
    inputs = {"mixtures": mixtures, "spectrograms": spectrograms, "statistics": statistics}
    checkpoint = step("train bridge.toy", **inputs)
    assert checkpoint == steps.reference(there, Path("models/bridge.toy"))
    assert (there / "models/bridge.toy/dvclive").is_dir()  # DVC too finds a place to write
    step("enhance bridge.toy toy", mixtures=mixtures, checkpoint=checkpoint)
    records = small_project.records(there)
    verbs = ["prepare", "check", "cache", "estimate", "train", "enhance"]
    assert [(record["verb"], record["state"]) for record in records] == [(verb, "ok") for verb in verbs]
    assert {record["code"]["commit"] for record in records} == {COMMIT}


def in_container(built: Built, documents: list[dict], name: str, workspace: Path, **inputs) -> str:
    """Run the container of a task in the workspace; the reference that it hands on."""
    task = compiled.tasks(documents)[name]
    folder = Path(".handed", name.replace(" ", "-"))
    (workspace / folder).mkdir(parents=True)
    subprocess.run(["chown", "-R", str(USER), workspace / ".handed"], check=True)
    inside = Path("/workspace") / folder
    words = launcher.command(documents, task, inside, workspace="/workspace", **inputs)
    done = built.images.step(built.name, *words[1:], entrypoint=words[0], workspace=workspace)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    promised = launcher.interface(documents, task)
    for artifact in promised["artifacts"]:
        assert (workspace / folder / artifact).stat().st_size
    (reference,) = promised["parameters"]
    return (workspace / folder / reference).read_text()
