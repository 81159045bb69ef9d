"""Checkpoints: weights in safetensors beside a JSON description. Loading never executes code.

A checkpoint is a folder with `weights.safetensors` (the averaged weights) and `checkpoint.json`.
"""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffse.errors import DiffseError
from diffse.storage import atomic_folder, read_json, sha256_file, write_json

FORMAT = 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "checkpoint.json"
_REQUIRED = ("recipe", "train", "stft", "enhance", "step", "weights_sha256")


def save(folder: Path, network: nn.Module, description: dict) -> None:
    """Write weights and description as one folder, atomically.

    `values` counts all numbers in the weights; it exceeds `parameters` where a network has buffers.
    """
    with atomic_folder(folder) as temporary:
        tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        save_file(tensors, temporary / WEIGHTS)
        facts = {
            "values": sum(tensor.numel() for tensor in tensors.values()),
            "weights_sha256": sha256_file(temporary / WEIGHTS),
        }
        write_json(temporary / DESCRIPTION, {"format": FORMAT, **description, **facts})


def describe(path: Path | str) -> dict:
    """The JSON description of a checkpoint folder.

    A path that is no checkpoint, an unknown format or a missing entry is a DiffseError.
    """
    folder = find(path)
    description = read_json(folder / DESCRIPTION)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else None
        raise DiffseError(
            f"{folder / DESCRIPTION}: format {found!r} is not the format {FORMAT} that this version reads"
        )
    missing = [key for key in _REQUIRED if key not in description]
    if missing:
        raise DiffseError(
            f"{folder / DESCRIPTION}: lacks {', '.join(missing)}; this is not a complete checkpoint"
        )
    return description


def find(path: Path | str) -> Path:
    """The checkpoint folder that a path means: itself, or `best` or `last` of a model folder."""
    path = Path(path)
    if path.is_file():
        if path.name in (WEIGHTS, DESCRIPTION):
            return path.parent
        raise DiffseError(
            f"{path}: not a diffse checkpoint; give a folder with {WEIGHTS} and {DESCRIPTION} "
            "(other files are not opened, because pickled ones can carry code)"
        )
    for folder in (path, path / "best", path / "last"):
        if (folder / DESCRIPTION).is_file():
            return folder
    if not path.exists():
        raise DiffseError(f"{path}: no such checkpoint; train one or give the folder of one")
    raise DiffseError(f"{path}: not a diffse checkpoint; {DESCRIPTION} is missing")


def load_weights(path: Path | str, expected_sha256: str | None = None) -> dict[str, Tensor]:
    """Tensors by name. Damaged or foreign files are DiffseErrors; nothing but safetensors is parsed."""
    weights = find(path) / WEIGHTS
    if not weights.is_file():
        raise DiffseError(f"{weights}: missing; the checkpoint is not complete")
    if expected_sha256 is not None and sha256_file(weights) != expected_sha256:
        raise DiffseError(f"{weights}: damaged (its checksum is not the one in {DESCRIPTION}); restore it")
    try:
        return load_file(weights)
    except (SafetensorError, ValueError) as error:
        raise DiffseError(f"{weights}: not a readable safetensors file ({error}); restore it") from None


def load_into(network: nn.Module, path: Path | str, expected_sha256: str | None = None) -> None:
    """Fill a network; names or shapes that do not fit are a DiffseError with the first of them."""
    fill(network, load_weights(path, expected_sha256), find(path) / WEIGHTS)


def fill(network: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Put tensors into a network; names or shapes that do not fit are a DiffseError with the first of them."""
    own = network.state_dict()
    for name in sorted(set(own) | set(tensors)):
        if name not in tensors or name not in own or own[name].shape != tensors[name].shape:
            shapes = [tuple(side[name].shape) if name in side else "absent" for side in (tensors, own)]
            raise DiffseError(
                f"{source}: '{name}' is {shapes[0]} in the file and {shapes[1]} in the network; "
                "weights and description do not belong together"
            )
    network.load_state_dict(tensors)
