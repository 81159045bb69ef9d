"""Shards and manifests: exact round trips, checksums, limits, and what happens when something breaks."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffse import storage
from diffse.audio import AudioError
from diffse.data import manifest, shards
from diffse.errors import DiffseError

RATE = 16000
STEP = 2.0**-23


def waves(count: int = 6, channels: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [(0.2 * rng.standard_normal((channels, 500 + 137 * k))).astype(np.float32) for k in range(count)]


def write(folder: Path, items: list[np.ndarray], max_bytes: int = shards.MAX_BYTES) -> list[dict]:
    with shards.ShardWriter(folder, RATE, items[0].shape[0], max_bytes) as writer:
        return [writer.add(item) for item in items]


def read(folder: Path, row: dict) -> np.ndarray:
    return shards.read_item(folder, row["shard"], row["position"], row["n_samples"])


@pytest.mark.parametrize("channels", [1, 2])
def test_round_trip_in_any_order(tmp_path, channels):
    items = waves(channels=channels)
    rows = write(tmp_path, items, max_bytes=5000)
    assert len({row["shard"] for row in rows}) > 2, "the test must span several shards"
    for k in (3, 0, 5, 1, 4, 2):
        back = read(tmp_path, rows[k])
        assert (back.dtype, back.shape) == (np.float32, items[k].shape)
        assert np.max(np.abs(back - items[k])) <= STEP / 2
        assert rows[k]["gain"] == 1.0


def test_shards_stay_below_their_size_and_never_cut_an_item(tmp_path):
    rows = write(tmp_path, waves(20), max_bytes=9000)
    sizes: dict[str, int] = {}
    for row in rows:
        assert row["position"] == sizes.get(row["shard"], 0), "items lie one behind the other"
        sizes[row["shard"]] = row["position"] + row["n_samples"]
    assert all(shards.item_bytes(samples, 2) <= 9000 or samples > 1500 for samples in sizes.values())
    assert sorted(sizes) == [f"shard-{k:05d}.flac" for k in range(len(sizes))]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(sizes)


def test_item_larger_than_a_shard_gets_its_own(tmp_path):
    rows = write(tmp_path, waves(3), max_bytes=10)
    assert [row["shard"] for row in rows] == ["shard-00000.flac", "shard-00001.flac", "shard-00002.flac"]


def test_loud_item_is_scaled_and_the_gain_told(tmp_path):
    loud = 3.0 * waves(1)[0] / np.max(np.abs(waves(1)[0]))
    (row,) = write(tmp_path, [loud])
    assert 0.33 < row["gain"] < 1.0 / 3.0
    back = read(tmp_path, row)
    assert np.max(np.abs(back)) < 1.0
    assert np.max(np.abs(back / row["gain"] - loud)) <= 3.0 * STEP


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.floats(-8.0, 8.0, width=32) | st.sampled_from([1.0, -1.0, 0.9999999, -0.9999999, 0.0]),
        min_size=1,
        max_size=40,
    )
)
def test_quantising_never_clips_and_is_off_by_half_a_step_at_most(values):
    wave = np.array([values], np.float32)
    stored, gain = shards.quantise(wave)
    assert gain == 1.0 or np.max(np.abs(wave)) >= 1.0
    assert np.all(stored & 0xFF == 0), "24 bits in the upper bytes"
    error = shards.to_float(stored).astype(np.float64) - wave.astype(np.float64) * gain
    assert np.max(np.abs(error)) <= STEP / 2 + 1e-12


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_refused(value):
    with pytest.raises(DiffseError, match="NaN or infinite"):
        shards.quantise(np.array([[0.0, value]], np.float32))


def test_checksum_is_that_of_the_integers_read_back(tmp_path):
    rows = write(tmp_path, waves())
    for row in rows:
        stored = shards.read_stored(tmp_path, row["shard"], row["position"], row["n_samples"])
        assert stored.dtype == np.int32
        assert shards.item_sha256(stored) == row["sha256"]
        assert shards.verify(tmp_path, row)
    assert not shards.verify(tmp_path, rows[0] | {"sha256": rows[1]["sha256"]})
    assert not shards.verify(tmp_path, rows[0] | {"position": 1})


def test_pair_of_a_row_in_any_form(tmp_path):
    items = waves(2)
    frame = pd.DataFrame(write(tmp_path, items))
    forms = [frame.iloc[1], frame.iloc[1].to_dict(), list(frame.itertuples())[1]]
    for row in forms:
        clean, noisy = shards.read_pair(tmp_path, row)
        assert clean.shape == noisy.shape == (637,)
        assert np.max(np.abs(np.stack([clean, noisy]) - items[1])) <= STEP / 2


def test_same_items_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, waves(), max_bytes=5000)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_missing_and_damaged_shards_name_the_file(tmp_path):
    (row,) = write(tmp_path, waves(1))
    path = tmp_path / row["shard"]
    with pytest.raises(AudioError, match=r"shard-00000\.flac: ends before sample 600"):
        shards.read_item(tmp_path, row["shard"], 100, 500)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=r"shard-00000\.flac: (is damaged|ends before)"):
        read(tmp_path, row)
    path.unlink()
    with pytest.raises(AudioError, match=r"shard-00000\.flac: is missing; run the stage"):
        read(tmp_path, row)


def test_wrong_shape_is_refused(tmp_path):
    with shards.ShardWriter(tmp_path, RATE, 2) as writer:
        for shape in ((1, 10), (2, 0)):
            with pytest.raises(ValueError, match="does not fit"):
                writer.add(np.zeros(shape, np.float32))


def test_exception_in_the_middle_keeps_the_old_folder(tmp_path):
    target = tmp_path / "mixtures"
    with storage.atomic_folder(target) as folder:
        old = write(folder, waves(2))
    with (
        pytest.raises(KeyboardInterrupt),
        storage.atomic_folder(target) as folder,
        shards.ShardWriter(folder, RATE, 2) as writer,
    ):
        writer.add(waves(1)[0])
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["mixtures"]
    assert all(shards.verify(target, row) for row in old)


def test_full_disk_is_one_line_that_names_the_shard(tmp_path):
    """A file-size limit stands for the full disk; it must be set in a process of its own."""
    program = f"""
        import resource, numpy
        from diffse.data import shards
        from diffse.errors import DiffseError
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        wave = numpy.random.default_rng(0).uniform(-0.5, 0.5, (2, 50000)).astype("f4")
        try:
            with shards.ShardWriter({str(tmp_path)!r}, 16000, 2) as writer:
                for _ in range(4):
                    writer.add(wave)
        except DiffseError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.stdout.startswith(f"{tmp_path}/shard-00000.flac: cannot be written"), done.stdout + done.stderr
    assert "is the disk full?" in done.stdout
    assert done.stdout.count("\n") == 1


