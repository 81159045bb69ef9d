"""Reading the cache that `stft_cache.py` writes: any run of frames, without loading the rest."""

import functools
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from diffse import storage
from diffse.data import cache_files
from diffse.data.cache_files import CHECKSUMS, Files
from diffse.errors import DiffseError
from diffse.settings import Stft

FORMAT = 2
INDEX = "index.parquet"
INDEX_COLUMNS = ["id", "split", "speaker", "shard", "frame", "n_frames", "n_samples"]
OPEN_SHARDS = 64  # memory maps kept per reader, well below the usual limit of open files


def layout(stft: Stft) -> tuple[tuple[int, ...], str]:
    """Shape of one stored frame, and the type of its numbers, for either form of the cache."""
    if stft.form == "waveform":
        return (2, stft.hop), "float32"
    return (2, stft.n_fft // 2 + 1, 2), stft.storage


class CacheReader:
    """One split of a cache. Utterances are numbered as in the index; only what is asked for is read.

    A cache that is not in `folder` may be in a store (`cache_files`). Raises DiffseError, in one line naming
    the file, when the cache is missing, damaged or of another format.
    """

    def __init__(self, folder: Path | str, split: str):
        self.folder, self.split = Path(folder), split
        self._files = cache_files.files_of(self.folder)
        self.description = _description(self.folder, self._files)
        self.stft = Stft(**self.description["stft"])
        index = _index(self.folder, self._files, self.description["index_sha256"])
        index = index[index["split"] == split]
        if index.empty:
            raise DiffseError(f"{self._files.name}: no utterances in the {split} split")
        self.ids: list[str] = index["id"].tolist()
        self.n_samples = index["n_samples"].to_numpy()
        self.n_frames = index["n_frames"].to_numpy()
        self._shards, self._frame = index["shard"].tolist(), index["frame"].to_numpy()
        self._first_peak = np.cumsum(self.n_frames) - self.n_frames
        self._page_sums = self._read_page_sums()
        self._peaks = self._open(f"peaks-{split}.npy", (2,), "float32")
        self._shard = functools.lru_cache(maxsize=OPEN_SHARDS)(self._open_shard)

    def __len__(self) -> int:
        return len(self.ids)

    def expect(self, stft: Stft) -> None:
        """DiffseError when the cache was made with another transform (form, storage and size may differ)."""
        for name in ("n_fft", "hop", "window", "exponent"):
            made, wanted = getattr(self.stft, name), getattr(stft, name)
            if made != wanted:
                raise DiffseError(
                    f"{self._files.name}: made with {name} {made}, the settings say {wanted}; "
                    f"{_again(self.folder)}"
                )

    def read(self, item: int, start: int, length: int) -> np.ndarray:
        """Frames start ... start + length - 1 of utterance `item`: [length, 2, F, 2], or [length, 2, hop].

        Of a local cache they are mapped, not yet read.
        """
        self._check(item, start, length)
        first = int(self._frame[item]) + start
        return self._shard(self._shards[item])[first : first + length]

    def read_samples(self, item: int, first: int, last: int) -> np.ndarray:
        """Samples first ... last - 1 of an utterance of a waveform cache: float32 [2, last - first]."""
        hop = self.stft.hop
        start, stop = first // hop, -(-last // hop)
        rows = self.read(item, start, stop - start)
        pair = np.ascontiguousarray(rows.transpose(1, 0, 2)).reshape(2, -1)
        return pair[:, first - start * hop : last - start * hop]

    def peak(self, item: int, start: int, hops: int, signal: int) -> float:
        """Largest |sample| of the clean (0) or noisy (1) signal from frame `start`'s centre, `hops` hops on."""
        self._check(item, start, hops)
        first = int(self._first_peak[item]) + start
        return float(self._peaks[first : first + hops][:, signal].max())

    def _check(self, item: int, start: int, length: int) -> None:
        if not (start >= 0 and length >= 1 and start + length <= self.n_frames[item]):
            raise IndexError(f"frames {start}..{start + length} of an utterance of {self.n_frames[item]}")

    def _open_shard(self, name: str) -> Any:
        return self._open(name, *layout(self.stft))

    def _read_page_sums(self) -> dict[str, np.ndarray]:
        """File -> uint8 [pages, 32]."""
        data = _small(self.folder, self._files, CHECKSUMS)
        _expect_checksum(self.folder, self._files, CHECKSUMS, data, self.description["checksums_sha256"])
        sums = np.load(io.BytesIO(data), allow_pickle=False)
        counts = {name: entry["pages"] for name, entry in self.description["files"].items()}
        ends = np.cumsum(list(counts.values()))
        return {name: sums[end - count : end] for (name, count), end in zip(counts.items(), ends, strict=True)}

    def _open(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        stated = self.description["files"].get(name)
        if stated is None:
            raise _damaged(self.folder, self._files, name, "is not among the files of this cache")
        expected = (stated["frames"], *shape)
        try:
            array = self._files.array(name, self._page_sums[name])
        except FileNotFoundError:
            raise _damaged(self.folder, self._files, name, "is missing") from None
        except (ValueError, EOFError, OSError) as error:
            raise _damaged(self.folder, self._files, name, f"cannot be read ({error})") from None
        if array.shape != expected or array.dtype != np.dtype(dtype):
            what = f"holds {array.dtype} {array.shape}, not {dtype} {expected}"
            raise _damaged(self.folder, self._files, name, what)
        return array


def read_description(folder: Path) -> dict[str, Any]:
    """cache.json of a cache; DiffseError when there is none or it is of another format."""
    return _description(folder, cache_files.files_of(folder))


def read_index(folder: Path) -> Any:
    """index.parquet of a cache as a pandas table; DiffseError when it is missing or damaged."""
    return _index(folder, cache_files.files_of(folder))


def _description(folder: Path, files: Files) -> dict[str, Any]:
    try:
        description = storage.parse_json(files.read("cache.json"), f"{files.name}/cache.json")
    except FileNotFoundError:
        raise DiffseError(
            f"{files.name}: no STFT cache here; run 'diffse cache {folder.parent.name}'"
        ) from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise DiffseError(f"{files.name}/cache.json: not a cache of format {FORMAT}; {_again(folder)}")
    return description


def _index(folder: Path, files: Files, sha256: str = "") -> Any:
    import pandas
    import pyarrow

    data = _small(folder, files, INDEX)
    try:
        index = pandas.read_parquet(io.BytesIO(data))
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise _damaged(folder, files, INDEX, f"cannot be read ({error})") from None
    if list(index.columns) != INDEX_COLUMNS:
        raise _damaged(folder, files, INDEX, f"columns {', '.join(index.columns)} are not an index's")
    if sha256:
        _expect_checksum(folder, files, INDEX, data, sha256)
    return index


def _small(folder: Path, files: Files, name: str) -> bytes:
    try:
        return files.read(name)
    except FileNotFoundError:
        raise _damaged(folder, files, name, "is missing") from None


def _expect_checksum(folder: Path, files: Files, name: str, data: bytes, sha256: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _damaged(folder, files, name, "is not what was written with cache.json")


def _damaged(folder: Path, files: Files, name: str, what: str) -> DiffseError:
    return DiffseError(f"{files.name}/{name}: {' '.join(what.split())}; {_again(folder)}")


def _again(folder: Path) -> str:
    return f"run 'diffse cache {folder.parent.name}' again"
