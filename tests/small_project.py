"""A project in small for tests of the runners: the real dvc.yaml and command line, but steps of no work.

`diffse` runs as it is, with its parsing, checks, references and run records; only the functions behind the
verbs are replaced (by `sitecustomize` on PYTHONPATH, which every Python process reads when it starts). What a
replaced step writes depends on its settings and inputs alone, as with the real ones, so that a change runs
through the chain.
"""

import hashlib
import importlib.abc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]

PARAMS = {
    "corpora": ["near", "far"],
    "train_corpora": ["near"],
    "recipes": ["score", "bridge"],
    "prepare": {"near": {"kind": "folder", "seed": 1}, "far": {"kind": "folder", "seed": 1}},
    "check": {"mixtures": {}, "cache": {}, "checkpoint": {}, "enhanced": {}, "metrics": {}},
    "cache": {"n_fft": 510},
    "train": {
        "score": {"steps": 10},
        "bridge": {"steps": 10, "process": {"name": "sbve"}, "objective": {"name": "data_prediction"}},
    },
    "enhance": {
        "score": {"sampler": {"name": "pc", "steps": 30}},
        "bridge": {"sampler": {"name": "bridge_ode", "steps": 50}},
    },
    "externals": [],
    "sweeps": {},
    "swaps": {},
    "evaluate": {"bootstrap": 100},
    "report": {"title": "small"},
}
# What `params.yaml` says with one of everything beside the trained systems.
MORE = {
    "externals": ["theirs"],
    "external": {"theirs": {"folder": "sources/external/theirs"}},
    "sweeps": {"fine": {"system": "score.near", "corpus": "near", "values": [1, 2, 3]}},
    "swaps": {"other": {"system": "score.near", "predictor": "bridge.near", "corpus": "near"}},
}


def create(folder: Path) -> Path:
    """Lay out the project in `folder`, outside git."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(PROJECT / name, folder)
    (folder / ".dvc").mkdir()
    shutil.copy(PROJECT / ".dvc" / "config", folder / ".dvc")
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    for corpus in PARAMS["corpora"]:
        (folder / "sources" / corpus).mkdir(parents=True)
        (folder / "sources" / corpus / "speech.txt").write_text(corpus)
    (folder / "sources" / "external" / "theirs").mkdir(parents=True)
    (folder / "sources" / "external" / "theirs" / "speech.txt").write_text("theirs")
    write_params(folder, PARAMS)
    return folder


def write_params(folder: Path, params: dict) -> None:
    (folder / "params.yaml").write_text(json.dumps(params, indent=1))  # JSON is YAML


def environment(folder: Path) -> dict[str, str]:
    """Environment in which `diffse` has steps of no work."""
    hook = folder / ".hook"
    hook.mkdir(exist_ok=True)
    tests = str(PROJECT / "tests")
    lines = ("import sys", f"sys.path.append({tests!r})", "import small_project", "small_project.install()")
    (hook / "sitecustomize.py").write_text("\n".join(lines))
    paths = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(hook), str(PROJECT / "src"))), "PATH": paths}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess:
    """Run a command in the project."""
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)


def records(folder: Path) -> list[dict]:
    """Run records, oldest first."""
    return [json.loads(file.read_text()) for file in sorted((folder / "runs").glob("*.json"))]


# ------------------------------------------------------------------------------------ inside the steps

ENTRIES = {
    "diffse.data.prepare": "prepare",
    "diffse.validation.gate": "check",
    "diffse.data.stft_cache": "cache",
    "diffse.data.statistics": "estimate",
    "diffse.training": "train",
    "diffse.enhancer": "enhance",
    "diffse.external": "enhance",
    "diffse.metrics.evaluate": "evaluate",
    "diffse.sweeping": "sweep",
    "diffse.swapping": "swap",
    "diffse.report.build": "report",
}


class _Entries(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name in ENTRIES else None

    def exec_module(self, module):
        verb = ENTRIES[module.__name__]
        module.run = lambda params, *rest: _no_work(verb, params, *rest)


def install() -> None:
    """Put the steps of no work in place of the real ones, in this process."""
    sys.meta_path.insert(0, _Entries())


def _no_work(verb: str, params, *rest) -> dict:
    from diffse import paths, steps
    from diffse.errors import GateFailed

    *names, root = rest
    names = [names[0], *names[1]] if verb == "check" else names
    step = steps.describe(verb, names)
    read = steps.settings_read(step, params)
    passed = verb != "check" or read[step.settings[0]].get("min_seconds", 0) < 100
    text = json.dumps({"read": read, "inputs": _inputs(step, params, paths, root)})
    content = {"success": passed, "rules": [], "read": read} if verb == "check" else {"made": _sha(text)}
    for location in step.writes:
        file = (
            root / location if location.suffix in (".json", ".csv", ".html") else root / location / "made.json"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    if not passed:
        raise GateFailed(
            f"{step.artifact}: duration: 3 utterances below {read[step.settings[0]]['min_seconds']} s"
        )
    return {"made": len(step.writes)}


def _inputs(step, params, paths, root: Path) -> list[str]:
    def made_by(system: str) -> Path:
        model = paths.model(root, system)
        return root / "sources" / "external" / system if system in params.external else model

    corpus = step.names[-1].rpartition(".")[2] if step.names else ""  # of sweeps and swaps their own name
    folders = {
        "prepare": lambda: [paths.source(root, corpus)],
        "check": lambda: [],
        "cache": lambda: [paths.mixtures(root, corpus)],
        "estimate": lambda: [paths.cache(root, corpus)],
        "train": lambda: [root / "data" / corpus],
        "enhance": lambda: [made_by(step.names[0]), paths.mixtures(root, corpus)],
        "evaluate": lambda: [paths.mixtures(root, corpus), paths.enhanced(root, *step.names)],
        "sweep": lambda: [paths.model(root, params.sweeps[corpus].system)],
        "swap": lambda: [paths.model(root, getattr(params.swaps[corpus], k)) for k in ("system", "predictor")],
        "report": lambda: [root / "results"],
    }[step.verb]()
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    return [_sha(file.read_text()) for file in files]


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
