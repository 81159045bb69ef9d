"""Files of PyTorch without their code: what published checkpoints hold is read, all else is refused."""

import argparse
import contextlib
import io
import os
import pathlib
import pickle
import re
import shutil
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from diffse import unpickling
from diffse.errors import DiffseError


def published_class(monkeypatch, module: str, name: str, base: type = object) -> type:
    """A class of a program that is not here; gone again when the test is over, or by `forget`."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        package = ".".join(parts[:depth])
        if package not in sys.modules:
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    made = type(name, (base,), {"__module__": module})
    monkeypatch.setattr(sys.modules[module], name, made, raising=False)
    return made


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def refused(path) -> str:
    with pytest.raises(DiffseError) as caught:
        unpickling.read(path)
    message = str(caught.value)
    assert "\n" not in message and "\x1b" not in message and str(path) in message
    return message


# ------------------------------------------------------------------------------------------ what is read


def test_what_lightning_stores_is_read_and_its_classes_do_nothing(tmp_path, monkeypatch):
    data_module = published_class(monkeypatch, "sgmse.data_module", "SpecsDataModule")
    attributes = published_class(monkeypatch, "pytorch_lightning.utilities.parsing", "AttributeDict", dict)
    callback = published_class(monkeypatch, "pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    hyper = attributes(nf=16, data_module_cls=data_module, gpus=None, ema=0.999)
    content = {
        "state_dict": OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.ones(3).half()),
        "hyper_parameters": hyper,
        "options": argparse.Namespace(theta=1.5, module=data_module()),
        "callbacks": {callback: {"best_model_score": torch.tensor(2.5), "dirpath": pathlib.Path("x")}},
        "numbers": [np.float64(0.25), np.int64(-3), np.float32(1.5), np.bool_(True)],
    }
    path = saved(tmp_path / "x.ckpt", content)
    allowed = set(torch.serialization.get_safe_globals())
    for name in [name for name in sys.modules if name.split(".")[0] in ("sgmse", "pytorch_lightning")]:
        monkeypatch.delitem(sys.modules, name)
    read = unpickling.read(path)
    assert torch.equal(read["state_dict"]["a"], content["state_dict"]["a"])
    assert read["state_dict"]["b"].dtype == torch.float16
    assert dict(read["hyper_parameters"]) == {**hyper, "data_module_cls": unpickling.Inert}
    assert read["options"].theta == 1.5 and type(read["options"].module) is unpickling.Inert
    assert next(iter(read["callbacks"].values()))["best_model_score"] == 2.5
    assert read["numbers"] == [0.25, -3, 1.5, True]
    assert not {"sgmse", "pytorch_lightning"} & sys.modules.keys()
    assert set(torch.serialization.get_safe_globals()) == allowed  # nothing stays allowed


def test_the_format_before_pytorch_1_6_is_read(tmp_path, monkeypatch):
    data_module = published_class(monkeypatch, "sgmse.data_module", "SpecsDataModule")
    content = {"w": torch.arange(5.0), "cls": data_module}
    path = saved(tmp_path / "old.pt", content, _use_new_zipfile_serialization=False)
    assert torch.equal(unpickling.read(path)["w"], content["w"])


def test_tensors_are_mapped_and_not_read(tmp_path):
    path = saved(tmp_path / "x.pt", {"w": torch.zeros(1 << 22)})
    read = unpickling.read(path)["w"]
    with open("/proc/self/maps") as maps:
        assert str(path) in maps.read()
    assert read.numel() == 1 << 22


def test_a_file_without_checksums_is_read(tmp_path):
    from torch.utils.serialization import config

    try:
        config.save.compute_crc32 = False
        path = saved(tmp_path / "x.pt", {"w": torch.arange(9.0)})
    finally:
        config.save.compute_crc32 = True
    assert torch.equal(unpickling.read(path)["w"], torch.arange(9.0))


@pytest.mark.parametrize("code", ["O", "f3", "V8", "U4", "<f8", 8])
def test_only_numbers_are_rebuilt_from_bytes(code):
    assert unpickling.number(unpickling.NumberType(code), b"\0" * 8) is None
    assert unpickling.number(unpickling.NumberType("f8"), b"\0" * 4) is None
    assert unpickling.number(unpickling.NumberType("f8"), b"\0" * 8) == 0.0


# --------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch exploded",), "posix.system"),
        (eval, ("open('exploded', 'w')",), "eval"),
        (exec, ("open('exploded', 'w')",), "exec"),
        (getattr, (os, "system"), "getattr"),
        (shutil.rmtree, (".",), "shutil.rmtree"),
        (pickle.loads, (pickle.dumps(1),), "pickle.loads"),
        (io.open, ("exploded", "w"), "open"),
    ],
)
def test_other_functions_are_refused_by_name_and_not_called(
    tmp_path, monkeypatch, function, arguments, name, legacy
):
    monkeypatch.chdir(tmp_path)
    if arguments[0] is os:
        arguments = ("os", "system")
    content = {"state_dict": {"w": torch.ones(2)}, "hyper_parameters": Call(function, *arguments)}
    path = saved(tmp_path / "evil.ckpt", content, _use_new_zipfile_serialization=not legacy)
    before = sorted(tmp_path.iterdir())
    message = refused(path)
    assert re.search(rf"asks for '[\w.]*{re.escape(name)}'", message), message
    assert "it was not loaded" in message
    assert sorted(tmp_path.iterdir()) == before


def test_a_stand_in_that_is_called_with_anything_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_module = published_class(monkeypatch, "sgmse.data_module", "SpecsDataModule")
    path = saved(tmp_path / "x.ckpt", {"a": Call(data_module, "touch exploded", {"shell": True})})
    assert type(unpickling.read(path)["a"]) is unpickling.Inert
    path = saved(tmp_path / "y.ckpt", {"a": Call(data_module, Call(os.system, "touch exploded"))})
    assert "posix.system" in refused(path)
    assert not (tmp_path / "exploded").exists()


def test_a_module_of_the_program_gives_no_other_names_of_it(tmp_path, monkeypatch):
    published_class(monkeypatch, "sgmse.data_module", "SpecsDataModule")
    other = published_class(monkeypatch, "sgmse.util", "run")
    assert "sgmse.util.run" in refused(saved(tmp_path / "x.ckpt", {"a": other}))


def repacked(source, target, change=lambda name, data: data, extra=(), compression=zipfile.ZIP_STORED):
    """A copy of an archive with other entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, data in extra:
            new.writestr(name, data)
    return target


