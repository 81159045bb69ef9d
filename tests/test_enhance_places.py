"""`diffse enhance IN OUT`: objects of a store instead of folders, and files divided among machines."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import tiny

from diffse import enhance_files, enhance_places, objects
from diffse.cli import main
from diffse.enhancer import Enhancer
from diffse.errors import DiffseError

NAMES = ("a.wav", "b.wav", "sub/c.flac", "sub/d.wav", "e.wav")


class Halving:
    """Stands for a checkpoint: half of each file plus a sign of the name that its noise is drawn of."""

    rate, resample, evaluations = 16000, True, 1

    def stream(self, read, samples, rate, key):
        yield read(0, samples) / 2 + len(key) / 1000


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    monkeypatch.setattr(Enhancer, "from_checkpoint", lambda *_, **__: Halving())
    folder = tmp_path / "in"
    for place, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, tiny.voice(place, 0.1), 16000)
    (folder / "notes.txt").write_text("no audio")
    return folder


def contents(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*") if file.is_file()}


def test_shards_together_make_the_whole(recordings, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert enhance_files.enhance_paths(recordings, whole, tmp_path)["enhanced"] == 5
    counts = [
        enhance_files.enhance_paths(recordings, parts, tmp_path, shard=f"{i}/3")["enhanced"] for i in (1, 2, 3)
    ]
    assert counts == [2, 2, 1]
    assert contents(parts) == contents(whole)
    assert enhance_files.enhance_paths(recordings, parts, tmp_path, shard="7/9")["enhanced"] == 0


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none_is_one_line(recordings, tmp_path, shard, capsys):
    command = ["enhance", str(recordings), str(tmp_path / "o"), "--checkpoint", "x", f"--shard={shard}"]
    assert main(command) == 2
    assert (
        capsys.readouterr().err
        == f"diffse: --shard is '{shard}'; write I/N with I from 1 to N, for example 2/5\n"
    )


def test_a_shard_is_for_files_only(capsys):
    with pytest.raises(SystemExit):
        main(["enhance", "bridge.toy", "toy", "--shard", "1/2"])
    assert "--shard needs --checkpoint" in capsys.readouterr().err


def test_objects_are_enhanced_like_files(recordings, tmp_path, store):
    whole, back = tmp_path / "whole", tmp_path / "back"
    enhance_files.enhance_paths(recordings, whole, tmp_path)
    for name in NAMES:
        objects.upload(recordings / name, f"{store}/in/{name}")
    objects.write(f"{store}/in/notes.txt", b"no audio")
    command = ["enhance", f"{store}/in", f"{store}/in/out", "--checkpoint", "x"]
    for shard in ("1/2", "2/2"):
        card = tmp_path / "card.json"
        assert main([*command, "--shard", shard, "--write-card", str(card)]) == 0
        assert json.loads(card.read_text())["numbers"]["enhanced"] in (2, 3)
    for entry in objects.listing(f"{store}/in/out"):
        objects.download(entry.url, back / entry.url.removeprefix(f"{store}/in/out/"))
    assert contents(back) == contents(whole)
    again = enhance_files.enhance_paths(f"{store}/in", f"{store}/in/out", tmp_path)
    assert (again["enhanced"], again["kept"]) == (0, 5)


def test_folders_and_stores_can_be_mixed(recordings, tmp_path, store):
    assert enhance_files.enhance_paths(recordings, f"{store}/out", tmp_path)["enhanced"] == 5
    assert enhance_files.enhance_paths(f"{store}/out", tmp_path / "twice", tmp_path)["enhanced"] == 5
    once, _ = soundfile.read(recordings / "a.wav")
    twice, _ = soundfile.read(tmp_path / "twice" / "a.wav")
    assert np.abs(twice - ((once / 2 + 0.005) / 2 + 0.005)).max() < 1e-4
    one = enhance_files.enhance_paths(f"{store}/out/sub/c.flac", tmp_path / "one.flac", tmp_path)
    assert one["enhanced"] == 1 and (tmp_path / "one.flac").is_file()


def test_a_bad_object_is_named_and_does_not_stop_the_others(recordings, tmp_path, store):
    objects.write(f"{store}/in/bad.wav", b"RIFFnothing")
    objects.upload(recordings / "a.wav", f"{store}/in/good.wav")
    with pytest.raises(DiffseError) as failed:
        enhance_files.enhance_paths(f"{store}/in", tmp_path / "out", tmp_path)
    assert str(failed.value).startswith(f"{store}/in/bad.wav: ")
    assert str(failed.value).endswith("1 of 2 files were enhanced")
    assert (tmp_path / "out" / "good.wav").is_file()


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("{store}/none", "{store}/out", "files in this folder"),
        ("{store}/in", "{store}/in", "would overwrite its own input"),
        ("{store}/out/../up", "{folder}", "files in this folder"),
    ],
)
def test_what_cannot_be_planned_is_refused(recordings, tmp_path, store, source, target, message):
    objects.upload(recordings / "a.wav", f"{store}/in/a.wav")
    places = [text.format(store=store, folder=tmp_path / "o") for text in (source, target)]
    with pytest.raises(DiffseError, match=message):
        enhance_places.plan(*places)


def test_a_name_that_leads_out_of_the_folder_is_refused(store, tmp_path, monkeypatch):
    """Keys of a store can be anything; moto itself refuses to take this one."""
    entry = objects.Entry(f"{store}/in/../../up.wav", 1, None, "")
    monkeypatch.setattr(objects, "listing", lambda url: iter([entry]))
    with pytest.raises(DiffseError, match="leads out of the folder"):
        enhance_places.plan(f"{store}/in", tmp_path)


def test_nothing_is_left_behind(recordings, tmp_path, store, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    enhance_files.enhance_paths(recordings, f"{store}/out", tmp_path)
    assert list(scratch.iterdir()) == []
    shutil.rmtree(scratch)
