"""docs/differences.md says what is: its settings are accepted, its tests exist."""

import ast
import functools
from pathlib import Path

import pytest
import yaml

from diffse import settings
from diffse.settings_reader import from_plain

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "differences.md"


def lines() -> list[list[str]]:
    """Cells of each line of the table."""
    table = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


@functools.cache
def existing_tests() -> set[str]:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").glob("test_*.py"))
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("cells", lines(), ids=lambda cells: cells[0])
def test_every_line_has_a_setting_that_is_accepted(cells):
    written = yaml.safe_load(cells[4].strip("`"))
    assert len(cells) == 6
    block, where = ("cache", settings.Stft) if "cache" in written else (None, settings.Train)
    if block:
        written = written[block]
    elif written.keys() & {"sampler", "padding"}:
        where = settings.Enhance
    assert written
    from_plain(where, written, str(PAGE))


@pytest.mark.parametrize("cells", lines(), ids=lambda cells: cells[0])
def test_every_line_has_tests_that_exist(cells):
    named = {name.strip() for name in cells[5].split(",")}
    assert named <= existing_tests()
