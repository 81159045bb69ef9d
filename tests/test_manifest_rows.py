"""Rows of a manifest that wait on disk: the file depends on the rows alone, not on how they came."""

import math

import pandas
import pytest

from diffse.data import manifest
from diffse.errors import DiffseError


def row(number: int, **more) -> dict:
    values = {"string": f"text {number}", "int64": number, "float64": number / 7, "bool": number % 2 == 0}
    return {name: values[kind] for name, kind in manifest.COLUMNS.items()} | more


def written(folder, rows: list[dict], size: int) -> bytes:
    folder.mkdir()
    with manifest.Collector(folder / "rows") as collector:
        for start in range(0, len(rows), size):
            collector.add(rows[start : start + size])
        assert collector.count == len(rows)
        collector.write(folder)
    assert [path.name for path in folder.iterdir()] == [manifest.FILE]
    return (folder / manifest.FILE).read_bytes()


@pytest.mark.parametrize("group", [7, 10, 100])
def test_the_bytes_do_not_depend_on_how_the_rows_came(tmp_path, monkeypatch, group):
    monkeypatch.setattr(manifest, "GROUP", group)
    rows = [row(number) for number in range(50)]
    first = written(tmp_path / "1", rows, 1)
    for size in (3, 7, 20, 50):
        assert written(tmp_path / f"{group}-{size}", rows, size) == first
    assert manifest.read(tmp_path / "1")["seed"].tolist() == list(range(50))


def test_they_are_those_of_a_table_written_at_once(tmp_path):
    rows = [row(number, snr_kind="power", t60=0.1 * number) for number in range(20)]
    rows[3]["snr_db"] = math.nan
    manifest.write(pandas.DataFrame(rows), tmp_path)
    assert written(tmp_path / "collected", rows, 6) == (tmp_path / manifest.FILE).read_bytes()


def test_what_only_some_rows_say_is_empty_in_the_others(tmp_path):
    rows = [row(0), row(1, t60=0.5), row(2, text="words")]
    written(tmp_path / "out", rows, 2)
    frame = manifest.read(tmp_path / "out")
    assert frame["text"].tolist() == ["", "", "words"]
    assert frame["t60"].tolist()[1] == 0.5 and frame["t60"].isna().tolist() == [True, False, True]
    assert list(frame.columns) == [*manifest.COLUMNS, "t60", "text"]


def test_a_row_that_lacks_something_is_refused_and_leaves_nothing(tmp_path):
    incomplete = row(1)
    del incomplete["sha256"]
    with pytest.raises(ValueError, match="lacks sha256"):
        written(tmp_path / "out", [row(0), incomplete], 1)
    assert not list((tmp_path / "out").iterdir())


def test_some_columns_are_read_and_a_lacking_one_is_named(tmp_path):
    written(tmp_path / "out", [row(number) for number in range(5)], 2)
    frame = manifest.read(tmp_path / "out", only=("id", "seed"))
    assert list(frame.columns) == ["id", "seed"] and frame["seed"].tolist() == list(range(5))
    with pytest.raises(DiffseError, match=r"manifest.parquet: lacks the column 'evaluations'; run the stage"):
        manifest.read(tmp_path / "out", manifest.ENHANCED_COLUMNS, only=("id",))
