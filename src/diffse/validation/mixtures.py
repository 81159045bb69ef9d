"""Gate of prepared mixtures: data/<corpus>/mixtures."""

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffse import paths
from diffse.audio import AudioError
from diffse.data import manifest, shards
from diffse.data.corpora import registry
from diffse.data.manifest import SPLITS
from diffse.data.parallel import Workers
from diffse.settings import Corpus, MixtureRules, Params
from diffse.validation.rules import Rule, Subject, Table

if TYPE_CHECKING:
    import pandas

AGAIN = "the artifact was changed or damaged; run 'diffse prepare' again"
_ALONE = 500  # utterances up to which starting processes takes longer than it saves
_LEAKS = {  # derived column -> (manifest column, what it is called)
    "splits_of_speaker": ("speaker", "speakers in one split"),
    "splits_of_noise": ("noise_source", "noise recordings in one split"),
    "splits_of_noise_sha256": ("noise_sha256", "noise recordings by checksum in one split"),
    "splits_of_room": ("room", "rooms in one split"),
    "splits_of_clean_sha256": ("clean_sha256", "clean recordings by checksum in one split"),
}


def subject(params: Params, names: tuple[str, ...], root: Path) -> Subject:
    """Tables and rules for the mixtures of one corpus. DiffseError when there is no manifest to read."""
    (corpus,) = names
    settings, limits = params.prepare[corpus], params.check.mixtures
    folder = paths.mixtures(root, corpus)
    frame = manifest.read(folder)
    frame = frame.assign(**_of_audio(frame, folder))
    frame = frame.assign(**_derived(frame))
    tables = {"utterances": frame, "splits": _split_table(frame, settings)}
    rules = [
        *_utterance_rules(corpus, settings.rate, limits),
        *_signal_rules(limits, registry.asks_snr(settings)),
    ]
    rules += [*_storage_rules(), *_split_rules(limits)]
    return Subject(tables, rules, [folder / manifest.FILE])


# ------------------------------------------------------------------------------------------------ tables


def _of_audio(frame: "pandas.DataFrame", folder: Path) -> dict[str, list]:
    """Columns that only the audio can tell: read every utterance back from its shard."""
    rows = frame[["shard", "position", "n_samples", "sha256"]].to_dict("records")
    processes = 1 if len(rows) <= _ALONE else 0
    with Workers(processes) as workers:
        found = list(workers.map(partial(measure, folder=folder), rows, chunk=32))
    names = ("shard_readable", "checksum_matches", "snr_audio_db")
    return {name: [row[name] for row in found] for name in names}


