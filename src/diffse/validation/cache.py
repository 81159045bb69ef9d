"""Gate of the STFT cache: data/<corpus>/cache, against the mixtures that it was made from."""

import dataclasses
import hashlib
import math
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffse import paths, storage
from diffse.data import cache_files, cache_reader, manifest, shards
from diffse.data.cache_files import PAGE_BYTES
from diffse.errors import DiffseError
from diffse.settings import CacheRules, Params, Stft
from diffse.validation.rules import Rule, Subject, Table

if TYPE_CHECKING:
    import pandas

    from diffse.spectrogram import Spectrogram

AGAIN = "run 'diffse cache' again"
EXACT_DB = -300.0  # stands for no error at all
_TRAINED_ON = ("train", "valid")
_STATED = (
    "corpus", "rate", "stft", "mixtures_sha256", "index_sha256", "checksums_sha256", "files",
    "storage_error_db", "statistics",
)  # fmt: skip
_FILE_COLUMNS = [
    "id", "readable", "shape_matches", "checksum_matches", "damaged_pages", "non_finite", "frames",
]  # fmt: skip
_BLOCK = 4096  # frames looked at together


def subject(params: Params, names: tuple[str, ...], root: Path) -> Subject:
    """Tables and rules for the cache of one corpus. DiffseError when its description cannot be read."""
    (corpus,) = names
    folder, source = paths.cache(root, corpus), paths.mixtures(root, corpus)
    description, index = _description(folder), cache_reader.read_index(folder)
    mixtures = manifest.read(source)
    mixtures = mixtures[mixtures["split"].isin(_TRAINED_ON)]
    transform = _transform(description["stft"])
    files = _file_table(folder, description)
    tables = {
        "cache": _description_table(description, params, corpus, source, mixtures),
        "files": files,
        "utterances": _utterance_table(index, mixtures, transform, files),
        "sample": _sample_table(
            folder, source, index, mixtures, transform, params.check.cache.sample_utterances
        ),
    }
    inputs = [folder / "cache.json", folder / "index.parquet", source / manifest.FILE]
    return Subject(
        tables, [*_description_rules(params.check.cache), *_content_rules(params.check.cache)], inputs
    )


def _description(folder: Path) -> dict[str, Any]:
    description = cache_reader.read_description(folder)
    missing = [name for name in _STATED if name not in description]
    if missing:
        raise DiffseError(f"{folder / 'cache.json'}: lacks '{missing[0]}'; {AGAIN}")
    return description


def _transform(stft: dict[str, Any]) -> "Spectrogram":
    from diffse.spectrogram import Spectrogram

    return Spectrogram(stft["n_fft"], stft["hop"], stft["window"], stft["exponent"], factor=1.0)


# ------------------------------------------------------------------------------------------------ tables


def _description_table(
    description: dict[str, Any], params: Params, corpus: str, source: Path, mixtures: "pandas.DataFrame"
) -> "pandas.DataFrame":
    import pandas

    stated = description["statistics"]
    facts = {
        "id": "cache.json",
        "from_these_mixtures": description["mixtures_sha256"] == storage.sha256_file(source / manifest.FILE),
        "as_set": description["stft"] == dataclasses.asdict(params.cache) and description["corpus"] == corpus,
        "rate_matches": set(mixtures["rate"]) == {description["rate"]},
        "storage_error_db": description["storage_error_db"]["spectrogram"]["max"],
        "sigma_x": stated["sigma_x"],
        "sigma_n": stated["sigma_n"],
    }
    return pandas.DataFrame([facts])


def _file_table(folder: Path, description: dict[str, Any]) -> "pandas.DataFrame":
    """One row per file: whether it is there and whole; an array also of the stated shape and finite."""
    import pandas

    coefficients = cache_reader.layout(Stft(**description["stft"]))
    rows, sums = [], _page_sums(folder, description)
    for name, stated in sorted(description["files"].items()):
        tail, dtype = ((2,), "float32") if name.startswith("peaks-") else coefficients
        shape = (stated["frames"], *tail)
        look = _look_into(folder / name, shape, np.dtype(dtype), stated["sha256"], sums.get(name))
        rows.append({"id": name, **look})
    for name, stated in (
        (cache_reader.INDEX, description["index_sha256"]),
        (cache_files.CHECKSUMS, description["checksums_sha256"]),
    ):
        there = (folder / name).is_file()
        matches = storage.sha256_file(folder / name) == stated if there else None
        rows.append({"id": name, "readable": there, "checksum_matches": matches, "frames": 0})
    return pandas.DataFrame(rows, columns=_FILE_COLUMNS)


