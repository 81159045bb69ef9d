"""Reading the STFT cache that `stft_cache.py` writes: any run of frames, without loading the rest."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from diffse import storage
from diffse.errors import DiffseError
from diffse.settings import Stft

FORMAT = 1
INDEX_COLUMNS = ["id", "split", "speaker", "shard", "frame", "n_frames", "n_samples"]
OPEN_SHARDS = 64  # memory maps kept per reader, well below the usual limit of open files


class CacheReader:
    """One split of a cache. Utterances are numbered as in the index; only what is asked for is read.

    Raises DiffseError, in one line naming the file, when the cache is missing, damaged or of another format.
    """

    def __init__(self, folder: Path | str, split: str):
        self.folder, self.split = Path(folder), split
        self.description = read_description(self.folder)
        self.stft = Stft(**self.description["stft"])
        index = read_index(self.folder)
        index = index[index["split"] == split]
        if index.empty:
            raise DiffseError(f"{self.folder}: no utterances in the {split} split")
        self.ids: list[str] = index["id"].tolist()
        self.n_samples = index["n_samples"].to_numpy()
        self.n_frames = index["n_frames"].to_numpy()
        self._shards, self._frame = index["shard"].tolist(), index["frame"].to_numpy()
        self._first_peak = np.cumsum(self.n_frames) - self.n_frames
        self._peaks = self._open(f"peaks-{split}.npy", (2,), "float32")
        self._shard = functools.lru_cache(maxsize=OPEN_SHARDS)(self._open_shard)

    def __len__(self) -> int:
        return len(self.ids)

    def expect(self, stft: Stft) -> None:
        """DiffseError when the cache was made with another transform (storage and shard size may differ)."""
        for name in ("n_fft", "hop", "window", "exponent"):
            made, wanted = getattr(self.stft, name), getattr(stft, name)
            if made != wanted:
                raise DiffseError(
                    f"{self.folder}: made with {name} {made}, the settings say {wanted}; {_again(self.folder)}"
                )

    def read(self, item: int, start: int, length: int) -> np.ndarray:
        """Frames start ... start + length - 1 of utterance `item`: [length, 2, F, 2], mapped, not yet read."""
        self._check(item, start, length)
        first = int(self._frame[item]) + start
        return self._shard(self._shards[item])[first : first + length]

    def peak(self, item: int, start: int, hops: int, signal: int) -> float:
        """Largest |sample| of the clean (0) or noisy (1) signal from frame `start`'s centre, `hops` hops on."""
        self._check(item, start, hops)
        first = int(self._first_peak[item]) + start
        return float(self._peaks[first : first + hops, signal].max())

    def _check(self, item: int, start: int, length: int) -> None:
        if not (start >= 0 and length >= 1 and start + length <= self.n_frames[item]):
            raise IndexError(f"frames {start}..{start + length} of an utterance of {self.n_frames[item]}")

    def _open_shard(self, name: str) -> np.ndarray:
        return self._open(name, (2, self.stft.n_fft // 2 + 1, 2), self.stft.storage)

    def _open(self, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        path = self.folder / name
        expected = (self.description["files"].get(name, {}).get("frames"), *shape)
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise self._damaged(path, "is missing") from None
        except (ValueError, EOFError, OSError) as error:
            raise self._damaged(path, f"cannot be read ({error})") from None
        if mapped.shape != expected or mapped.dtype != np.dtype(dtype):
            raise self._damaged(path, f"holds {mapped.dtype} {mapped.shape}, not {dtype} {expected}")
        return mapped

    def _damaged(self, path: Path, what: str) -> DiffseError:
        return DiffseError(f"{path}: {' '.join(what.split())}; {_again(self.folder)}")


def read_description(folder: Path) -> dict[str, Any]:
    """cache.json of a cache; DiffseError when there is none or it is of another format."""
    if not (folder / "cache.json").is_file():
        raise DiffseError(f"{folder}: no STFT cache here; run 'diffse cache {folder.parent.name}'")
    description = storage.read_json(folder / "cache.json")
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise DiffseError(f"{folder / 'cache.json'}: not a cache of format {FORMAT}; {_again(folder)}")
    return description


def read_index(folder: Path) -> Any:
    """index.parquet of a cache as a pandas table; DiffseError when it is missing or damaged."""
    import pandas
    import pyarrow

    path = folder / "index.parquet"
    try:
        index = pandas.read_parquet(path)
    except FileNotFoundError:
        raise DiffseError(f"{path}: is missing; {_again(folder)}") from None
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DiffseError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); {_again(folder)}"
        ) from None
    if list(index.columns) != INDEX_COLUMNS:
        raise DiffseError(f"{path}: columns {', '.join(index.columns)} are not an index's; {_again(folder)}")
    return index


def _again(folder: Path) -> str:
    return f"run 'diffse cache {folder.parent.name}' again"
