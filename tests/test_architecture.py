"""Imports point one way, and heavy packages load only where they are needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "diffse"

# A group is a package or a module with what was split from it. Each may import itself and what stands here.
GROUPS = {
    "costs": "enhancer",
    "enhance_corpus": "enhancer",
    "enhance_files": "enhancer",
    "enhance_places": "enhancer",
    "cards": "cli",
    "commands": "cli",
    "dvc_remotes": "objects",
    "endings": "cli",
    "handover": "cli",
    "multistep": "samplers",
    "presets": "settings",
    "proximal": "posterior",
    "run_log": "runs",
    "run_places": "runs",
    "run_process": "runs",
    "run_records": "runs",
    "reproduction": "cli",
    "settings_checks": "settings",
    "settings_corpora": "settings",
    "settings_evaluation": "settings",
    "settings_gates": "settings",
    "settings_networks": "settings",
    "settings_samplers": "settings",
    "settings_systems": "settings",
    "swapping": "sweeping",
    "training_inputs": "training",
    "training_log": "training",
    "trials": "sweeping",
    "validating": "training",
    "workspaces": "cli",
    "__main__": "cli",
}
FILES = {"errors", "storage", "objects", "paths", "progress"}
ALLOWED: dict[str, set[str]] = {
    # leaves
    "errors": set(),
    "paths": {"errors"},
    "progress": set(),
    "storage": {"errors"},
    "objects": {"errors", "storage"},
    "settings_limits": set(),
    "settings_reader": {"errors", "settings_limits"},
    "settings": {"errors", "settings_reader"},
    "sphere": set(),
    "audio": {"errors", "storage", "sphere"},
    "spectrogram": {"errors"},
    "chunking": {"errors"},
    "pages": set(),
    "precision": {"errors"},
    "ema": {"errors"},
    "posthoc": {"errors", "storage", "ema"},
    "nmf": {"errors"},
    "external_program": {"errors"},
    "unpickling": {"errors"},
    "distributed": {"errors"},
    "winograd": set(),
    "networks": {"errors", "winograd"},  # know no process
    "compiling": {"errors", "networks"},
    "processes": {"errors"},  # know no network
    "checkpoint": {"errors", "storage"},
    # the mathematics knows neither configuration nor files
    "samplers": {"errors", "processes"},
    "perceptual": {"errors"},
    "objectives": {"errors", "processes", "spectrogram", "perceptual"},
    "prediction": {"errors", "spectrogram", "objectives"},
    "edm2se": {"errors", "processes", "spectrogram", "objectives"},
    "regeneration": {"errors", "processes", "objectives"},
    "posterior": {"errors", "processes", "samplers", "nmf"},
    "variational": {"errors", "spectrogram", "objectives", "nmf"},
    "recipes": {"settings", "settings_reader", "spectrogram", "networks", "processes", "objectives", "samplers"}
    | {"prediction", "edm2se", "regeneration", "posterior", "variational"}
    | {"errors", "checkpoint", "ema", "posthoc"},
    "importers": FILES
    | {"settings", "settings_reader", "recipes", "networks", "checkpoint", "regeneration", "unpickling"},
    # data never imports models
    "data": FILES | {"settings", "audio", "spectrogram"},
    "metrics": FILES | {"settings", "audio", "data", "external_program", "unpickling"},
    "validation": FILES | {"settings", "settings_reader", "audio", "spectrogram", "data", "metrics"},
    "report": FILES | {"settings", "settings_reader", "audio", "spectrogram", "data", "metrics"},
    "listening_test": FILES | {"settings", "audio", "metrics", "report"},
    "enhancer": FILES
    | {"settings", "settings_reader", "audio", "spectrogram", "chunking", "data", "recipes", "checkpoint"}
    | {"pages", "precision", "compiling", "winograd"},
    "training": FILES
    | {"settings", "settings_reader", "spectrogram", "data", "metrics", "enhancer", "recipes", "checkpoint"}
    | {"ema", "posthoc", "distributed", "runs", "pages", "precision", "networks", "compiling"},
    "external": FILES | {"settings", "settings_reader", "audio", "data", "external_program"},
    "sweeping": FILES
    | {"settings", "settings_reader", "data", "metrics", "enhancer", "recipes", "report"}
    | {"checkpoint", "posthoc", "pages"},
    "versions": {"errors", "storage"},
    "steps": FILES | {"settings"},
    "runs": FILES,
    "cli": FILES
    | {"settings", "steps", "runs", "data", "metrics", "validation", "report", "enhancer", "training"}
    | {"external", "sweeping", "importers", "dashboard", "versions", "listening_test", "settings_reader"},
    "dashboard": FILES | {"settings", "steps", "runs", "report", "metrics", "data", "audio"},
}  # fmt: skip

# Packages that only these modules may import.
ONLY_IN = {
    "great_expectations": {"validation"},
    "streamlit": {"dashboard"},
    "boto3": {"objects"},
    "botocore": {"objects"},
    "kfp": {"dashboard"},
    "dvc": {"dashboard", "versions"},
    "dvclive": {"training"},
    "soundfile": {"audio", "data", "enhancer"},  # shards and long files are read and written in blocks
    "soxr": {"audio"},
    "desphere": {"sphere"},
    "pesq": {"metrics"},
    "pystoi": set(),  # tests compare with it
    "onnxruntime": {"metrics"},
    "matplotlib": {"report"},
    "espeakng_loader": {"data"},
    "pyroomacoustics": {"data"},
    "pyloudnorm": {"data", "report"},
    "torchaudio": {"networks", "metrics"},
    "jiwer": {"metrics"},
    "torch_pesq": {"perceptual"},
}

EXTRAS = {
    "pandas",
    "pyarrow",
    "pesq",
    "pystoi",
    "onnxruntime",
    "speechmos",
    "torchaudio",
    "torch_pesq",
    "desphere",
    "jiwer",
    "dvclive",
}
EXTRAS |= {"great_expectations", "matplotlib", "jinja2", "kfp", "dvc", "boto3", "streamlit", "espeakng_loader"}
EXTRAS |= {"pyroomacoustics", "pyloudnorm", "botocore"}


def imports(file: Path) -> list[tuple[str, bool]]:
    """(dotted name, whether it is imported when the module is) of every import in a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    outermost = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in outermost) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(name, id(node) in outermost) for name in names]
    return found


