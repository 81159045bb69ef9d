"""A program that runs steps on data in children of its own: killed at some point, or short of room.

    python forked_steps.py FOLDER KIND... [all]

Kinds: kill (and repeat, at touches of the file system and at any time), disk (of some sizes; needs the right to
mount them) and limit (of the size of files). `all`: more of everything, which takes a minute.

It imports everything once, so that each child costs nothing but its work. It prints one JSON object.
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from own_recordings import MIX, build, run

from diffse import cli, storage
from diffse.data import stft_cache
from diffse.settings import Stft

ALL = "all" in sys.argv
OLD, NEW = replace(MIX, seed=5), MIX
PARAMS = """
corpora: [own]
train_corpora: [own]
recipes: []
prepare: {own: {kind: folder, processes: 1, max_rejected: 0.0}}
train: {}
enhance: {}
"""


def prepare(root: Path, settings=NEW) -> None:
    run(root, settings)


def cache(root: Path, storage_type: str = "float16") -> None:
    stft_cache.run(SimpleNamespace(cache=Stft(shard_mb=1, storage=storage_type)), "own", root)


def in_child(work: Callable[[], None], kill_after: float | None = None) -> int:
    """Do `work` in a forked child; killed after so many seconds. Returns the exit code, -9 for a killed one."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ----------------------------------------------------------------------------------------------- killed


def touching(root: Path, work: Callable[[], None], kill_at: int, counted: Path) -> None:
    """Work that is killed just before its nth touch of a file or folder of the project (0: never)."""
    count, project = [0], str(root / "data")
    events = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")

    def look(event: str, arguments: tuple) -> None:
        if event in events and str(arguments[0]).startswith(project):
            count[0] += 1
            if count[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    work()
    counted.write_text(str(count[0]))


def kill(folder: Path) -> dict:
    """Kill each step at touches and at random times, and run it again: always the same bytes."""
    root = folder / "project"
    build(root)
    prepare(root, OLD)
    cache(root)  # in this process, for the time that it takes; later ones run in children
    found = {}
    for name, step, older in (
        ("mixtures", prepare, lambda: prepare(root, OLD)),
        ("cache", cache, lambda: cache(root, "float32")),
    ):
        found[name] = _kill_step(folder, root, name, step, older)
    return found


def _kill_step(folder: Path, root: Path, name: str, step: Callable, older: Callable) -> dict:
    target = root / "data/own" / name
    assert in_child(older) == 0
    old, kept = digests(target), folder / f"old-{name}"
    shutil.copytree(target, kept)
    began = time.monotonic()
    assert in_child(lambda: step(root)) == 0
    seconds = time.monotonic() - began
    assert in_child(lambda: touching(root, lambda: step(root), 0, folder / "count")) == 0
    touches = int((folder / "count").read_text())
    new = digests(target)
    assert new != old
    chance = random.Random(name)
    plans = [(at, None) for at in range(1, touches + 1)]
    if not ALL:
        plans = chance.sample(plans[:-1], 4) + plans[-1:]
    plans += [(0, chance.uniform(0.02, 0.6) * seconds) for _ in range(20 if ALL else 3)]
    wrong, killed, between = [], 0, 0
    for number, (at, after) in enumerate(plans):
        shutil.rmtree(target)
        if number % 2:  # an old version is there, or nothing
            shutil.copytree(kept, target)
        code = in_child(lambda at=at: touching(root, lambda: step(root), at, folder / "count"), after)
        killed += code == -signal.SIGKILL
        state = digests(target) if target.exists() else None
        between += state is None and number % 2
        if state not in (None, old, new) or (state == old and not number % 2):
            wrong.append(f"half-written after {at or after}")
        if in_child(lambda: step(root)) != 0:
            wrong.append(f"not repeatable after {at or after}")
        if digests(target) != new:
            wrong.append(f"other bytes after {at or after}")
        left = sorted(path.name for path in target.parent.iterdir() if ".partial" in path.name)
        if left:
            wrong.append(f"{left} left after {at or after}")
    planned = sum(at > 0 for at, _ in plans)
    return {"touches": planned, "killed": killed, "between": between, "wrong": wrong}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: storage.sha256_file(path) for path in sorted(folder.iterdir())}


