"""Corpus `timit_chime3`: TIMIT's sentences, with their transcripts, in the noise of CHiME-3 (StoRM)."""

from pathlib import Path

from diffse.data.corpora import chime3, timit
from diffse.data.corpora.facts import Facts
from diffse.data.parallel import Workers
from diffse.data.recordings import Recordings
from diffse.settings_corpora import TimitChime3


def facts(settings: TimitChime3) -> Facts:
    """Two licensed parts; counts without the two sentences that every speaker reads."""
    return Facts("TIMIT+CHiME3", (timit.PART, chime3.PART), timit.EXPECTED, "StoRM")


def missing(settings: TimitChime3, source: Path) -> list[str]:
    """What the source folder lacks."""
    return timit.missing(source) + chime3.missing(source, settings.channel, settings.noises)


def find(settings: TimitChime3, source: Path, workspace: Path, workers: Workers) -> Recordings:
    """List speech and noise with their splits."""
    return Recordings(timit.find(source), chime3.find(source, settings.channel, settings.noises))
