"""Gate of prepared mixtures: data/<corpus>/mixtures."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffse import paths, storage
from diffse.data import manifest
from diffse.data.corpora import registry
from diffse.data.manifest import SPLITS
from diffse.errors import DiffseError
from diffse.settings import Corpus, MixtureRules, Params
from diffse.validation import drift, measures
from diffse.validation.fingerprints import near_duplicates
from diffse.validation.rules import Rule, Subject, Table

if TYPE_CHECKING:
    import pandas

AGAIN = "the artifact was changed or damaged; run 'diffse prepare' again"
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
    frame = measures.of_mixtures(manifest.read(folder), folder)
    frame = frame.assign(**_derived(frame))
    frame = frame.assign(**_repeated(frame))
    figures, before = drift.statistics(frame), _last(root, corpus, folder)
    tables = {
        "utterances": frame,
        "splits": _split_table(frame, settings),
        "facts": _fact_table(frame, params, corpus),
        "drift": drift.table(figures, before),
    }
    rules = [*_utterance_rules(corpus, settings.rate, limits), *_signal_rules(limits), *_pair_rules(limits)]
    rules += _snr_rules(limits, registry.asks_snr(settings))
    rules += [*_storage_rules(), *_split_rules(limits), *_fact_rules(limits), *drift.rules(limits)]
    return Subject(tables, rules, [folder / manifest.FILE], figures, before)


# ------------------------------------------------------------------------------------------------ tables


def _derived(frame: "pandas.DataFrame") -> dict[str, Any]:
    stated, asked = frame["snr_measured_db"], frame["snr_db"]
    columns = {"snr_restated_db": (stated - frame["snr_audio_db"]).abs()}
    # in a room, or behind a codec, the stored signals do not show the SNR that was mixed
    mixed = frame["snr_mixed_db"].fillna(stated) if "snr_mixed_db" in frame.columns else stated
    # where there is no noise, as in a room alone, nothing was asked for
    columns["snr_error_db"] = (mixed - asked).abs().where(frame["noise_source"] != "", 0.0)
    columns["snr_heard_error_db"] = (frame["snr_heard_db"] - asked).abs().where(_undisturbed(frame))
    columns["length_error"] = (frame["seconds"] * frame["rate"] - frame["n_samples"]).abs()
    columns["lag_ms"] = frame["lag"].abs() / frame["rate"] * 1000.0
    for name, (column, _) in _LEAKS.items():
        columns[name] = splits_per_value(frame, column)
    return columns


def _undisturbed(frame: "pandas.DataFrame") -> "pandas.Series":
    """Rows in which noisy less clean is the noise and nothing else."""
    plain = frame["snr_db"].notna() & (frame["room"] == "")
    return plain & (frame["done"].fillna("") == "") if "done" in frame.columns else plain


def _repeated(frame: "pandas.DataFrame") -> dict[str, list[bool]]:
    """Whether a row's clean signal nearly repeats that of another source, in its split or in another one."""
    first = frame.drop_duplicates(["clean_source", "clean_offset", "fingerprint"])
    sources = (first["clean_source"] + ":" + first["clean_offset"].astype(str)).tolist()
    partner = near_duplicates(first["fingerprint"].tolist(), first["n_samples"].to_numpy(float), sources)
    splits = first["split"].tolist()
    leaks = {key for key, other in enumerate(partner) if other >= 0 and splits[key] != splits[other]}
    twice = {key for key, other in enumerate(partner) if other >= 0} - leaks
    ids = first["id"].tolist()
    return {
        name: (~frame["id"].isin([ids[key] for key in keys])).tolist()
        for name, keys in (("no_near_leak", leaks), ("no_near_copy", twice))
    }


def splits_per_value(frame: "pandas.DataFrame", column: str) -> "pandas.Series":
    """For each row, in how many splits its value of `column` occurs; 1 where the value is unknown ("")."""
    counts = frame.groupby(column, dropna=False)["split"].transform("nunique")
    return counts.where(frame[column].fillna("") != "", 1)


def _split_table(frame: "pandas.DataFrame", settings: Corpus) -> "pandas.DataFrame":
    import pandas

    counts = frame["split"].value_counts()
    names = [split for split in SPLITS if split in registry.expected_splits(settings) or split in counts]
    return pandas.DataFrame({"id": names, "utterances": [int(counts.get(name, 0)) for name in names]})


def _fact_table(frame: "pandas.DataFrame", params: Params, corpus: str) -> "pandas.DataFrame":
    """One row per split whose size is published, or stated in check.mixtures.expected, with what it is off by.

    Utterances and hours are those of the clean recordings, however many mixtures each gives. A corpus with
    `complete: false` is known to be smaller than published.
    """
    import pandas

    settings = params.prepare[corpus]
    published = registry.facts(settings) if getattr(settings, "complete", True) else None
    known: dict[str, dict[str, float]] = {}
    for split, size in (published.expected if published else {}).items():
        slack = 0 if size.exact else max(1, round(0.005 * size.utterances))
        known[split] = {"utterances": size.utterances, "hours": size.hours or -1.0, "slack": slack}
    for split, size in params.check.mixtures.expected.get(corpus, {}).items():
        stated = {"utterances": size.utterances, "hours": size.hours, "speakers": size.speakers}
        stated = {name: value for name, value in stated.items() if value >= 0}
        known[split] = known.get(split, {}) | stated | ({"slack": 0} if "utterances" in stated else {})
    rows = [{"id": split, **_off(frame[frame["split"] == split], size)} for split, size in known.items()]
    names = ("utterances_off", "speakers_off", "hours_off")
    return pandas.DataFrame(rows, columns=["id", *names]).astype(dict.fromkeys(names, float))