# ---------------------------------------------------------------------------------------------- full disk


def command(root: Path, *words: str) -> list:
    """[exit code, standard error] of a diffse command in a child that does not look at the free room first."""
    reader, writer = os.pipe()

    def work() -> None:
        stft_cache._check_disk = lambda *_: None  # as if another program took the room meanwhile
        with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
            code = cli.main([*words, "--params", str(root / "params.yaml")])
        os.write(writer, errors.getvalue().encode()[-60_000:])
        os._exit(code)

    code = in_child(work)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        return [code, stream.read()]


def project(root: Path, sources: Path) -> None:
    (root / "sources").mkdir(parents=True)
    (root / "sources/own").symlink_to(sources / "sources/own")
    (root / "params.yaml").write_text(PARAMS)


def whole(folder: Path) -> tuple[Path, dict]:
    """A project that was made on a large disk: its folder, and artifact -> checksums."""
    build(folder / "given")
    root = folder / "whole"
    project(root, folder / "given")
    for verb in ("prepare", "cache"):  # in this process: what it imports, its children have
        assert cli.main([verb, "own", "--params", str(root / "params.yaml")]) == 0
    return root, {name: digests(root / "data/own" / name) for name in ("mixtures", "cache")}


def disk(folder: Path) -> dict:
    """Each step on disks that lack more and more of the room that it needs, then again on a larger one."""
    made, expected = whole(folder)
    found: dict[str, list] = {"mixtures": [], "cache": []}
    for name, verb in (("mixtures", "prepare"), ("cache", "cache")):
        with small_disk(folder, 50 << 20) as place:
            needed = _on(place, made, name, verb, expected[name])["used"]
        for lacking in (4096, 3 * 4096, 0.1, 0.4, 0.7, 0.97) if ALL else (3 * 4096, 0.4):
            room = needed - (lacking if lacking >= 1 else int(lacking * needed))
            with small_disk(folder, room) as place:
                found[name].append(_on(place, made, name, verb, expected[name]) | {"lacking": lacking})
    return found


@contextlib.contextmanager
def small_disk(folder: Path, room: int) -> Iterator[Path]:
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _on(place: Path, made: Path, name: str, verb: str, expected: dict) -> dict:
    root = place / "project"
    project(root, made.parent / "given")
    (root / "data/own").mkdir(parents=True)
    if verb == "cache":
        (root / "data/own/mixtures").symlink_to(made / "data/own/mixtures")
    first = command(root, verb, "own")
    used = shutil.disk_usage(place).used
    left = sorted(path.name for path in (root / "data/own").iterdir())
    subprocess.run(["mount", "-o", "remount,size=50M", place], check=True)
    again = command(root, verb, "own")
    same = digests(root / "data/own" / name) == expected
    return {"first": first, "left": left, "again": again, "same": same, "used": used}


def limit(folder: Path) -> dict:
    """Each step where no file may grow beyond some size."""
    made, expected = whole(folder)
    found: dict[str, list] = {"mixtures": [], "cache": []}
    for name, verb in (("mixtures", "prepare"), ("cache", "cache")):
        largest = max(path.stat().st_size for path in (made / "data/own" / name).iterdir())
        for share in (0.01, 0.3, 0.9, 0.999) if ALL else (0.3, 0.999):
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            shutil.rmtree(made / "data/own" / name)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * largest), before[1]))
            first = command(made, verb, "own")
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            left = sorted(path.name for path in (made / "data/own").iterdir())
            again = command(made, verb, "own")
            same = digests(made / "data/own" / name) == expected[name]
            found[name].append({"share": share, "first": first, "left": left, "again": again, "same": same})
    return found


if __name__ == "__main__":
    kinds = {"kill": kill, "disk": disk, "limit": limit}
    outcome = {}
    for name, work in kinds.items():
        if name in sys.argv[2:]:
            (place := Path(sys.argv[1]) / name).mkdir()
            outcome[name] = work(place)
    print(json.dumps(outcome))
