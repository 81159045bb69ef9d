"""Files of PyTorch, read without executing what they carry.

PyTorch's own weights-only reader does the parsing; it builds tensors, numbers, text and containers only. Files
that Lightning wrote also name a few classes, such as that of the data set. Each of those gets a stand-in
defined here, which takes anything and does nothing; any other name is refused before anything is built.
"""

import re
import warnings
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from diffse.errors import DiffseError

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number before PyTorch 1.6


def shown(text: object) -> str:
    """Text of a file as it may stand in a message: one short line."""
    words = "".join(sign if sign.isprintable() else " " for sign in str(text)[:200]).split()
    return " ".join(words)[:80]


class Inert:
    """Stands for a class or an object of the program that wrote the file."""

    def __new__(cls, *args, **options) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *args, **options) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class Holder(Inert):
    """Stands for `argparse.Namespace`: keeps its attributes, which may be hyper-parameters."""

    def __setstate__(self, state: object) -> None:
        self.__dict__.update(state if type(state) is dict else {})


class NumberType(Inert):
    """Stands for `numpy.dtype`; only numbers are known, never objects."""

    def __init__(self, code: str = "", *options: object) -> None:
        self.code = code if isinstance(code, str) and re.fullmatch(r"[iuf][1248]|b1", code) else ""


def number(kind: object, data: object = b"") -> bool | int | float | None:
    """Stands for the function that rebuilds a NumPy scalar; None for what is not a number."""
    if not isinstance(kind, NumberType) or not kind.code or not isinstance(data, bytes):
        return None
    kind = np.dtype(f"<{kind.code}")
    return np.frombuffer(data, kind)[0].item() if len(data) == kind.itemsize else None


# Names (regular expressions) that files of the published systems hold, and what stands in for each.
_LIGHTNING = r"(pytorch_lightning|lightning|lightning_fabric)\."
STAND_INS = (
    (r"(\w+\.)*data_module\.\w+", Inert),
    (_LIGHTNING + r"([\w.]+\.)?callbacks\.[\w.]+", Inert),
    (_LIGHTNING + r"[\w.]+\.AttributeDict", OrderedDict),
    (r"argparse\.Namespace", Holder),
    (r"pathlib\.(Pure)?(Posix|Windows)?Path", Inert),
    (r"numpy\.(_?core)\.multiarray\.scalar", number),
    (r"numpy\.dtype", NumberType),
)
_LEGACY_NAMES = ("sgmse.data_module.SpecsDataModule", "argparse.Namespace")


def read(path: Path | str) -> object:
    """What a `.ckpt` or `.pt` file holds, tensors on the CPU and, where possible, mapped from the file.

    DiffseError, one line, for what is no such file, is damaged, or names anything but what is above.
    """
    path = Path(path)
    zipped = _is_zip(path)
    if zipped:
        _check_archive(path)
    names = _names(path) if zipped else _LEGACY_NAMES
    stand_ins = [(_stand_in(path, name), name) for name in names]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # torch raises many kinds for a damaged or hostile file
        raise _refusal(path, error) from None


def _is_zip(path: Path) -> bool:
    """True for today's format, False for that before PyTorch 1.6; DiffseError for any other file."""
    if path.is_dir():
        raise DiffseError(f"{path}: is a folder; name the checkpoint file in it")
    try:
        with open(path, "rb") as stream:
            start = stream.read(len(_LEGACY))
    except FileNotFoundError:
        raise DiffseError(f"{path}: no such file") from None
    except OSError as error:
        raise DiffseError(f"{path}: cannot be read ({error.strerror})") from None
    if start.startswith(_ZIP) or start == _LEGACY:
        return start != _LEGACY
    if start.startswith(b"\x80"):
        raise DiffseError(
            f"{path}: a bare pickle, which cannot be read without executing it; save the state dict of its "
            "network with torch.save where it was made, and import that"
        )
    what = f"it begins with {start[:8]!r}" if start else "it is empty"
    raise DiffseError(f"{path}: not a checkpoint that PyTorch wrote ({what})")


def _check_archive(path: Path) -> None:
    """Refuse a cut or damaged archive, and one that was packed anew: mapping it would give other numbers."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise DiffseError(
                        f"{path}: compressed: packed anew, or a program and not weights; take the original file"
                    )
                if entry.CRC and not _is_sound(archive, entry):
                    raise DiffseError(f"{path}: damaged ('{entry.filename}' fails its checksum); copy it again")
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise DiffseError(f"{path}: cut short or damaged ({error}); copy it again") from None


def _is_sound(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(entry) as stream:
            while stream.read(1 << 22):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return False
    return True


def _names(path: Path) -> list[str]:
    """Names in the archive's pickle that PyTorch itself does not allow."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception as error:
        raise _refusal(path, error) from None


def _stand_in(path: Path, name: str) -> object:
    for pattern, stand_in in STAND_INS:
        if re.fullmatch(pattern, name):
            return stand_in
    raise DiffseError(
        f"{path}: asks for '{shown(name)}', which is not something that a checkpoint of a published "
        "system holds; it was not loaded"
    )


def _refusal(path: Path, error: Exception) -> DiffseError:
    """PyTorch's message of many lines as one."""
    text = str(error)
    if asked := re.search(r"GLOBAL (\S+)", text):
        try:
            _stand_in(path, asked[1])
        except DiffseError as refused:
            return refused
    reason = re.sub(r"\s+", " ", text.rpartition("WeightsUnpickler error:")[2]).strip()[:160]
    return DiffseError(
        f"{path}: cannot be read without executing it, or damaged ({type(error).__name__}: {reason}); "
        "it was not loaded"
    )
