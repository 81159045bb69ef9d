"""What systems are called in the report."""

from diffse import paths

UNPROCESSED_LABEL = "unprocessed input"


def label(system: str) -> str:
    """What a system is called in tables."""
    return UNPROCESSED_LABEL if system == paths.UNPROCESSED else system
