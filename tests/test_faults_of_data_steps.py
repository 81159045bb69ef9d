"""`prepare`, mixing in it, and `cache`: killed anywhere, or out of room; run again, the bytes are the same."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny

from diffse import paths, storage

PROGRAM = Path(__file__).with_name("forked_steps.py")


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-r", "-m", "true"], capture_output=True).returncode == 0


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.slow)])
def outcome(request, tmp_path_factory) -> dict:
    """What `forked_steps.py` found, by kind; one program, because its imports take longest."""
    command = [sys.executable, str(PROGRAM), str(tmp_path_factory.mktemp("steps")), "kill", "limit"]
    if can_mount():
        command = ["unshare", "-r", "-m", *command, "disk"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, request.param], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_killed_anywhere_and_run_again(outcome):
    """At touches of the file system and at random times, with and without an older version there."""
    assert list(outcome["kill"]) == ["mixtures", "cache"]
    for name, found in outcome["kill"].items():
        assert not found["wrong"], name
        assert found["killed"] >= found["touches"] >= 5, (name, found)


@pytest.mark.parametrize("kind", ["limit", "disk"])
def test_no_room(outcome, kind):
    """Files that may not grow; disks that are full, or become so."""
    if kind not in outcome:
        pytest.skip("no file system can be mounted here")
    assert list(outcome[kind]) == ["mixtures", "cache"]
    for name, attempts in outcome[kind].items():
        failed = [attempt for attempt in attempts if attempt["first"][0] != 0]
        assert len(failed) >= 2, (name, attempts)
        for attempt in failed:
            code, text = attempt["first"]
            line = text.strip().splitlines()[-1]
            assert code == 2, attempt
            assert "Traceback" not in text, text
            assert line.startswith("diffse: "), text
            assert "disk" in line or "limit" in line, text
            assert name not in attempt["left"], "nothing half-written is taken for whole"
            assert not [file for file in attempt["left"] if "partial" in file], attempt
        for attempt in attempts:
            assert attempt["again"][0] == 0, attempt
            assert attempt["same"], "same bytes when there is room"


@pytest.mark.slow
def test_the_commands_with_their_workers_killed_at_any_time(tmp_path):
    """`diffse prepare` with two processes and `diffse cache`, killed as a whole or in the parent alone."""
    tiny.make_sources(tmp_path, count=24, seconds=4.0)
    prepare = tiny.PARAMS["prepare"] | {"toy": tiny.PARAMS["prepare"]["toy"] | {"processes": 2}}
    tiny.write_params(tmp_path, prepare=prepare)
    chance = np.random.default_rng(0)
    for verb, folder in (("prepare", paths.mixtures(tmp_path, "toy")), ("cache", paths.cache(tmp_path, "toy"))):
        seconds = finish(tmp_path, verb)
        whole = digests(folder)
        for number in range(6):
            if number % 2:
                shutil.rmtree(folder)
            child = start(tmp_path, verb)
            time.sleep(float(chance.uniform(0.3, 1.0)) * seconds)
            kill(child, whole_group=number < 3)
            assert not folder.exists() or digests(folder) == whole
            finish(tmp_path, verb)
            assert digests(folder) == whole
            assert not [path for path in folder.parent.iterdir() if "partial" in path.name]


def start(root: Path, verb: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "diffse", verb, "toy"]
    return subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL, start_new_session=True)


def kill(child: subprocess.Popen, whole_group: bool) -> None:
    if child.poll() is None:
        (os.killpg if whole_group else os.kill)(child.pid, signal.SIGKILL)
    child.wait()


def finish(root: Path, verb: str) -> float:
    began = time.monotonic()
    assert start(root, verb).wait() == 0
    return time.monotonic() - began


def digests(folder: Path) -> dict[str, str]:
    return {path.name: storage.sha256_file(path) for path in sorted(folder.iterdir())}