def _off(part: "pandas.DataFrame", known: dict[str, float]) -> dict[str, float]:
    """Differences of a split to its known size; NaN for what is not known."""
    clean = part.drop_duplicates(["clean_source", "clean_offset"])
    off = dict.fromkeys(("utterances_off", "speakers_off", "hours_off"), math.nan)
    if known.get("utterances", -1) >= 0:
        off["utterances_off"] = max(0.0, abs(len(clean) - known["utterances"]) - known.get("slack", 0))
    if known.get("speakers", -1) >= 0:
        off["speakers_off"] = abs(part["speaker"].nunique() - known["speakers"])
    if known.get("hours", -1) > 0:
        off["hours_off"] = abs(clean["seconds"].sum() / 3600.0 - known["hours"]) / known["hours"]
    return off


def _last(root: Path, corpus: str, folder: Path) -> dict[str, float]:
    """Statistics of the last version that passed this gate, other than the present one; {} without one."""
    try:
        result = storage.read_json(paths.gate(root, "mixtures", corpus))
    except DiffseError:
        return {}
    result = result.get("before", result)  # the mixtures could not be read last time
    known = result.get("last_version", {})
    judged = next(iter(result.get("inputs", {}).values()), "")
    if result.get("success") and judged != storage.sha256_file(folder / manifest.FILE):
        known = result.get("statistics", {})
    return known if isinstance(known, dict) else {}


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


def _signal_rules(limits: MixtureRules) -> list[Rule]:
    table = Table("utterances")
    offset = "remove the offset (a high-pass) from these recordings, or change check.mixtures.max_dc"
    pauses = "cut or leave out what is mostly digital silence, or change check.mixtures.max_silent"
    # what cannot be read breaks the rule on shards, and no other one
    return [
        table.true("finite samples", "finite", "repair the recordings that hold NaN or infinite samples"),
        table.within("channels", "channels", 2, 2, AGAIN, missing=1.0),
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
        table.within("offset of the clean signal (DC)", "dc_clean", 0.0, limits.max_dc, offset, missing=1.0),
        table.within("offset of the noisy signal (DC)", "dc_noisy", 0.0, limits.max_dc, offset, missing=1.0),
        table.within(
            "silence of the clean signal", "silent_clean", 0.0, limits.max_silent, pauses, missing=1.0
        ),
        table.within(
            "silence of the noisy signal", "silent_noisy", 0.0, limits.max_silent, pauses, missing=1.0
        ),
        table.within(
            "band of the clean signal (share of half the rate)",
            "band",
            limits.min_band,
            1.0,
            "these were upsampled from a lower rate; use the originals, lower prepare.<corpus>.rate, or change "
            "check.mixtures.min_band",
            missing=1.0,
        ),
    ]


def _pair_rules(limits: MixtureRules) -> list[Rule]:
    table = Table("utterances")
    return [
        table.within(
            "clean and noisy in time (ms apart)",
            "lag_ms",
            0.0,
            limits.max_lag_ms,
            "shift one side of these pairs, or change check.mixtures.max_lag_ms",
            missing=1.0,
        ),
        table.within(
            "clean is in noisy (correlation)",
            "correlation",
            limits.min_correlation,
            1.0 + 1e-6,
            "these may be pairs of different utterances; compare their names, or change "
            "check.mixtures.min_correlation",
            missing=1.0,
        ),
    ]


def _snr_rules(limits: MixtureRules, mixed: bool) -> list[Rule]:
    table, tolerance = Table("utterances"), limits.snr_tolerance_db
    rules = [
        table.within("measured SNR (dB)", "snr_measured_db", -100.0, 100.0, "clean and noisy must differ"),
        table.within("SNR of the stored audio (dB)", "snr_audio_db", -100.0, 100.0, AGAIN, missing=1.0),
        table.within("SNR as stated (dB apart)", "snr_restated_db", 0.0, tolerance, AGAIN, missing=1.0),
    ]
    if mixed:  # ready pairs have no SNR that was asked for
        again = "look at these recordings for silence, or change check.mixtures.snr_tolerance_db"
        rules.append(table.within("SNR as asked for (dB apart)", "snr_error_db", 0.0, tolerance, again))
        rules.append(
            table.within(
                "SNR as asked for, in the audio (dB apart)", "snr_heard_error_db", 0.0, tolerance, again, 1.0
            )
        )
    return rules


def _storage_rules() -> list[Rule]:
    table = Table("utterances")
    return [
        table.true("shards are there", "shard_readable", AGAIN),
        table.true("checksums match", "checksum_matches", AGAIN, missing=1.0),
        table.unique("no mixture twice", "sha256", "remove the copies among the recordings"),
        Table("utterances", "warning").true(
            "no near-duplicates in a split", "no_near_copy", "listen to these; remove the copies among them"
        ),
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
        table.true(
            "no near-duplicates between splits",
            "no_near_leak",
            "listen to these; they sound like a recording of another split, so keep both in one",
        ),
    ]


def _fact_rules(limits: MixtureRules) -> list[Rule]:
    table = Table("facts")
    advice = "the sources are not complete, or not this corpus; see rejected.csv, and check.mixtures.expected"
    return [
        table.within("utterances as known of the corpus (apart)", "utterances_off", 0, 0, advice, missing=1.0),
        table.within("speakers as known of the corpus (apart)", "speakers_off", 0, 0, advice, missing=1.0),
        table.within(
            "hours as known of the corpus (relative)", "hours_off", 0.0, limits.hours_tolerance, advice, 1.0
        ),
    ]
