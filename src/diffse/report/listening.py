"""What can be heard and seen: chosen files as players at matched loudness, with spectrograms."""

import base64
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffse import audio, paths
from diffse.data import shards
from diffse.report import figures, loudness
from diffse.report.artifacts import Enhanced, Project, Scores
from diffse.report.compare import HEAD, metric, number, signed

BUDGET_BYTES = 16_000_000  # of 16-bit samples in base64 on the whole page; longer excerpts are cut to fit
_WINDOW_SECONDS = 0.032
_COLUMNS = 320  # of a spectrogram image
_LEVELS = 48  # colours of a spectrogram image
RANGE_DB = 80.0  # shown, down from the loudest bin of a file's signals
COLOUR_MAP = "magma"


@dataclass(frozen=True)
class Signal:
    """One player with its spectrogram. `audio` is a data URI."""

    name: str
    audio: str
    spectrogram: figures.Chart
    level: str  # how much louder or softer than the recording it is played
    scores: tuple[str, ...]  # one text per metric of HEAD


@dataclass(frozen=True)
class ListenFile:
    """One chosen utterance."""

    id: str
    why: str
    facts: str
    seconds: float
    whole_seconds: float
    signals: tuple[Signal, ...]


@dataclass(frozen=True)
class Ranking:
    """Files of a corpus from worst to best: (value, id), and in words what the value is."""

    rule: str
    metric: str  # "" when the order is only that of the names
    change: bool  # the value is a difference to the input
    files: tuple[tuple[float, str], ...]


# ---------------------------------------------------------------------------------------------- choice


def rank(project: Project, corpus: str) -> Ranking:
    """Files by how much the best system improves them.

    Best: highest mean of the first metric of HEAD that there is. Without an enhanced system the input's own
    scores rank the files; without any score their names do.
    """
    unprocessed = project.scores.get((paths.UNPROCESSED, corpus))
    systems = [scores for scores in project.evaluated(corpus) if scores is not unprocessed]
    for name in HEAD:
        if unprocessed is None or name not in unprocessed.table:
            continue
        before, best = unprocessed.table[name], _best(systems, name)
        values = before if best is None else best.table[name] - before
        ranked = tuple(sorted((float(value), str(item)) for item, value in values.dropna().items()))
        if ranked:
            rule = f"by the {metric(name).label} of the input"
            if best is not None:
                rule = f"by how much {best.system} changes their {metric(name).label}"
            return Ranking(rule, name, best is not None, ranked)
    ids = sorted({str(item) for scores in project.evaluated(corpus) for item in scores.table.index})
    return Ranking("by their names", "", False, tuple((0.0, item) for item in ids))


def _best(systems: list[Scores], name: str) -> Scores | None:
    ranked = [scores for scores in systems if name in scores.table and scores.table[name].notna().any()]
    return max(ranked, key=lambda scores: float(scores.table[name].mean()), default=None)


def choose(project: Project, corpus: str, count: int) -> list[tuple[str, str]]:
    """`count` files at even quantiles of the ranking, worst first: (id, why). Only files that can be heard."""
    ranking, table = rank(project, corpus), project.mixtures[corpus].table
    known = set(table["id"]) if table is not None else set()
    files = [(value, item) for value, item in ranking.files if item in known]
    if not files or count < 1:
        return []
    shares = np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.5])
    places = dict.fromkeys(round(float(share) * (len(files) - 1)) for share in shares)
    return [(files[place][1], _why(ranking, files[place][0], place, len(files))) for place in places]


def _why(ranking: Ranking, value: float, place: int, count: int) -> str:
    if not ranking.metric:
        return ""
    how = metric(ranking.metric)
    text = f"changes by {signed(value, how.digits)}" if ranking.change else number(value, how.digits)
    return f"{_position(place, count)}: {how.label} {text} {how.unit}".strip()


def _position(place: int, count: int) -> str:
    if count == 1:
        return "the only file"
    if place in (0, count - 1):
        return "best" if place else "worst"
    return "median" if 2 * place == count - 1 else f"number {place + 1} of {count} from the worst"


# ---------------------------------------------------------------------------------------------- audio


def listen_files(
    project: Project, corpus: str, chosen: list[tuple[str, str]], seconds: float
) -> list[ListenFile]:
    """Players and spectrograms of the chosen files, at most `seconds` of each."""
    mixtures = project.mixtures[corpus]
    if mixtures.table is None:
        return []
    rows = mixtures.table.set_index("id", drop=False)
    return [_listen_file(project, corpus, rows.loc[item].to_dict(), why, seconds) for item, why in chosen]


def _listen_file(project: Project, corpus: str, row: dict, why: str, seconds: float) -> ListenFile:
    rate, samples = int(row["rate"]), min(int(row["n_samples"]), round(seconds * row["rate"]))
    waves = _waves(project, corpus, row | {"n_samples": samples})
    images = spectrogram_images(list(waves.values()), rate)
    signals = []
    for system, (player, level), image in zip(waves, matched(list(waves.values()), rate), images, strict=True):
        name = "noisy input" if system == paths.UNPROCESSED else system
        chart = figures.spectrogram_chart(name, image, samples / rate, rate)
        scores = _scores(project.scores.get((system, corpus)), row["id"])
        signals.append(Signal(name, flac_uri(player, rate), chart, level, scores))
    return ListenFile(row["id"], why, _facts(row), samples / rate, float(row["seconds"]), tuple(signals))


