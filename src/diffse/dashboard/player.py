"""Signals side by side: one player that switches between them at the same position and loudness."""

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffse import paths
from diffse.data import manifest, shards
from diffse.errors import DiffseError

if TYPE_CHECKING:
    import numpy as np

MAX_SECONDS = 12.0  # of each signal in the page
_SHARD = re.compile(r"shard-\d{5}\.flac")
_ROW, _FRAME = 96, 108  # pixels of a signal and of what is around them


@dataclass(frozen=True)
class Signal:
    """One thing to hear. `wave`: [samples]; `note`: for example its scores."""

    name: str
    wave: "np.ndarray"
    note: str = ""


def page(signals: list[Signal], rate: int, theme: str = "light", note: str = "") -> tuple[str, int]:
    """(sandboxed HTML, height in pixels) of a player of signals of one rate (Hz), played at one loudness."""
    from diffse.report import listening

    samples = min(min(len(signal.wave) for signal in signals), round(MAX_SECONDS * rate))
    waves = [signal.wave[:samples] for signal in signals]
    images = listening.spectrogram_images(waves, rate)
    content = []
    for signal, (wave, level), image in zip(signals, listening.matched(waves, rate), images, strict=True):
        audio = listening.flac_uri(wave, rate).partition(",")[2]
        content.append(
            {"name": signal.name, "note": signal.note, "level": level, "audio": audio, "image": image}
        )
    return _filled(content, samples / rate, theme, note), _FRAME + _ROW * len(signals)


def _filled(content: list[dict[str, str]], seconds: float, theme: str, note: str) -> str:
    template = Path(__file__).with_name("player.html").read_text("utf-8")
    values = {
        "theme": "dark" if theme == "dark" else "light",
        "note": html.escape(note),
        "seconds": json.dumps(seconds),
        "signals": json.dumps(content).replace("<", "\\u003c"),  # no text can end the script
    }
    for name, value in values.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


def sandboxed(page_html: str, height: int) -> str:
    """HTML in a frame that has no access to the dashboard: neither its cookies nor its pages."""
    return (
        "<style>html, body { margin: 0; overflow: hidden; } iframe { display: block; border: 0; }</style>"
        f'<iframe sandbox="allow-scripts" title="content" width="100%" height="{height}" '
        f'srcdoc="{html.escape(page_html)}"></iframe>'
    )


# -------------------------------------------------------------------------------- utterances of a project


def utterances(root: Path, corpus: str) -> Any:
    """Manifest rows of the test split, indexed by id. DiffseError: they are not here."""
    frame = manifest.read(paths.mixtures(root, corpus))
    return frame[frame["split"] == "test"].set_index("id", drop=False)


def signals_of(root: Path, corpus: str, row: Any, systems: list[str], notes: dict[str, str]) -> list[Signal]:
    """Noisy, clean and each system's signal of an utterance; a system that lacks it is left out."""
    folder = paths.mixtures(root, corpus)
    clean, noisy = shards.read_pair(folder, _checked(row, folder))
    found = [Signal("noisy", noisy, notes.get(paths.UNPROCESSED, "")), Signal("clean", clean)]
    for system in systems:
        wave = _enhanced(paths.enhanced(root, system, corpus), str(row["id"]))
        if wave is not None:
            found.append(Signal(system, wave, notes.get(system, "")))
    return found


def _enhanced(folder: Path, name: str) -> "np.ndarray | None":
    try:
        frame = manifest.read(folder, manifest.ENHANCED_COLUMNS).set_index("id", drop=False)
    except DiffseError:
        return None
    if name not in frame.index:
        return None
    row = _checked(frame.loc[name], folder)
    return shards.read_item(folder, row["shard"], row["position"], row["n_samples"])[0] / row["gain"]


def _checked(row: Any, folder: Path) -> dict[str, Any]:
    """The row as a mapping; DiffseError where it names a file that is no shard of the folder."""
    if not _SHARD.fullmatch(str(row["shard"])):
        raise DiffseError(f"{folder / manifest.FILE}: '{str(row['shard'])[:60]}' is no shard; prepare it again")
    return dict(row)
