"""Results of listening tests, as `diffse listen import` wrote them."""

from pathlib import Path
from typing import Any

from diffse import paths, storage
from diffse.errors import DiffseError

_FACTS = ("name", "corpus", "listeners", "trials", "confidence", "conditions", "pairs", "left_out")


def load(root: Path, corpora: tuple[str, ...]) -> list[dict[str, Any]]:
    """Summaries of the tests on `corpora`, by name; DiffseError when one is damaged."""
    files = sorted(paths.listening(root, "x").parent.glob("*/summary.json"))
    found = [(path, storage.read_json(path)) for path in files]
    for path, summary in found:
        if not isinstance(summary, dict) or any(name not in summary for name in _FACTS):
            raise DiffseError(f"{path}: not complete; delete its folder and import the ratings again")
    return [summary for _, summary in found if summary["corpus"] in corpora]
