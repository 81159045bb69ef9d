"""Writing beside the target first: what was there stays until the new one is complete."""

import os
import subprocess
import sys

import pytest

from diffse import storage


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_a_failed_writer_leaves_the_old_artifact(tmp_path):
    for write in (storage.atomic_file, storage.atomic_folder):
        target = tmp_path / write.__name__
        with write(target) as temporary:
            (temporary / "x" if temporary.is_dir() else temporary).write_text("old")
        with pytest.raises(RuntimeError), write(target) as temporary:
            (temporary / "x" if temporary.is_dir() else temporary).write_text("new")
            raise RuntimeError
        assert (target / "x" if target.is_dir() else target).read_text() == "old"
    assert names(tmp_path) == ["atomic_file", "atomic_folder"]


def test_leftovers_of_killed_writers_go(tmp_path, dead):
    """A process that starts again in a container has the number that the killed one had."""
    for number in (dead, os.getpid()):
        (tmp_path / f".state.{number}.partial.pt").write_text("half")
        (tmp_path / f".best.{number}.partial").mkdir()
        with storage.atomic_file(tmp_path / "state.pt") as temporary:
            temporary.write_text("whole")
        with storage.atomic_folder(tmp_path / "best") as temporary:
            assert not list(temporary.iterdir())
        assert names(tmp_path) == ["best", "state.pt"]


def test_what_a_living_writer_works_on_stays(tmp_path):
    kept = [f".state.{os.getppid()}.partial.pt", f".states.{os.getpid()}.partial.pt", ".state.x.partial.pt"]
    for name in kept:
        (tmp_path / name).write_text("half")
    with storage.atomic_file(tmp_path / "state.pt") as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == sorted([*kept, "state.pt"])


def test_a_folder_that_was_moved_away_when_its_writer_died_comes_back(tmp_path, dead):
    moved = tmp_path / f".best.{dead}.replaced"
    moved.mkdir()
    (moved / "x").write_text("old")
    with pytest.raises(RuntimeError), storage.atomic_folder(tmp_path / "best"):
        raise RuntimeError
    assert (tmp_path / "best" / "x").read_text() == "old"
    assert names(tmp_path) == ["best"]
