"""Gate of enhanced audio: enhanced/<system>/<corpus>, against the mixtures and what made it.

A trained system is made of its checkpoint, an external one of its settings and of the files it gave.
"""

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffse import audio, paths, storage
from diffse.audio import AudioError
from diffse.data import manifest, shards
from diffse.data.parallel import Workers
from diffse.settings import EnhancedRules, Params
from diffse.settings_reader import to_plain
from diffse.validation.rules import Rule, Subject, Table

if TYPE_CHECKING:
    import pandas

AGAIN = "run 'diffse enhance' again"
SILENT_DBFS = -110.0  # rounding to 24 bits leaves nothing below
_DESCRIPTION = "enhanced.json"
_COLUMNS = {
    name: manifest.ENHANCED_COLUMNS[name] for name in ("id", "n_samples", "rate", "shard", "position", "gain")
}
_COLUMNS |= {name: manifest.ENHANCED_COLUMNS[name] for name in ("evaluations", "sha256")}
_ALONE = 500  # utterances up to which starting processes takes longer than it saves


def subject(params: Params, names: tuple[str, ...], root: Path) -> Subject:
    """Tables and rules for one system on one corpus. DiffseError when there is nothing to read."""
    import pandas

    system, corpus = names
    folder, source = paths.enhanced(root, system, corpus), paths.mixtures(root, corpus)
    frame = manifest.read(folder, _COLUMNS)[list(_COLUMNS)]
    mixtures = manifest.read(source)
    mixtures = mixtures[mixtures["split"] == "test"]
    mixtures = mixtures[["id", "n_samples", "rate", "noisy_dbfs"]].rename(columns={"id": "mixture"})
    joined = frame.merge(mixtures, "outer", left_on="id", right_on="mixture", suffixes=("", "_mixture"))
    joined["id"] = joined["id"].fillna(joined["mixture"])
    described = _description_facts(params, system, corpus, root)
    tables = {"utterances": _utterance_table(joined, folder), "description": pandas.DataFrame([described])}
    inputs = [folder / manifest.FILE, folder / _DESCRIPTION, source / manifest.FILE]
    external = system in params.external
    if not external:
        inputs.append(_weights(params, system, root))
    return Subject(tables, _rules(params.check.enhanced, external), inputs)


def _weights(params: Params, system: str, root: Path) -> Path:
    """Weights that the settings say this system runs with."""
    recipe, _ = paths.split_system(system)
    which = params.enhance[recipe].weights if recipe in params.enhance else "best"
    return paths.model(root, system) / which / "weights.safetensors"


# ------------------------------------------------------------------------------------------------ tables


def _description_facts(params: Params, system: str, corpus: str, root: Path) -> dict[str, Any]:
    stated = storage.read_json(paths.enhanced(root, system, corpus) / _DESCRIPTION)
    mixtures = storage.sha256_file(paths.mixtures(root, corpus) / manifest.FILE)
    facts = {
        "id": _DESCRIPTION,
        "names_match": (stated.get("system"), stated.get("corpus")) == (system, corpus),
        "from_these_mixtures": stated.get("mixtures_sha256") == mixtures,
    }
    if system in params.external:
        return facts | {"from_these_settings": stated.get("settings") == to_plain(params.external[system])}
    weights = _weights(params, system, root)
    made_of = {weights: stated.get("checkpoint_sha256")}
    snapshots = stated.get("snapshots_sha256", {})
    made_of |= {paths.model(root, system) / name: sha256 for name, sha256 in snapshots.items()}
    present = {path: storage.sha256_file(path) if path.is_file() else "missing" for path in made_of}
    return facts | {"from_these_weights": made_of == present}


def _utterance_table(frame: "pandas.DataFrame", folder: Path) -> "pandas.DataFrame":
    """One row per utterance of the test split or of the manifest, with what its audio shows."""
    enhanced, expected = frame["shard"].notna(), frame["mixture"].notna()
    rows = frame.loc[enhanced, list(_COLUMNS)].astype({"position": int, "n_samples": int}).to_dict("records")
    processes = 1 if len(rows) <= _ALONE else 0
    with Workers(processes) as workers:
        found = {row["id"]: row for row in workers.map(partial(measure, folder=folder), rows, chunk=32)}
    for name in ("shard_readable", "checksum_matches", "finite", "level_dbfs"):
        frame[name] = [found[key][name] if key in found else None for key in frame["id"]]
    both = enhanced & expected
    frame["level_dbfs"] = frame["level_dbfs"].astype(float)
    loud_input = frame["noisy_dbfs"] > SILENT_DBFS
    silent = frame["level_dbfs"] <= SILENT_DBFS
    gain_db = frame["level_dbfs"] - frame["noisy_dbfs"]
    return frame.assign(
        in_both=both,
        length_error=(frame["n_samples"] - frame["n_samples_mixture"]).abs(),
        rate_error=(frame["rate"] - frame["rate_mixture"]).abs(),
        # silence has no gain: out of speech it breaks a rule, out of silence it is right
        sounds=(~(silent & loud_input)).where(both & frame["level_dbfs"].notna()),
        gain_db=gain_db.where(loud_input & ~silent),
    )


def measure(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Whether an utterance can be read and is what was written, and its level in dBFS (gain undone)."""
    try:
        stored = shards.read_stored(folder, row["shard"], row["position"], row["n_samples"])
    except AudioError:
        facts = {"shard_readable": False, "checksum_matches": None, "finite": None, "level_dbfs": math.nan}
        return {"id": row["id"], **facts}
    usable = math.isfinite(row["gain"]) and row["gain"] > 0
    wave = shards.to_float(stored).astype(np.float64) / (row["gain"] if usable else 1.0)
    return {
        "id": row["id"],
        "shard_readable": True,
        "checksum_matches": shards.item_sha256(stored) == row["sha256"],
        "finite": usable and bool(np.all(np.isfinite(wave))),
        "level_dbfs": max(audio.rms_dbfs(wave), -300.0),
    }


# ------------------------------------------------------------------------------------------------- rules


def _rules(limits: EnhancedRules, external: bool) -> list[Rule]:
    table, description = Table("utterances"), Table("description")
    origin = description.true("made with the present checkpoint", "from_these_weights", AGAIN)
    if external:
        origin = description.true("made with the present settings", "from_these_settings", AGAIN)
    levels = "listen to these; the system fails on them, or change check.enhanced"
    # an utterance that is not there, or cannot be read, breaks the rule that says so, and no second one
    return [
        table.rows("utterances", 1, AGAIN),
        table.unique("ids", "id", AGAIN),
        table.true("the utterances of the test split", "in_both", AGAIN),
        table.within("as long as the input (samples apart)", "length_error", 0, 0, AGAIN, missing=1.0),
        table.within("rate of the input (Hz apart)", "rate_error", 0, 0, AGAIN, missing=1.0),
        table.true("shards are there", "shard_readable", AGAIN, missing=1.0),
        table.true("checksums match", "checksum_matches", AGAIN, missing=1.0),
        table.true(
            "finite samples", "finite", "the system gave NaN or infinite samples; train it again", missing=1.0
        ),
        table.true("no silence out of sound", "sounds", levels, missing=1.0),
        table.within(
            "level over input (dB)", "gain_db", limits.min_gain_db, limits.max_gain_db, levels, missing=1.0
        ),
        table.within("network evaluations", "evaluations", 1, None, AGAIN, missing=1.0),
        description.true("of this system and corpus", "names_match", AGAIN),
        description.true("made from the present mixtures", "from_these_mixtures", AGAIN),
        origin,
    ]
