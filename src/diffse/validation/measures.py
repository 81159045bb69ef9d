"""What only the audio of prepared mixtures can tell, measured once for every shard.

Measuring decodes everything and takes as long as that, on all cores. The results are kept beside the mixtures
and hold for as long as the bytes of their shard do: a gate reads every byte of every shard, but decodes only
shards that it has not seen before.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffse import audio, paths, storage
from diffse.audio import AudioError
from diffse.data import levels, shards
from diffse.data.parallel import Workers
from diffse.validation.fingerprints import fingerprint

if TYPE_CHECKING:
    import pandas

VERSION = 1  # of the measures; a changed one measures everything again
FILE = paths.MEASURES
_ALONE = 500  # utterances up to which starting processes takes longer than it saves
_FRAME_SECONDS = 0.02
_SILENT_DBFS = -70.0  # RMS of a frame that holds no sound
_LAG_SECONDS = 0.05  # longest shift that is looked for
_LAG_SAMPLES = 1 << 16  # of the loudest part that is compared
_LAG_MARGIN = 1.1  # a shift is one where it fits this much better than none
_LAG_MARGIN_ROOM = 5.0  # in a room, where reflections together can be stronger than the direct sound
_BAND_BINS = 128  # of the spectrum whose upper end is looked for
_BAND_DB = -75.0  # below the strongest bin: nothing but rounding and the resampler's stop band

# Column -> what stands in it where a shard cannot be read.
COLUMNS: dict[str, Any] = {
    "shard_readable": False,
    "sha256_found": "",
    "channels": math.nan,
    "snr_audio_db": math.nan,  # power of clean over that of what was added
    "snr_heard_db": math.nan,  # by the measure of snr_kind
    "dc_clean": math.nan,
    "dc_noisy": math.nan,
    "silent_clean": math.nan,  # share of the frames
    "silent_noisy": math.nan,
    "band": math.nan,  # upper end of the clean spectrum as a share of half the rate
    "lag": math.nan,  # samples by which noisy is later than clean
    "correlation": math.nan,
    "fingerprint": "",
}


@dataclass(frozen=True)
class Job:
    """The utterances of one shard."""

    folder: Path
    rows: list[dict[str, Any]]


def of_mixtures(frame: "pandas.DataFrame", folder: Path) -> "pandas.DataFrame":
    """`frame` with the columns of `COLUMNS`; reads kept measures from, and leaves them in, the folder above."""
    keys = ["shard", "shard_sha256", "position", "n_samples"]
    sums = _shard_sums(folder, frame["shard"].unique())
    frame = frame.assign(shard_sha256=frame["shard"].map(sums))
    kept = _kept(folder.parent / FILE)
    known = (frame[keys].merge(kept, "left", keys) if len(kept) else frame[keys]).reindex(
        columns=[*keys, *COLUMNS]
    )
    columns = {name: known[name].tolist() for name in COLUMNS}
    todo = np.flatnonzero(known["shard_readable"].isna().to_numpy())
    for index, measured in zip(todo, _measured(frame.iloc[todo], folder), strict=True):
        for name, value in measured.items():
            columns[name][index] = value
    frame = frame.assign(**{name: _typed(values, COLUMNS[name]) for name, values in columns.items()})
    if todo.size:
        _keep(frame[[*keys, *COLUMNS]], folder.parent / FILE)
    matches = [bool(x) for x in frame["sha256_found"] == frame["sha256"]]
    readable = frame["shard_readable"].tolist()
    return frame.assign(checksum_matches=[m if r else None for m, r in zip(matches, readable, strict=True)])


def _typed(values: list, empty: Any) -> list:
    return [
        bool(v) if isinstance(empty, bool) else str(v) if isinstance(empty, str) else float(v) for v in values
    ]


def _shard_sums(folder: Path, names: list[str]) -> dict[str, str]:
    """Checksum of every shard file; "" where it cannot be read."""
    sums = {}
    for name in names:
        try:
            sums[name] = storage.sha256_file(folder / name)
        except OSError:
            sums[name] = ""
    return sums


def _kept(path: Path) -> "pandas.DataFrame":
    """Measures of an earlier gate; an empty table where there are none that can be used."""
    import pandas
    import pyarrow

    try:
        frame = pandas.read_parquet(path)
    except (OSError, ValueError, pyarrow.ArrowException):
        return pandas.DataFrame()
    usable = {"version", "shard_sha256", *COLUMNS} <= set(frame.columns) and (frame["version"] == VERSION).all()
    return (
        frame.drop_duplicates(["shard", "shard_sha256", "position", "n_samples"])
        if usable
        else pandas.DataFrame()
    )


def _keep(frame: "pandas.DataFrame", path: Path) -> None:
    readable = frame[frame["shard_readable"]]
    with storage.atomic_file(path) as temporary:
        readable.assign(version=VERSION).to_parquet(temporary, index=False)


def _measured(frame: "pandas.DataFrame", folder: Path) -> list[dict[str, Any]]:
    """Measures of every row, in order."""
    columns = [
        "shard",
        "position",
        "n_samples",
        "rate",
        "room",
        *(["snr_kind"] if "snr_kind" in frame.columns else []),
    ]
    if frame.empty:
        return []
    processes = 1 if len(frame) <= _ALONE else 0
    with Workers(processes) as workers:
        return [row for batch in workers.map(_measure_all, _jobs(frame[columns], folder)) for row in batch]


def _jobs(frame: "pandas.DataFrame", folder: Path, size: int = 32) -> Iterator[Job]:
    rows = frame.to_dict("records")
    for start in range(0, len(rows), size):
        yield Job(folder, rows[start : start + size])


def _measure_all(job: Job) -> list[dict[str, Any]]:
    return [measure(row, job.folder) for row in job.rows]


def measure(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Everything of `COLUMNS` for one utterance."""
    try:
        stored = shards.read_stored(folder, row["shard"], row["position"], row["n_samples"])
    except (AudioError, ValueError, OverflowError):
        return dict(COLUMNS)
    waves = shards.to_float(stored)
    facts = COLUMNS | {
        "shard_readable": True,
        "sha256_found": shards.item_sha256(stored),
        "channels": float(len(waves)),
    }
    return facts if len(waves) != 2 else facts | _of_pair(*waves, row)


