"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden numbers; tests that need it are skipped where it is absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the golden numbers (../shared/golden) are not here")
    return folder


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Folder of real recordings; tests that need it are skipped where it is absent."""
    folder = SHARED / "corpus"
    if not folder.is_dir():
        pytest.skip("the real recordings (../shared/corpus) are not here")
    return folder