def _page_sums(folder: Path, description: dict[str, Any]) -> dict[str, np.ndarray]:
    """File -> SHA-256 of its pages; empty where they are not those that were written."""
    path, files = folder / cache_files.CHECKSUMS, description["files"]
    if not path.is_file() or storage.sha256_file(path) != description["checksums_sha256"]:
        return {}
    sums = np.load(path, allow_pickle=False)
    ends = np.cumsum([stated["pages"] for stated in files.values()])
    return {
        name: sums[end - stated["pages"] : end] for (name, stated), end in zip(files.items(), ends, strict=True)
    }


def _look_into(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, sha256: str, sums: np.ndarray | None
) -> dict[str, Any]:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return {"readable": False, "frames": 0}
    blocks = (values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK))
    damaged = None if sums is None else _damaged_pages(path, sums)
    return {
        "readable": True,
        "shape_matches": values.shape == shape and values.dtype == dtype,
        # pages that are all in order are the file that was written: it need not be read a second time
        "checksum_matches": damaged == 0 or storage.sha256_file(path) == sha256,
        "damaged_pages": damaged,
        "non_finite": int(sum(block.size - np.count_nonzero(np.isfinite(block)) for block in blocks)),
        "frames": len(values),
    }


def _damaged_pages(path: Path, sums: np.ndarray) -> int:
    """How many pages of a file are not those whose checksums, uint8 [pages, 32], were written with it."""
    with open(path, "rb") as stream:
        found = [hashlib.sha256(page).digest() for page in iter(lambda: stream.read(PAGE_BYTES), b"")]
    stated = [bytes(row) for row in sums]
    return sum(one != other for one, other in zip_longest(found, stated))


def _utterance_table(
    index: "pandas.DataFrame", mixtures: "pandas.DataFrame", transform: "Spectrogram", files: "pandas.DataFrame"
) -> "pandas.DataFrame":
    """One row per utterance of the cache or of the mixtures, with how its place fits."""
    frame = index.merge(
        mixtures[["id", "split", "n_samples"]], "outer", "id", suffixes=("", "_mixture"), indicator=True
    )
    in_both = frame["_merge"] == "both"
    expected = [transform.frames(int(n)) if n > 0 else math.nan for n in frame["n_samples_mixture"].fillna(0)]
    ordered = frame.sort_values(["shard", "frame"])
    placed = ordered.groupby("shard")["n_frames"].cumsum() - ordered["n_frames"]
    held = frame["shard"].map(dict(zip(files["id"], files["frames"], strict=True))).astype(float)
    return frame.assign(
        in_both=in_both,
        same_split=(frame["split"] == frame["split_mixture"]).where(in_both),
        length_error=(frame["n_samples"] - frame["n_samples_mixture"]).abs(),
        frames_error=(frame["n_frames"] - expected).abs(),
        place_error=(frame["frame"] - placed).abs(),
        file_listed=held.notna().where(frame["shard"].notna()),
        frames_beyond=(frame["frame"] + frame["n_frames"] - held).clip(lower=0),
    )


def _sample_table(
    folder: Path,
    source: Path,
    index: "pandas.DataFrame",
    mixtures: "pandas.DataFrame",
    transform: "Spectrogram",
    wanted: int,
) -> "pandas.DataFrame":
    """Utterances spread evenly over the index, computed again from the audio."""
    import pandas
    import torch

    places = np.unique(np.linspace(0, len(index) - 1, min(wanted, len(index))).round().astype(int))
    rows = {row["id"]: row for row in mixtures.to_dict("records")}
    sample = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for pieces this small a second thread costs more in waiting than it takes over
    try:
        for entry in index.iloc[places].to_dict("records"):
            error_db = math.nan
            if entry["id"] in rows:
                pair = np.stack(shards.read_pair(source, rows[entry["id"]]))
                error_db = _error_db(folder, entry, pair, transform)
            sample.append({"id": entry["id"], "error_db": error_db})
    finally:
        torch.set_num_threads(threads)
    return pandas.DataFrame(sample, columns=["id", "error_db"])


