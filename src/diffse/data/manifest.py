"""Manifests: one Parquet row per utterance, with every fact that the audio cannot tell by itself."""

import math
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from diffse import storage
from diffse.errors import DiffseError

if TYPE_CHECKING:
    import pandas
    import pyarrow

FILE = "manifest.parquet"
REJECTED = "rejected.csv"  # file, reason
GROUP = 1 << 14  # rows that are written together
SPLITS = ("train", "valid", "test")

# Column -> type, in order. Offsets are samples at the rate of the source file; levels and peaks are those of
# the stored signals; `clipped` counts samples at full scale in the recordings as they came (the clean one;
# of ready pairs the worse of both), because storing them never clips.
COLUMNS = {
    "id": "string",
    "corpus": "string",
    "split": "string",
    "speaker": "string",
    "gender": "string",  # "" if unknown
    "clean_source": "string",  # relative to sources/<corpus>
    "clean_sha256": "string",
    "clean_offset": "int64",
    "noise_source": "string",  # the noisy file, for ready pairs
    "noise_sha256": "string",
    "noise_kind": "string",  # "" for ready pairs
    "noise_offset": "int64",
    "room": "string",
    "snr_db": "float64",  # asked for, or as the corpus states it; NaN where it does not
    "snr_measured_db": "float64",
    "gain": "float64",  # of both signals, against clipping
    "n_samples": "int64",
    "seconds": "float64",
    "rate": "int64",
    "peak": "float64",  # max |noisy|
    "clipped": "float64",
    "level_dbfs": "float64",  # RMS of clean
    "noisy_dbfs": "float64",
    "finite": "bool",
    "seed": "int64",
    "shard": "string",
    "position": "int64",  # first sample in the shard
    "sha256": "string",  # of the stored samples: shards.item_sha256
}

# Columns that are written only where a corpus has something to say in them; the others keep their bytes.
OPTIONAL = {
    "t60": "float64",  # of the response, measured, in seconds; NaN without a room
    "drr_db": "float64",  # of the response, direct to reverberant
    "target": "string",  # what clean is in a room: "anechoic", "early"
    "snr_kind": "string",  # how snr_db is meant: "power", "active", "loudness"
    "snr_mixed_db": "float64",  # by that measure, of speech and noise as they were mixed
    "noise_gain": "float64",  # of the noise against its recording
    "level_db": "float64",  # gain of both signals beside `gain`
    "done": "string",  # what else was done, for people
    "text": "string",  # transcript; "" if unknown
}

# Manifest of enhanced audio.
ENHANCED_COLUMNS = {
    "id": "string",
    "n_samples": "int64",
    "rate": "int64",
    "shard": "string",
    "position": "int64",
    "gain": "float64",  # stored = enhanced * gain
    "peak": "float64",
    "level_dbfs": "float64",
    "noisy_dbfs": "float64",
    "evaluations": "int64",
    "sha256": "string",
}


class Collector:
    """Rows on their way to a manifest, on disk until the last one is there: memory does not grow with them.

    A context manager; `path` is a file of its own, which is removed at the end.
    """

    def __init__(self, path: Path):
        import pyarrow

        self.path, self.count = path, 0
        self._told: set[str] = set()  # columns of OPTIONAL that some row has
        self._schema = _schema(COLUMNS | OPTIONAL)
        self._sink = pyarrow.OSFile(str(path), "wb")
        self._writer = pyarrow.ipc.new_stream(self._sink, self._schema)

    def __enter__(self) -> "Collector":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._sink.closed:
            self._sink.close()
        self.path.unlink(missing_ok=True)

    def add(self, rows: list[dict]) -> None:
        """Append rows: column -> value, with those of `OPTIONAL` that a row has something to say in."""
        import pyarrow

        self.count += len(rows)
        self._told.update(name for row in rows for name in OPTIONAL if name in row)
        arrays = [pyarrow.array([row.get(field.name) for row in rows], field.type) for field in self._schema]
        self._writer.write_batch(pyarrow.RecordBatch.from_arrays(arrays, schema=self._schema))

    def write(self, folder: Path | str) -> None:
        """Write `<folder>/manifest.parquet`, atomically; bytes depend on the rows alone."""
        import pyarrow
        import pyarrow.parquet

        self._writer.close()
        self._sink.close()
        names = [*COLUMNS, *(name for name in OPTIONAL if name in self._told)]
        schema = _schema({name: (COLUMNS | OPTIONAL)[name] for name in names})
        with (
            storage.atomic_file(Path(folder) / FILE) as temporary,
            pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as target,
            pyarrow.ipc.open_stream(str(self.path)) as stream,
        ):
            for group in _groups(stream):
                target.write_table(_complete(group, schema))