# ------------------------------------------------------------------------------------------- manifests


def frame(count: int = 3) -> pd.DataFrame:
    empty = {"string": "", "int64": 7, "float64": float("nan"), "bool": True}
    rows = [{name: empty[kind] for name, kind in manifest.COLUMNS.items()} for _ in range(count)]
    for k, row in enumerate(rows):
        row |= {"id": f"a_{k}", "seed": (1 << 63) - 1 - k, "snr_measured_db": 3.5}
    return pd.DataFrame(rows)


def test_manifest_round_trip_keeps_types_and_order(tmp_path):
    manifest.write(frame(), tmp_path)
    back = manifest.read(tmp_path)
    assert list(back.columns) == list(manifest.COLUMNS)
    assert list(back["id"]) == ["a_0", "a_1", "a_2"]
    assert back["seed"].dtype == np.int64
    assert list(back["seed"]) == [(1 << 63) - 1 - k for k in range(3)]
    assert back["finite"].dtype == bool
    assert back["snr_db"].isna().all()
    assert list(back["room"]) == ["", "", ""]


def test_manifest_has_the_same_bytes_whatever_the_column_order(tmp_path):
    manifest.write(frame(), tmp_path / "a")
    manifest.write(frame()[sorted(manifest.COLUMNS)].assign(extra=1), tmp_path / "b")
    assert (tmp_path / "a" / manifest.FILE).read_bytes() == (tmp_path / "b" / manifest.FILE).read_bytes()


def test_other_columns_for_other_artifacts(tmp_path):
    empty = {"string": "x", "int64": 1, "float64": 0.5}
    row = {name: empty[kind] for name, kind in manifest.ENHANCED_COLUMNS.items()}
    manifest.write(pd.DataFrame([row]), tmp_path, manifest.ENHANCED_COLUMNS)
    assert manifest.read(tmp_path, manifest.ENHANCED_COLUMNS).iloc[0].to_dict() == row


def test_manifest_errors_name_the_file(tmp_path):
    with pytest.raises(DiffseError, match=r"manifest\.parquet: no such file"):
        manifest.read(tmp_path)
    with pytest.raises(ValueError, match="lacks seed"):
        manifest.write(frame().drop(columns="seed"), tmp_path)
    manifest.write(frame(), tmp_path)
    with pytest.raises(DiffseError, match=r"manifest\.parquet: lacks the column 'evaluations'"):
        manifest.read(tmp_path, manifest.ENHANCED_COLUMNS)
    path = tmp_path / manifest.FILE
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DiffseError, match=r"manifest\.parquet: damaged") as caught:
        manifest.read(tmp_path)
    assert "\n" not in str(caught.value)