def measure(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Whether an utterance can be read and is what was written, and its SNR in dB by its samples."""
    try:
        stored = shards.read_stored(folder, row["shard"], row["position"], row["n_samples"])
    except AudioError:
        return {"shard_readable": False, "checksum_matches": None, "snr_audio_db": math.nan}
    clean, noisy = shards.to_float(stored).astype(np.float64)
    noise = noisy - clean
    above, below = float(np.dot(clean, clean)), float(np.dot(noise, noise))
    snr_db = 10 * math.log10(above / below) if above > 0 and below > 0 else math.inf
    return {
        "shard_readable": True,
        "checksum_matches": shards.item_sha256(stored) == row["sha256"],
        "snr_audio_db": snr_db,
    }


def _derived(frame: "pandas.DataFrame") -> dict[str, Any]:
    measured, asked = frame["snr_measured_db"], frame["snr_db"]
    # by the measure in which it was asked for, before anything else was done to the mixture
    mixed = frame["snr_mixed_db"].fillna(measured) if "snr_mixed_db" in frame else measured
    columns = {
        "snr_error_db": (mixed - asked).abs(),
        "snr_restated_db": (measured - frame["snr_audio_db"]).abs(),
    }
    columns["length_error"] = (frame["seconds"] * frame["rate"] - frame["n_samples"]).abs()
    for name, (column, _) in _LEAKS.items():
        columns[name] = splits_per_value(frame, column)
    return columns


def splits_per_value(frame: "pandas.DataFrame", column: str) -> "pandas.Series":
    """For each row, in how many splits its value of `column` occurs; 1 where the value is unknown ("")."""
    counts = frame.groupby(column, dropna=False)["split"].transform("nunique")
    return counts.where(frame[column].fillna("") != "", 1)


def _split_table(frame: "pandas.DataFrame", settings: Corpus) -> "pandas.DataFrame":
    import pandas

    counts = frame["split"].value_counts()
    names = [split for split in SPLITS if split in registry.expected_splits(settings) or split in counts]
    return pandas.DataFrame({"id": names, "utterances": [int(counts.get(name, 0)) for name in names]})


# ------------------------------------------------------------------------------------------------- rules


def _utterance_rules(corpus: str, rate: int, limits: MixtureRules) -> list[Rule]:
    table = Table("utterances")
    return [
        table.rows("utterances", 1, "the corpus gave none; see rejected.csv"),
        table.unique("ids", "id", AGAIN),
        table.one_of("corpus", "corpus", [corpus], "it holds another corpus; prepare this one again"),
        table.one_of("split names", "split", SPLITS, AGAIN),
        table.one_of("sampling rate", "rate", [rate], "prepare again after changing prepare.<corpus>.rate"),
        table.within(
            "duration (s)",
            "seconds",
            limits.min_seconds,
            limits.max_seconds,
            "leave these recordings out or cut them, or change check.mixtures.min_seconds and max_seconds",
        ),
        table.within("samples as stated", "length_error", 0.0, 0.5, AGAIN),
    ]


def _signal_rules(limits: MixtureRules, mixed: bool) -> list[Rule]:
    table, tolerance = Table("utterances"), limits.snr_tolerance_db
    rules = [
        table.true("finite samples", "finite", "repair the recordings that hold NaN or infinite samples"),
        table.within(
            "level of the clean signal (dBFS)",
            "level_dbfs",
            limits.min_level_dbfs,
            0.0,
            "leave silent recordings out, or change check.mixtures.min_level_dbfs",
        ),
        table.within("level of the noisy signal (dBFS)", "noisy_dbfs", limits.min_level_dbfs, 0.0, AGAIN),
        table.within(
            "clipping",
            "clipped",
            0.0,
            limits.max_clipped,
            "replace clipped recordings, or change check.mixtures.max_clipped",
        ),
        table.within("peak", "peak", 1e-6, 1.0, AGAIN),
        table.within("gain", "gain", 1e-6, 1.0, AGAIN),
        table.within("measured SNR (dB)", "snr_measured_db", -100.0, 100.0, "clean and noisy must differ"),
        # rows whose shard cannot be read break the rule on shards
        table.within("SNR of the stored audio (dB)", "snr_audio_db", -100.0, 100.0, AGAIN, missing=1.0),
        table.within("SNR as stated (dB apart)", "snr_restated_db", 0.0, tolerance, AGAIN, missing=1.0),
    ]
    if mixed:  # ready pairs have no SNR that was asked for
        again = "look at these recordings for silence, or change check.mixtures.snr_tolerance_db"
        rules.append(table.within("SNR as asked for (dB apart)", "snr_error_db", 0.0, tolerance, again))
    return rules


def _storage_rules() -> list[Rule]:
    table = Table("utterances")
    return [
        table.true("shards are there", "shard_readable", AGAIN),
        table.true("checksums match", "checksum_matches", AGAIN, missing=1.0),
        table.unique("no mixture twice", "sha256", "remove the copies among the recordings"),
    ]


def _split_rules(limits: MixtureRules) -> list[Rule]:
    table, splits = Table("utterances"), Table("splits")
    advice = "give each to one split only (lists, or speaker folders)"
    return [
        splits.within(
            "utterances per split",
            "utterances",
            max(1, limits.min_utterances),
            None,
            "add recordings to these splits, or change check.mixtures.min_utterances",
        ),
        *(table.within(title, column, 1, 1, advice) for column, (_, title) in _LEAKS.items()),
    ]