def modules() -> dict[str, list[tuple[str, bool]]]:
    files = sorted(SOURCE.rglob("*.py"))
    return {file.relative_to(SOURCE).with_suffix("").as_posix(): imports(file) for file in files}


def group(module: str) -> str:
    first = module.split("/")[0]
    return GROUPS.get(first, first)


def test_imports_point_one_way():
    wrong = []
    for module, names in modules().items():
        for name in (name for name, _ in names if name.startswith("diffse.")):
            part = name.split(".")[1]
            target = GROUPS.get(part, part)
            if target not in ALLOWED or target == group(module):  # a name of diffse/__init__.py, or itself
                continue
            if target not in ALLOWED[group(module)]:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_every_module_has_its_place():
    assert {group(module) for module in modules()} - {"__init__"} <= set(ALLOWED)


def test_the_table_has_no_cycle():
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {name for name, needs in ALLOWED.items() if name not in done and needs <= done}
        assert ready, f"cycle among {set(ALLOWED) - done}"
        done |= ready


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package):
    for module, names in modules().items():
        for name, _ in names:
            if name.split(".")[0] == package:
                assert group(module) in ONLY_IN[package], module


PAGES = ("dashboard/app", "dashboard/charts", "dashboard/views/")  # only Streamlit loads them


def test_services_are_imported_inside_functions():
    """These cost seconds to import or are extras that enhancing audio does not need."""
    for module, names in modules().items():
        if module.startswith(PAGES):
            continue
        for name, at_import in names:
            assert not (at_import and name.split(".")[0] in EXTRAS), (module, name)


def loaded_by(code: str) -> set[str]:
    """Top-level packages in memory after `code`."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["enhance", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments):
    code = f"from diffse import cli\ntry: cli.main({arguments})\nexcept SystemExit: pass"
    assert not loaded_by(code) & (EXTRAS | {"numpy", "torch", "scipy", "soundfile", "yaml"})


def test_enhancing_needs_only_the_slim_install():
    """`pip install .` without extras is enough for `diffse enhance` and `Enhancer`."""
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import diffse.enhancer, diffse.enhance_files
"""
    assert "torch" in loaded_by(code)
