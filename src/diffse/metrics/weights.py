"""Weights that are not part of diffse: from a file, or downloaded once, checked, and read as numbers only."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffse import paths, storage
from diffse.errors import DiffseError
from diffse.settings import Evaluate, Weights

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1 << 20  # bytes of a download at once
_TIMEOUT = 60.0  # seconds without an answer
_LARGEST = 4 << 30  # bytes of a download


@dataclass(frozen=True)
class Published:
    """Where the authors publish their weights. `sha256` is "" where no checksum is known to us."""

    url: str
    sha256: str
    licence: str


PUBLISHED = {
    "nisqa": Published(
        "https://github.com/gabrielmittag/NISQA/raw/master/weights/nisqa.tar", "", "CC BY-NC-SA 4.0"
    ),
    "squim": Published(
        "https://download.pytorch.org/torchaudio/models/squim_objective_dns2020.pth",
        "2c54586fea83fb5eb5394d710038ee89f55cab7011a5bf730bebed4c8777e828",
        "CC BY 4.0",
    ),
    "wav2vec2": Published(
        "https://download.pytorch.org/torchaudio/models/wav2vec2_fairseq_base_ls960_asr_ls960.pth",
        "488fd4f16de84438ffc945334278c1b9fb9b7159a806c1080b16111a958c945d",
        "MIT",
    ),
    "wvmos": Published(
        "https://zenodo.org/record/6201162/files/wav2vec2.ckpt",
        "f222559733f9d660fc0592b39abba9726adec6b97e9030c072c3ed6fa14ef12f",
        "not stated",
    ),
}


def check(options: Evaluate, name: str) -> None:
    """Refuse settings that say nothing usable about the weights `name` (DiffseError); reads no file."""
    where = f"evaluate.weights.{name}"
    chosen = options.weights.get(name)
    if chosen is None or not (chosen.file or chosen.download):
        raise DiffseError(
            f"{where}: these weights are not part of diffse; give 'file' or 'download: true' "
            f"(published at {PUBLISHED[name].url}, {PUBLISHED[name].licence})"
        )
    if chosen.file and chosen.download:
        raise DiffseError(f"{where}: give either 'file' or 'download', one of them")
    if chosen.download and not _wanted(name, chosen):
        raise DiffseError(f"{where}: a download needs 'sha256', the checksum of the file; none is known to us")


def locate(options: Evaluate, name: str, root: Path) -> tuple[Path, str]:
    """(file, its SHA-256) of the weights `name`; downloads them where the settings say so.

    Raises DiffseError, one line: not there, another checksum, no connection.
    """
    check(options, name)
    chosen = options.weights[name]
    wanted = _wanted(name, chosen)
    if chosen.download:
        path = paths.user_cache() / "weights" / f"{wanted}.bin"
        if not path.is_file() or storage.sha256_file(path) != wanted:
            _download(chosen.url or PUBLISHED[name].url, wanted, path)
        return path, wanted
    path = root / chosen.file
    if not path.is_file():
        raise DiffseError(f"evaluate.weights.{name}.file: {path}: no such file")
    found = storage.sha256_file(path)
    if chosen.sha256 and found != chosen.sha256.lower():
        raise DiffseError(
            f"evaluate.weights.{name}: {path} has the checksum {found[:12]}, not {chosen.sha256[:12]}"
        )
    return path, found


def _wanted(name: str, chosen: Weights) -> str:
    if chosen.sha256 or chosen.url:  # another address has another checksum
        return chosen.sha256.lower()
    return PUBLISHED[name].sha256


def _download(url: str, sha256: str, target: Path) -> None:
    """Fetch `url` (https only) into `target` if its checksum is `sha256`."""
    import urllib.request

    if not url.startswith("https://"):
        raise DiffseError(f"{url}: weights are downloaded through https only")
    digest, size = hashlib.sha256(), 0
    try:
        with storage.atomic_file(target) as temporary, open(temporary, "wb") as sink:
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as source:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    sink.write(block)
                    size += len(block)
                    if size > _LARGEST:
                        raise DiffseError(f"{url}: larger than {_LARGEST >> 30} GiB; these are not the weights")
            if digest.hexdigest() != sha256:
                raise DiffseError(
                    f"{url}: its checksum is {digest.hexdigest()[:12]}, not {sha256[:12]}; it was not kept"
                )
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DiffseError(f"{url}: cannot be downloaded ({reason}); give the weights as a file") from None


def read(path: Path) -> object:
    """What a weights file holds: safetensors, or a file of torch.save, of which no code is executed."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise DiffseError(f"{path}: not readable as safetensors ({error})") from None
    from diffse import unpickling

    return unpickling.read(path)


def load(module, state: "dict[str, Tensor]", path: Path) -> None:
    """Put `state` into `module`, wholly; DiffseError when names or shapes differ."""
    try:
        module.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DiffseError(f"{path}: not weights of this network ({reason})") from None
    module.eval().requires_grad_(False)