def _waves(project: Project, corpus: str, row: dict) -> dict[str, np.ndarray]:
    """Noisy, each system's and clean signal [n_samples] of a manifest row, in this order."""
    enhanced = {system: project.enhanced[system, corpus] for system in project.systems}
    return read_signals(project.mixtures[corpus].folder, row, enhanced)


def read_signals(mixtures: Path, row: dict, enhanced: dict[str, Enhanced]) -> dict[str, np.ndarray]:
    """The first row["n_samples"] samples of a file: noisy, of each system that has it, and "clean"."""
    clean, noisy = shards.read_pair(mixtures, row)
    waves = {paths.UNPROCESSED: noisy}
    for system, found in enhanced.items():
        wave = _enhanced(found, row["id"], row["n_samples"])
        if wave is not None:
            waves[system] = wave
    return waves | {"clean": clean}


def _enhanced(enhanced: Enhanced, item: str, samples: int) -> np.ndarray | None:
    """First samples [n] of an enhanced utterance, at its own level; None when it is not there."""
    if enhanced.table is None or item not in enhanced.table.index:
        return None
    row = enhanced.table.loc[item]
    count = min(samples, int(row["n_samples"]))
    wave = shards.read_item(enhanced.folder, row["shard"], row["position"], count)[0]
    return wave / np.float32(row["gain"])


def _facts(row: dict) -> str:
    snr = row["snr_db"] if np.isfinite(row["snr_db"]) else row["snr_measured_db"]
    named = (("Speaker", row["speaker"]), ("noise", row["noise_kind"]), ("room", row["room"]))
    facts = [f"{label} {value}" for label, value in named if value]
    return ", ".join([*facts, f"SNR {number(float(snr), 1)} dB"])


def _scores(scores: Scores | None, item: str) -> tuple[str, ...]:
    if scores is None or item not in scores.table.index:
        return tuple("" for _ in HEAD)
    row = scores.table.loc[item]
    return tuple(number(row[name], metric(name).digits) if name in row else "–" for name in HEAD)


def matched(waves: list[np.ndarray], rate: int) -> list[tuple[np.ndarray, str]]:
    """The waves [n] at one loudness (`loudness.gains`), each with a text that states its gain."""
    result = []
    for wave, gain in zip(waves, loudness.gains(waves, rate), strict=True):
        change = 20 * float(np.log10(gain))
        text = f"played {abs(change):.1f} dB {'louder' if change > 0 else 'softer'} than it is"
        if loudness.lufs(wave, rate) <= loudness.SILENT_LUFS:
            text = "silent, played as it is"
        result.append((wave * np.float32(gain), text))
    return result


def flac_uri(wave: np.ndarray, rate: int) -> str:
    """A wave [n] as 16-bit FLAC in a data URI: lossless, the same bytes every time, played by every browser."""
    with tempfile.TemporaryDirectory(prefix="diffse-") as folder:
        path = Path(folder) / "player.flac"
        audio.write(path, wave[np.newaxis], rate, "PCM_16")
        return _data_uri("audio/flac", path.read_bytes())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def fitting_seconds(project: Project, choices: dict[str, list[tuple[str, str]]], seconds: float) -> float:
    """`seconds`, or less where all players of the page would exceed BUDGET_BYTES."""
    bytes_per_second = 0.0
    for corpus, chosen in choices.items():
        table = project.mixtures[corpus].table
        if table is not None:
            signals = 2 + len(project.systems)
            bytes_per_second += len(chosen) * signals * float(table["rate"].max()) * 2 * 4 / 3
    return min(seconds, BUDGET_BYTES / bytes_per_second) if bytes_per_second else seconds


# ---------------------------------------------------------------------------------------- spectrograms


def spectrogram_images(waves: list[np.ndarray], rate: int) -> list[str]:
    """Spectrograms of waves [n] as PNG data URIs on one colour scale: RANGE_DB below the loudest bin of all."""
    powers = [spectral_power(wave, rate) for wave in waves]
    loudest = max(max(float(power.max()) for power in powers), 1e-20)
    return [_png_uri(10 * np.log10(np.maximum(power / loudest, 1e-20))) for power in powers]


def spectral_power(wave: np.ndarray, rate: int) -> np.ndarray:
    """Hann-windowed power [bins, frames], 32 ms frames, with at most about _COLUMNS of them."""
    size = max(16, round(_WINDOW_SECONDS * rate))
    hop = max(size // 4, -(-len(wave) // _COLUMNS))
    padded = np.pad(wave.astype(np.float64), (size // 2, size // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][: -(-len(wave) // hop)]
    return np.square(np.abs(np.fft.rfft(frames * np.hanning(size), axis=1))).T


def colour_bar() -> str:
    """The colours from -RANGE_DB (left) to 0 dB (right) as a PNG data URI."""
    return _png_uri(np.linspace(-RANGE_DB, 0.0, _LEVELS)[np.newaxis])


def _png_uri(decibels: np.ndarray) -> str:
    """Decibels [bins, frames] at or below 0 as an indexed PNG, low frequencies at the bottom."""
    from PIL import Image

    share = np.clip(1.0 + decibels / RANGE_DB, 0.0, 1.0)
    indices = np.rint(share[::-1] * (_LEVELS - 1)).astype(np.uint8)
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(np.rint(colours(_LEVELS) * 255).astype(np.uint8).tobytes())
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return _data_uri("image/png", content.getvalue())


def colours(count: int) -> np.ndarray:
    """`count` colours of the map, dark to bright, [count, 3] in 0..1."""
    import matplotlib

    return matplotlib.colormaps[COLOUR_MAP](np.linspace(0.0, 1.0, count))[:, :3]
