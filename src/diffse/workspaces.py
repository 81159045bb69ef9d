"""The project folder of a pipeline's step: on a volume that all steps share, or a copy from an S3 prefix.

A workspace `s3://bucket/project` needs no shared volume. Each step fetches what it reads to a folder of its own
(below TMPDIR), and stores what it has made; a training stores its state while it runs. Two runs that make the
same thing at the same time are kept apart on a volume, by locks, and not here.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from diffse import objects, paths, run_places, steps
from diffse.settings_reader import Node, read_yaml

TRANSFERS = 8  # files at once
POLL_SECONDS = 1.0  # between two looks at a training's state
SETTINGS = "params.yaml"
Stamp = tuple[int, int]  # size and time of a file
_CONTINUED = ("check", "train", "sweep", "swap")  # verbs that read what they wrote the last time


@contextlib.contextmanager
def opened(workspace: str, arguments: Sequence[str], needs: Sequence[str] = ()) -> Iterator[Path]:
    """The project folder in which `diffse <arguments>` can run, for the duration of the block.

    `needs`: references of the inputs. When the block ends well, or the command is one that continues, what it
    has made is stored. Raises DiffseError when the store refuses or something does not arrive whole.
    """
    if not objects.is_url(workspace):
        yield Path(workspace)
        return
    with tempfile.TemporaryDirectory(prefix="diffse-", ignore_cleanup_errors=True) as folder:
        print(f"{workspace}: what this step reads is fetched to {folder}", file=sys.stderr, flush=True)
        copy = Copy(workspace, Path(folder))
        objects.download(objects.join(workspace, SETTINGS), copy.folder / SETTINGS)
        read, made = _places(list(arguments), needs)
        if arguments[0] in _CONTINUED:
            read += made
        named = _texts(read_yaml(copy.folder / SETTINGS))
        copy.fetch(lambda name: name in named or _wanted(name, read, arguments[0]))
        with _storing(copy, made, arguments[0]):
            yield copy.folder


def environment(workspace: str) -> dict[str, str]:
    """Variables of a command in this workspace: where its run records go."""
    if objects.is_url(workspace) and run_places.VARIABLE not in os.environ:
        return {**os.environ, run_places.VARIABLE: objects.join(workspace, "runs")}
    return dict(os.environ)


def words(workspace: str, arguments: Sequence[str]) -> list[str]:
    """The arguments of a command in this workspace: places of `diffse enhance IN OUT` that are on its store."""
    if not objects.is_url(workspace) or "--checkpoint" not in arguments:
        return list(arguments)
    verb, *places = arguments[:3]
    places = [p if objects.is_url(p) or p.startswith("/") else objects.join(workspace, p) for p in places]
    return [verb, *places, *arguments[3:]]


# ------------------------------------------------------------------------------------- what a step touches


def _texts(node: Node) -> set[str]:
    """All texts of the settings; some are files of the project, as the transcripts that `evaluate` reads."""
    value = node.value
    if isinstance(value, str):
        return {value.removeprefix("./")}
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(_texts, items))


def _wanted(name: str, read: list[Path], verb: str) -> bool:
    cached = name.startswith("data/") and "/cache/" in name
    if verb == "report" and (cached or name.endswith((".safetensors", ".pt"))):  # it trains and runs nothing
        return False
    return any(Path(name).is_relative_to(place) for place in read)


def _places(arguments: list[str], needs: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """(what the command reads, what it makes), relative to the project."""
    if "--checkpoint" in arguments:
        return [Path(arguments[arguments.index("--checkpoint") + 1])], []
    verb, *names = arguments
    step = steps.describe(verb, names)
    read = [Path(needed.partition("@")[0]) for needed in needs if needed]
    return read + _read_beside(verb, names, step), _made(step)


def _read_beside(verb: str, names: list[str], step: steps.Step) -> list[Path]:
    """What a step reads that no reference names."""
    if verb == "prepare":
        return [paths.source(steps.HERE, names[0])]
    if verb == "enhance" and steps.is_external(names[0]):
        return [paths.source(steps.HERE, "external") / names[0]]
    if verb == "report":
        return [Path(top) for top in ("results", "gates", "enhanced", "models", "data")]
    if verb != "check":
        return []
    judged = [step.artifact, paths.mixtures(steps.HERE, names[-1].rpartition(".")[2])]
    return [*judged, paths.model(steps.HERE, names[1])] if names[0] == "enhanced" else judged


def _made(step: steps.Step) -> list[Path]:
    if step.verb == "train":  # and what another training left there
        return [step.artifact.with_name(f"{step.artifact.name}.superseded"), step.artifact]
    if step.verb != "check":
        return [step.artifact]
    measured = [step.artifact.with_name(paths.MEASURES)] if step.names[0] == "mixtures" else []
    return [*step.writes, *measured]


# ------------------------------------------------------------------------------------------- the transfers


class Copy:
    """A folder with parts of the project at `url`; knows which of its files the store has."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url.rstrip("/"), folder
        self._stored: dict[str, Stamp] = {}  # name -> the file that the store has

    def fetch(self, wanted: Callable[[str], bool]) -> None:
        """Download every object whose name, relative to the project, is wanted."""
        names = [entry.url.removeprefix(f"{self.url}/") for entry in objects.listing(self.url)]

        def download(name: str) -> None:
            objects.download(objects.join(self.url, name), self.folder / name)
            self._stored[name] = _stamp(self.folder / name)

        _each(download, [name for name in names if wanted(name)])

    def store(self, places: Sequence[Path], last: str = "", *, live: bool = False) -> None:
        """Make the store hold what these places (files or folders) hold here.

        The file `last` is stored after all others, as it was before them. `live`: others are at work on the
        places, so files are copied before they are sent.
        """
        found = self._files(places)
        made = [place for place in places if (self.folder / place).exists()]
        gone = {name for place in made for name in self._names(place.as_posix())} - found.keys()
        with tempfile.TemporaryDirectory(prefix="diffse-store-") as folder:
            spare, first = Path(folder), Path(folder, "last")
            held = last in found and self._hold(last, first)
            changed = [n for n, stamp in found.items() if n != last and self._stored.get(n) != stamp]
            _each(lambda name: self._send(name, spare if live else None), changed)
            if live:  # a folder that is being replaced is away for a moment
                gone -= self._files(places).keys()
            _each(self._forget, gone - {last})
            if held and self._stored.get(last) != found[last]:
                objects.upload(first, objects.join(self.url, last))
                self._stored[last] = found[last]
            elif last in gone and not live:
                self._forget(last)

    def _hold(self, name: str, target: Path) -> bool:
        try:
            shutil.copyfile(self.folder / name, target)
        except FileNotFoundError:
            return False
        return True

    def _send(self, name: str, spare: Path | None) -> None:
        source, stamp = self.folder / name, _stamp(self.folder / name)
        if stamp is None:
            return
        if spare is not None:
            source = spare / name.replace("/", "%")
            if not self._hold(name, source):
                return
        objects.upload(source, objects.join(self.url, name))
        self._stored[name] = stamp
        if spare is not None:
            source.unlink()

    def _forget(self, name: str) -> None:
        objects.delete(objects.join(self.url, name))
        self._stored.pop(name, None)

    def _names(self, place: str) -> list[str]:
        """Names of the objects at or below a place."""
        url = objects.join(self.url, place)
        found = [entry.url for entry in objects.listing(url)]
        if not found and objects.exists(url):
            found = [url]
        return [one.removeprefix(f"{self.url}/") for one in found]

    def _files(self, places: Sequence[Path]) -> dict[str, Stamp]:
        """name -> stamp of the files here; what is not finished has a hidden name."""
        found = {}
        for path in (self.folder / place for place in places):
            files = (
                [path] if path.is_file() else [Path(top, f) for top, _, names in os.walk(path) for f in names]
            )
            for file in files:
                hidden = any(part.startswith(".") for part in file.relative_to(path.parent).parts)
                stamp = None if hidden else _stamp(file)
                if stamp is not None:
                    found[file.relative_to(self.folder).as_posix()] = stamp
        return found