def _error_db(folder: Path, entry: dict[str, Any], pair: np.ndarray, transform: "Spectrogram") -> float:
    """Energy of the difference over that of what was stored in dB, of the worse signal; NaN if unreadable."""
    import torch

    try:
        stored = np.load(folder / entry["shard"], mmap_mode="r", allow_pickle=False)
        stored = np.moveaxis(
            stored[entry["frame"] : entry["frame"] + entry["n_frames"]].astype(np.float64), 0, 1
        )
        if stored.ndim == 3:  # samples, in rows of one hop
            exact = pair
            stored = stored.reshape(2, -1)[:, : pair.shape[1]]
        else:
            X = transform.analyse(torch.from_numpy(pair))  # [2, F, T]
            exact = torch.view_as_real(X.transpose(1, 2)).numpy()
        difference = stored - exact
    except (OSError, ValueError, EOFError):
        return math.nan
    errors, energies = (np.square(x, dtype=np.float64).reshape(2, -1).sum(axis=1) for x in (difference, exact))
    return max(_level(error, energy) for error, energy in zip(errors, energies, strict=True))


def _level(error: float, energy: float) -> float:
    if error == 0:
        return EXACT_DB
    return max(EXACT_DB, 10 * math.log10(error / energy)) if energy > 0 else math.inf


# ------------------------------------------------------------------------------------------------- rules


def _description_rules(limits: CacheRules) -> list[Rule]:
    table = Table("cache")
    silent = "the training mixtures are silent, or clean and noisy are equal; look at their gate"
    return [
        table.true("made from the present mixtures", "from_these_mixtures", AGAIN),
        table.true("transform and corpus as set", "as_set", AGAIN),
        table.true("sampling rate of the mixtures", "rate_matches", AGAIN),
        table.within(
            "storage error as measured (dB)",
            "storage_error_db",
            EXACT_DB,
            limits.max_storage_error_db,
            "set cache.storage to float32, or change check.cache.max_storage_error_db",
        ),
        table.within("spread of the clean coefficients", "sigma_x", 1e-6, 1e6, silent),
        table.within("spread of the noise coefficients", "sigma_n", 1e-6, 1e6, silent),
    ]


def _content_rules(limits: CacheRules) -> list[Rule]:
    files, utterances, sample = Table("files"), Table("utterances"), Table("sample")
    # what cannot be read breaks the rule that says so, and no second one
    return [
        files.rows("files", 6, AGAIN),  # coefficients and peaks of two splits, index and checksums
        files.true("files are there", "readable", AGAIN),
        files.true("shapes and types", "shape_matches", AGAIN, missing=1.0),
        files.true("checksums match", "checksum_matches", AGAIN, missing=1.0),
        files.within("pages that were changed", "damaged_pages", 0, 0, AGAIN, missing=1.0),
        files.within("values that are NaN or infinite", "non_finite", 0, 0, AGAIN, missing=1.0),
        utterances.rows("utterances", 2, AGAIN),
        utterances.unique("ids", "id", AGAIN),
        utterances.true("the same utterances as the mixtures", "in_both", AGAIN),
        utterances.true("splits of the mixtures", "same_split", AGAIN, missing=1.0),
        utterances.within("samples of the mixtures", "length_error", 0, 0, AGAIN, missing=1.0),
        utterances.within("frames by length", "frames_error", 0, 0, AGAIN, missing=1.0),
        utterances.within("one behind the other", "place_error", 0, 0, AGAIN, missing=1.0),
        utterances.true("their file is listed", "file_listed", AGAIN, missing=1.0),
        utterances.within("inside their file", "frames_beyond", 0, 0, AGAIN, missing=1.0),
        sample.rows("utterances computed again", 1, "set check.cache.sample_utterances to 1 or more"),
        sample.within("same as computed again (dB)", "error_db", EXACT_DB, limits.max_storage_error_db, AGAIN),
    ]