@pytest.fixture
def sound(tmp_path):
    return saved(tmp_path / "sound.pt", {"w": torch.arange(1000.0)})


def swapped_pickle(data: bytes):
    return lambda name, old: data if name.endswith("data.pkl") else old


def test_a_newer_pickle_is_refused(tmp_path, sound):
    evil = pickle.dumps(Call(os.system, f"touch {tmp_path / 'exploded'}"), 4)
    message = refused(repacked(sound, tmp_path / "x.pt", swapped_pickle(evil)))
    assert "without executing" in message
    assert not (tmp_path / "exploded").exists()


def test_an_entry_that_leaves_the_archive_is_written_nowhere(tmp_path, sound):
    folder = tmp_path / "inner"
    folder.mkdir()
    path = repacked(sound, folder / "x.pt", extra=[("../evil", b"x")])
    with contextlib.suppress(DiffseError):
        unpickling.read(path)
    assert not (tmp_path / "evil").exists()
    assert list(folder.iterdir()) == [path]


def test_less_data_than_stated_is_refused(tmp_path, sound):
    cut = repacked(sound, tmp_path / "x.pt", lambda name, old: old[:16] if name.endswith("data/0") else old)
    assert "damaged" in refused(cut)


def test_compression_is_refused(tmp_path, sound):
    """Mapped compressed data would silently be other numbers."""
    path = repacked(sound, tmp_path / "x.pt", compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(path)


def test_a_flipped_bit_is_found(sound):
    data = bytearray(sound.read_bytes())
    place = data.index(np.arange(1000.0, dtype=np.float32).tobytes())
    data[place + 1234] ^= 1
    sound.write_bytes(data)
    assert "damaged" in refused(sound)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(tmp_path, sound, share):
    data = sound.read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(data[: max(4, int(len(data) * share))])
    assert "cut short" in refused(path)


def _legacy_cut(path):
    saved(path, {"w": torch.arange(1000.0)}, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])


def _tar(path):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))


def _script(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def _plain_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


FOREIGN = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "text": (lambda path: path.write_text("state_dict: none"), "not a checkpoint that PyTorch wrote"),
    "audio": (lambda path: soundfile.write(path, np.zeros(99), 16000, format="WAV"), "b'RIFF"),
    "safetensors": (lambda path: save_file({"w": torch.ones(2)}, path), "not a checkpoint that PyTorch wrote"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Call(os.system, "touch exploded"))), "bare pickle"),
    "tar": (_tar, "not a checkpoint that PyTorch wrote"),
    "program": (_script, "compressed"),
    "other zip": (_plain_zip, "without executing"),
    "cut legacy": (_legacy_cut, "without executing"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_one_line(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.ckpt"
    make, message = FOREIGN[kind]
    make(path)
    assert message in refused(path)
    assert not (tmp_path / "exploded").exists()
