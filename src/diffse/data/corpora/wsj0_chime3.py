"""Corpus `wsj0_chime3`: read newspaper text of WSJ0 in the noise of CHiME-3 (SGMSE+, StoRM)."""

from pathlib import Path

from diffse.data.corpora import chime3, wsj0
from diffse.data.corpora.facts import Facts
from diffse.data.parallel import Workers
from diffse.data.recordings import Recordings
from diffse.settings_corpora import Wsj0Chime3


def facts(settings: Wsj0Chime3) -> Facts:
    """Two licensed parts; counts of WSJ0's speaker-independent sets."""
    return Facts("WSJ0+CHiME3", (wsj0.PART, chime3.PART), wsj0.EXPECTED, "SGMSE+, StoRM")


def missing(settings: Wsj0Chime3, source: Path) -> list[str]:
    """What the source folder lacks."""
    return wsj0.missing(source) + chime3.missing(source, settings.channel, settings.noises)


def find(settings: Wsj0Chime3, source: Path, workspace: Path, workers: Workers) -> Recordings:
    """List speech and noise with their splits."""
    speech, rejected = wsj0.find(source, settings.microphone)
    return Recordings(speech, chime3.find(source, settings.channel, settings.noises), rejected=rejected)
