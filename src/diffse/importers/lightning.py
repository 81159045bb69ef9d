"""Checkpoints as they come out of their files: Lightning's dictionary, or a bare state dict."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from diffse.errors import DiffseError
from diffse.importers.parts import Hyper, shown
from diffse.regeneration import Pair
from diffse.unpickling import Holder

_BESIDE = re.compile(r"pesq_loss\..+")  # the loss of training, registered beside the network


@dataclass(frozen=True)
class Published:
    """What a file holds, checked for kind but not yet for content."""

    source: Path
    hyper: Hyper
    state: dict[str, Tensor]  # published name -> tensor
    shadow: list[Tensor] | None  # averaged parameters in the order of the state dict, None without
    ema_updates: int
    epoch: int | None
    step: int
    lightning: str | None
    has_hyper: bool


def parse(source: Path, content: object) -> Published:
    """The parts of a checkpoint's content that matter; DiffseError for another content."""
    if not isinstance(content, dict):
        raise DiffseError(f"{source}: holds a {type(content).__name__}; a checkpoint is a dictionary")
    if {"net", "optimizer", "ema"} <= content.keys():
        raise DiffseError(f"{source}: a state of an EDM2SE training; import the state dict that it publishes")
    nested = "state_dict" in content
    state = content["state_dict"] if nested else content
    if not isinstance(state, dict) or not state or not all(map(_is_tensor, state.items())):
        raise DiffseError(f"{source}: holds no state dict ({_keys(content)}); this is no published checkpoint")
    found = content if nested else {}
    hyper = found.get("hyper_parameters")
    hyper = vars(hyper) if isinstance(hyper, Holder) else hyper
    shadow, updates = _shadow(source, found.get("ema"))
    return Published(
        source=source,
        hyper=Hyper(source, hyper if isinstance(hyper, dict) else {}),
        state=dict(state),
        shadow=shadow,
        ema_updates=updates,
        epoch=_whole(found.get("epoch")),
        step=_whole(found.get("global_step")) or 0,
        lightning=_text(found.get("pytorch-lightning_version")),
        has_hyper=isinstance(hyper, dict),
    )


def _is_tensor(item: tuple) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided


def _keys(content: dict) -> str:
    names = ", ".join(sorted(shown(key) for key in content)[:5])
    return f"its entries: {names}" if names else "it is empty"


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _text(value: object) -> str | None:
    return shown(value) if isinstance(value, str) else None


def _shadow(source: Path, ema: object) -> tuple[list[Tensor] | None, int]:
    """The averaged parameters and after how many updates; None where the file has no average."""
    if ema is None:
        return None, 0
    shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
    if not isinstance(shadow, list) or not all(isinstance(value, Tensor) for value in shadow):
        raise DiffseError(f"{source}: its 'ema' holds no list of averaged parameters; the file is damaged")
    return shadow, _whole(ema.get("num_updates")) or 0


# ----------------------------------------------------------------------------------------------- weights


def take(published: Published, network: nn.Module, prefix: str) -> tuple[dict[str, Tensor], str]:
    """(own name -> tensor, where they come from) for a network that stands under `prefix` in the file.

    Averaged parameters where there are any: what the state dict holds depends on the version of Lightning.
    They are a bare list, told apart by their place among the names of the state dict.
    Raises DiffseError for names or shapes that are not the network's.
    """
    names = {own: prefix + name for own, name in _in_module_of(network, "published_names")(network).items()}
    _check_names(published, set(names.values()), _unused(network, prefix))
    source = dict(published.state)
    told = "state_dict: there is no average"
    if published.shadow is not None:
        source |= _by_place(published, network, names)
        told = f"averaged parameters (ema), {published.ema_updates} updates"
    own_state = network.state_dict()
    tensors = {own: _checked(published, name, source[name], own_state[own]) for own, name in names.items()}
    return tensors, told


def _in_module_of(network: nn.Module, function: str):
    """A function of the module that defines the network."""
    return getattr(sys.modules[type(network).__module__], function)


def _unused(network: nn.Module, prefix: str) -> set[str]:
    """Published names of parameters that no output depends on; the file may hold them."""
    if isinstance(network, Pair):
        return _unused(network.predictor, "denoiser_net.") | _unused(network.score, "score_net.")
    return {prefix + name for name in _in_module_of(network, "published_unused")(network)}


def _check_names(published: Published, wanted: set[str], unused: set[str]) -> None:
    missing, known = sorted(wanted - published.state.keys()), wanted | unused
    foreign = [name for name in published.state if name not in known and not _BESIDE.fullmatch(name)]
    for problem, which in (("lacks", missing), ("also holds", foreign)):
        if which:
            others = f" and {len(which) - 1} more" if len(which) > 1 else ""
            raise DiffseError(
                f"{published.source}: {problem} '{shown(which[0])}'{others}; "
                "its weights are not those of the network that it describes"
            )


def _by_place(published: Published, network: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    """Averaged parameters by published name.

    The list has every parameter, or, from older programs, only those that are trained.
    """
    buffers = {names[own] for own, _ in network.named_buffers()}
    every = [name for name in published.state if name not in buffers and not _BESIDE.fullmatch(name)]
    fixed = {names[own] for own, value in network.named_parameters() if not value.requires_grad}
    fixed |= {
        name for name in every if name.endswith("all_modules.0.W")
    }  # also where a network has no use for it
    trained = [name for name in every if name not in fixed]
    for order in (every, trained):
        if len(order) == len(published.shadow):
            break
    else:
        raise DiffseError(
            f"{published.source}: its average has {len(published.shadow)} tensors, the network {len(every)} "
            f"({len(trained)} trained); they do not belong together"
        )
    for name, value in zip(order, published.shadow, strict=True):
        if value.shape != published.state[name].shape:
            raise DiffseError(
                f"{published.source}: the average of '{name}' is {tuple(value.shape)}, the parameter "
                f"{tuple(published.state[name].shape)}; they do not belong together"
            )
    return dict(zip(order, published.shadow, strict=True))


def _checked(published: Published, name: str, value: Tensor, own: Tensor) -> Tensor:
    """A tensor of the network's shape in float32, without NaN."""
    if value.shape != own.shape:
        raise DiffseError(
            f"{published.source}: '{name}' is {tuple(value.shape)}, but the network that the file describes "
            f"has {tuple(own.shape)}"
        )
    if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
        raise DiffseError(
            f"{published.source}: '{name}' holds values that are no finite numbers; it is damaged"
        )
    return value.detach().to(own.dtype, copy=True).contiguous()