def _stamp(path: Path) -> Stamp | None:
    """None when it is no file, or no more."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return (facts.st_size, facts.st_mtime_ns) if path.is_file() else None


def _each(work: Callable[[str], None], names: Sequence[str] | set[str]) -> None:
    with ThreadPoolExecutor(TRANSFERS) as pool:
        for _ in pool.map(work, sorted(names)):  # raises what a transfer raised
            pass


# -------------------------------------------------------------------------------------- when it is stored


@contextlib.contextmanager
def _storing(copy: Copy, made: list[Path], verb: str) -> Iterator[None]:
    """Store what the block makes; of a training, its state whenever there is a new one."""
    state = (made[-1] / paths.STATE).as_posix() if verb == "train" else ""
    ended = threading.Event()
    seen = _stamp(copy.folder / state)
    follower = threading.Thread(target=_follow, args=(copy, made, state, seen, ended), daemon=True)
    if state:
        follower.start()
    try:
        yield
    except BaseException:
        _end(follower, ended)
        if verb in _CONTINUED:
            copy.store(made, state)
        raise
    _end(follower, ended)
    copy.store(made, state)


def _end(follower: threading.Thread, ended: threading.Event) -> None:
    ended.set()
    if follower.is_alive():
        follower.join()


def _follow(copy: Copy, made: list[Path], state: str, seen: Stamp | None, ended: threading.Event) -> None:
    """Store the places whenever the state is another than `seen`, until the training has ended."""
    while not ended.wait(POLL_SECONDS):
        now = _stamp(copy.folder / state)
        if now is None or now == seen:
            continue
        try:
            copy.store(made, state, live=True)
            seen = now
        except Exception as error:  # the training goes on, and the next state is tried again
            print(f"{copy.url}: the state of the training was not stored: {error}", file=sys.stderr, flush=True)
