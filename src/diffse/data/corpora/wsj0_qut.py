"""Corpus `wsj0_qut`: read newspaper text of WSJ0 in the noise of QUT-NOISE (SGMSE+, UDiffSE, weighted loss)."""

from pathlib import Path

from diffse.data.corpora import qut, wsj0
from diffse.data.corpora.facts import Facts
from diffse.data.parallel import Workers
from diffse.data.recordings import Recordings
from diffse.settings_corpora import Wsj0Qut


def facts(settings: Wsj0Qut) -> Facts:
    """A licensed and a free part; counts of WSJ0's speaker-independent sets."""
    return Facts("WSJ0+QUT", (wsj0.PART, qut.PART), wsj0.EXPECTED, "SGMSE+, UDiffSE, weighted loss")


def missing(settings: Wsj0Qut, source: Path) -> list[str]:
    """What the source folder lacks."""
    return wsj0.missing(source) + qut.missing(source, settings.noises)


def find(settings: Wsj0Qut, source: Path, workspace: Path, workers: Workers) -> Recordings:
    """List speech and noise with their splits."""
    speech, rejected = wsj0.find(source, settings.microphone)
    return Recordings(speech, qut.find(source, settings.noises, settings.car_ends), rejected=rejected)
