"""The inside of a Kubeflow component: one call of the command line, and what it made as artifacts.

kfp's artifacts are known here by their attributes alone (`path`, `metadata`, `log_metric`): diffse does not
import kfp. What a component writes as an artifact is a description of a few kilobytes; the data stays in the
workspace, and its reference says where and which version.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffse import objects, workspaces
from diffse.errors import DiffseError

PROCESSES = "DIFFSE_PROCESSES"  # how many a training is divided among; set for steps with several GPUs
_REFERENCE = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")


def run(
    arguments: list[str],
    workspace: str,
    settings: str = "",
    needs: Sequence[str] = (),
    reference: str = "",
    *,
    product: Any = None,
    numbers: Any = None,
    text: Any = None,
    page: Any = None,
) -> None:
    """Run `diffse <arguments>` in the workspace and describe its product in the artifacts that are given.

    `workspace`: the project folder on a volume, or `s3://bucket/project` (`diffse.workspaces`).
    `needs` are references of the inputs ("": one that nobody has made yet, which is not compared), `reference`
    is the file for that of the product ("": the step is none of the chain and has no settings). `product`
    (Dataset or Model), `numbers` (Metrics) and `text` (Markdown) become small files, `page` (HTML) the report.
    Exits with the command's code if it fails; DiffseError if something promised is not there then.
    """
    options = [part for needed in needs if needed for part in ("--needs", needed)]
    if reference:
        options += ["--settings", settings, "--write-reference", reference]
    if page is not None:
        options += ["--page", page.path]
    with (
        _one_line(),
        workspaces.opened(workspace, arguments, needs) as root,
        tempfile.TemporaryDirectory() as folder,
    ):
        card = Path(folder) / "card.json"
        words = [*launcher(arguments[0]), *workspaces.words(workspace, arguments)]
        words += ["--params", root / "params.yaml", *options, "--write-card", card]
        code = subprocess.run(words, cwd=root, env=workspaces.environment(workspace)).returncode
        if code:
            raise SystemExit(code)
        facts = json.loads(card.read_text(encoding="utf-8"))
    _describe(facts, product, numbers, text, page)
    _check_written(facts["command"], reference, [a for a in (product, numbers, text, page) if a is not None])


def conclude(workspace: str, pipeline: str, state: str, message: str, text: Any) -> None:
    """Run `diffse conclude` in the workspace, whose Markdown goes to the artifact `text`."""
    root = "." if objects.is_url(workspace) else workspace
    command = [*launcher("conclude"), "conclude", pipeline, "--params", f"{root}/params.yaml"]
    command += ["--state", state, f"--message={message}", "--write-text", text.path]
    subprocess.run(command, check=True, env=workspaces.environment(workspace))


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """A workspace that cannot be fetched or stored ends the step as any other mistake ends the command."""
    try:
        yield
    except DiffseError as error:
        print(f"diffse: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def launcher(verb: str) -> list[str]:
    """How `diffse` is started: under torchrun where a training is to run in several processes."""
    count = int(os.environ.get(PROCESSES, "1"))
    if verb != "train" or count == 1:
        return [sys.executable, "-m", "diffse"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return [*torchrun, "-m", "diffse"]


def _describe(facts: dict[str, Any], product: Any, numbers: Any, text: Any, page: Any) -> None:
    for artifact in (product, numbers, text, page):
        if artifact is not None:
            artifact.metadata.update({key: facts[key] for key in ("reference", "location", "checksum")})
    if product is not None:
        product.metadata.update(facts["numbers"])
        _write(product.path, json.dumps(facts, indent=2))
    if numbers is not None:
        for name, value in facts["numbers"].items():
            numbers.log_metric(name, value)
        _write(numbers.path, json.dumps(facts["numbers"], indent=2))
    if text is not None:
        _write(text.path, facts["text"])


def _write(path: str, content: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content, encoding="utf-8")


def _check_written(command: str, reference: str, artifacts: list[Any]) -> None:
    """kfp does not notice an output that was not written; the next step would."""
    written = Path(reference).read_text(encoding="utf-8") if Path(reference).is_file() else ""
    if reference and not _REFERENCE.fullmatch(written):
        raise DiffseError(f"'{command}' ended without the reference of what it made; please report this")
    for artifact in artifacts:
        if not Path(artifact.path).is_file() or not Path(artifact.path).stat().st_size:
            raise DiffseError(f"'{command}' did not write {artifact.path}; please report this")