def _groups(batches: Iterable["pyarrow.RecordBatch"]) -> Iterator["pyarrow.Table"]:
    """Tables of `GROUP` rows, and a last one of what is left, whatever the sizes of the batches."""
    import pyarrow

    waiting: list[pyarrow.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        while sum(map(len, waiting)) >= GROUP:
            table = pyarrow.Table.from_batches(waiting)
            yield table[:GROUP]
            waiting = table[GROUP:].to_batches()
    if waiting:
        yield pyarrow.Table.from_batches(waiting)


def _complete(table: "pyarrow.Table", schema: "pyarrow.Schema") -> "pyarrow.Table":
    """The columns of `schema`. What a row does not say in one of `OPTIONAL` is "" or NaN."""
    import pyarrow

    columns = []
    for field in schema:
        column = table[field.name]
        if column.null_count and field.name not in OPTIONAL:
            raise ValueError(f"a row of the manifest lacks {field.name}")
        if column.null_count:
            column = column.fill_null("" if field.type == pyarrow.string() else math.nan)
        columns.append(column)
    return pyarrow.Table.from_arrays(columns, schema=schema).combine_chunks()


def _schema(columns: dict[str, str]) -> "pyarrow.Schema":
    import pyarrow

    types = {
        "string": pyarrow.string(),
        "int64": pyarrow.int64(),
        "float64": pyarrow.float64(),
        "bool": pyarrow.bool_(),
    }
    return pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])


def write(frame: "pandas.DataFrame", folder: Path | str, columns: dict[str, str] = COLUMNS) -> None:
    """Write `frame` as `<folder>/manifest.parquet`, atomically, with `columns` in their types.

    Those of `OPTIONAL` that the frame has follow them; nothing else is written. The same rows give the same
    bytes. ValueError when a column is missing or does not fit its type.
    """
    import pyarrow
    import pyarrow.parquet

    columns = columns | {name: kind for name, kind in OPTIONAL.items() if name in frame.columns}

    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(f"the manifest lacks {', '.join(missing)}")
    schema = _schema(columns)
    # from_pandas=False keeps NaN a number; null would read as "no value was measured"
    arrays = [
        pyarrow.array(frame[name].tolist(), field.type, from_pandas=False)
        for name, field in zip(columns, schema, strict=True)
    ]
    with storage.atomic_file(Path(folder) / FILE) as temporary:
        pyarrow.parquet.write_table(
            pyarrow.Table.from_arrays(arrays, schema=schema), temporary, compression="zstd"
        )


def read(
    folder: Path | str, columns: dict[str, str] = COLUMNS, only: Collection[str] | None = None
) -> "pandas.DataFrame":
    """Read the manifest of `folder`, or `only` some of its columns, which takes less memory.

    DiffseError when it is missing, damaged or lacks one of `columns`.
    """
    import pyarrow
    import pyarrow.parquet

    path = Path(folder) / FILE
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            frame = None if missing else file.read(None if only is None else list(only)).to_pandas()
    except FileNotFoundError:
        raise DiffseError(f"{path}: no such file; run the stage that writes it") from None
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DiffseError(f"{path}: damaged ({reason}); delete it and run its stage again") from None
    if missing:
        raise DiffseError(f"{path}: lacks the column '{missing[0]}'; run the stage that writes it again")
    return frame
