"""Pipelines compiled for tests, and what stands in them."""

import contextlib
import io
from pathlib import Path

import yaml

from pipelines import command_line, data, enhance, evaluate, full, lint, train

PIPELINES = {"full": full, "data": data, "train": train, "evaluate": evaluate, "enhance": enhance}


def compile_here(folder: Path, pipeline: str = "full", *options: str, name: str = "compiled.yaml") -> str:
    """Text of a pipeline of the project in `folder`, compiled in this process."""
    target = folder / "compiled" / name
    target.unlink(missing_ok=True)
    words = ["--compile", str(target), "--params", str(folder / "params.yaml"), *options]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = command_line.main(PIPELINES[pipeline].PIPELINE, words)
    assert code == 0, errors.getvalue()
    return target.read_text()


def documents_of(text: str) -> list[dict]:
    return list(yaml.load_all(text, yaml.CSafeLoader))


def tasks(documents: list[dict]) -> dict[str, lint.Task]:
    """Command without the leading 'diffse' -> task, of the steps (all but the exit handler)."""
    found = [task for task in lint.tasks(documents) if task.component != "conclude"]
    return {task.spec["taskInfo"]["name"]: task for task in found}