def _of_pair(clean: np.ndarray, noisy: np.ndarray, row: dict[str, Any]) -> dict[str, Any]:
    rate = int(row["rate"])
    noise = noisy.astype(np.float64) - clean
    above, below = levels.power(clean), levels.power(noise)
    snr_db = 10.0 * math.log10(above / below) if above > 0.0 and below > 0.0 else math.inf
    lag, correlation = lag_of(clean, noisy, rate, _LAG_MARGIN_ROOM if row["room"] else _LAG_MARGIN)
    return {
        "snr_audio_db": snr_db,
        "snr_heard_db": _heard_db(row.get("snr_kind") or "power", clean, noise, rate, snr_db),
        "dc_clean": abs(float(np.mean(clean, dtype=np.float64))),
        "dc_noisy": abs(float(np.mean(noisy, dtype=np.float64))),
        "silent_clean": silent_share(clean, rate),
        "silent_noisy": silent_share(noisy, rate),
        "band": band_of(clean),
        "lag": float(lag),
        "correlation": correlation,
        "fingerprint": fingerprint(clean),
    }


def _heard_db(kind: str, clean: np.ndarray, noise: np.ndarray, rate: int, snr_db: float) -> float:
    if kind == "power" or not math.isfinite(snr_db):
        return snr_db
    try:
        return levels.snr_db(kind, clean, noise, rate)
    except ValueError:
        return math.nan


def silent_share(wave: np.ndarray, rate: int) -> float:
    """Share of the frames of 20 ms whose RMS is below -70 dBFS."""
    size = max(1, int(_FRAME_SECONDS * rate))
    count = max(1, len(wave) // size)
    frames = wave[: count * size].reshape(count, -1)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    return float(np.mean(power < 10.0 ** (_SILENT_DBFS / 10.0)))


def band_of(wave: np.ndarray) -> float:
    """Upper end of the spectrum as a share of half the rate: the last of 128 bands within 75 dB of the first.

    Of a recording that was upsampled nothing but the resampler's stop band lies above its old half rate.
    """
    size = 2 * _BAND_BINS
    count = len(wave) // size
    if count == 0:
        return math.nan
    window = np.hanning(size).astype(np.float32)
    spectra = np.abs(np.fft.rfft(wave[: count * size].reshape(count, size) * window, axis=1)) ** 2
    power = spectra.mean(axis=0)[2:]  # without the lowest, where hum and offsets are
    if not power.max() > 0.0:
        return math.nan
    top = int(np.flatnonzero(power > power.max() * 10.0 ** (_BAND_DB / 10.0))[-1])
    return min(1.0, (top + 3) / _BAND_BINS)


def lag_of(clean: np.ndarray, noisy: np.ndarray, rate: int, margin: float = _LAG_MARGIN) -> tuple[int, float]:
    """(samples by which `noisy` is later than `clean`, how much of `clean` is in it, from 0 to 1).

    Cross-correlation of the differenced signals, which weighs the bands alike, over the loudest four seconds
    (at 16 kHz). A shift counts only where it fits `margin` times better than no shift: noise and reflections
    move the maximum of a weak correlation.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    start = _loudest(clean, _LAG_SAMPLES)
    pair = [np.diff(x[start : start + _LAG_SAMPLES].astype(np.float64)) for x in (clean, noisy)]
    norm = math.sqrt(float(np.dot(pair[0], pair[0])) * float(np.dot(pair[1], pair[1])))
    if norm == 0.0:
        return 0, 0.0
    longest = min(int(_LAG_SECONDS * rate), len(pair[0]) - 1)
    n = next_fast_len(len(pair[0]) + longest, real=True)
    products = irfft(rfft(pair[1], n) * np.conj(rfft(pair[0], n)), n)
    near = np.abs(np.concatenate([products[-longest:], products[: longest + 1]])) / norm
    best = int(np.argmax(near))
    shifted = near[best] > margin * near[longest]
    return (best - longest if shifted else 0), float(near[best if shifted else longest])


def _loudest(wave: np.ndarray, size: int) -> int:
    """Where the loudest of the parts of `size` samples begins; half of them overlap."""
    if len(wave) <= size:
        return 0
    starts = np.arange(0, len(wave) - size + 1, size // 2)
    return int(starts[int(np.argmax([audio.rms_dbfs(wave[s : s + size]) for s in starts]))])
