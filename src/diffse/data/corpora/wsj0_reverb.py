"""Corpus `wsj0_reverb`: read newspaper text of WSJ0 in simulated rooms (SGMSE+, StoRM).

The room of a row is simulated when the row is made, so that nothing but WSJ0 is needed. SGMSE+ brings the
reverberant signal to a peak of 0.9 and scales the target with it; StoRM leaves the level alone (`rooms.level`).
"""

from pathlib import Path

from diffse.data.corpora import wsj0
from diffse.data.corpora.facts import Facts
from diffse.data.parallel import Workers
from diffse.data.recordings import Recordings
from diffse.settings_corpora import Wsj0Reverb

T60_MEASURED = 0.91  # s, mean that StoRM reports
DRR_DB = -9.0  # dB, mean that StoRM reports, as the energy ratio of dry and reverberant signal


def facts(settings: Wsj0Reverb) -> Facts:
    """One licensed part; counts of WSJ0's speaker-independent sets."""
    return Facts("WSJ0+Reverb", (wsj0.PART,), wsj0.EXPECTED, "SGMSE+, StoRM")


def missing(settings: Wsj0Reverb, source: Path) -> list[str]:
    """What the source folder lacks."""
    return wsj0.missing(source)


def find(settings: Wsj0Reverb, source: Path, workspace: Path, workers: Workers) -> Recordings:
    """List the speech with its splits."""
    speech, rejected = wsj0.find(source, settings.microphone)
    return Recordings(speech, rejected=rejected)
