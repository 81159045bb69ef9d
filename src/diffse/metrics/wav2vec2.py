"""wav2vec 2.0 (Baevski et al., 2020) in torchaudio's form, as large as the weights say.

It serves two metrics: WV-MOS reads an opinion from its features (Andreev et al., "HiFi++", ICASSP 2023), and
with a CTC head it recognises speech for the word error rate.
"""

import functools
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diffse.errors import DiffseError
from diffse.metrics import weights
from diffse.metrics.checks import at_rate, require_seconds, require_sound
from diffse.metrics.tools import Tools, one_thread

RATE = 16000  # Hz
MIN_SECONDS = 0.1
_STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of the convolutions, which weights do not show
_HEAD = 64  # features of one attention head
_LABELS = "-|ETAONIHSRDLUMWCFGYPBVK'XJQZ"  # blank, space, letters: outputs of the CTC head
_LAYER = re.compile(r"encoder\.transformer\.layers\.(\d+)\.")
_FIRST_LETTER = 4  # of the published head: behind the blank stand three outputs for no letter


# ------------------------------------------------------------------------------------------------- WV-MOS


def wvmos(clean: np.ndarray, enhanced: np.ndarray, noisy: np.ndarray, rate: int, *, tools: Tools) -> float:
    """WV-MOS of `enhanced` [samples]: a MOS, not held within 1 and 5. At 16 kHz, other rates are resampled."""
    network = _wvmos(tools.file("wvmos"))
    with one_thread():
        return float(network(_normalised(enhanced, rate)))


def _normalised(signal: np.ndarray, rate: int) -> Tensor:
    """At 16 kHz with mean 0 and variance 1, as these networks were trained: [1, samples]."""
    require_sound(enhanced=signal)
    require_seconds(signal, rate, MIN_SECONDS)
    wave = at_rate(signal, rate, RATE).astype(np.float32)
    return torch.from_numpy((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7))[None]


class WVMOS(nn.Module):
    """Features of every 20 ms -> two dense layers -> mean over time."""

    def __init__(self, encoder: nn.Module, width: int, hidden: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dense = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, 1))

    def forward(self, wave: Tensor) -> Tensor:
        return self.dense(self.encoder(wave)[0]).mean()


# Names in the published file, which was made with another library -> torchaudio's. The order matters.
_RENAMED = (
    (r"^model\.", ""),
    (r"^encoder\.feature_projection\.", "encoder.encoder.feature_projection."),
    (r"^encoder\.encoder\.(?!feature_projection|transformer)", "encoder.encoder.transformer."),
)


@functools.cache
def _wvmos(path: Path) -> WVMOS:
    state = {}
    for name, value in _state(path).items():
        for pattern, by in _RENAMED:
            name = re.sub(pattern, by, name)
        if not name.endswith("masked_spec_embed"):  # of its pre-training
            state[name] = value
    inner = {name[8:]: value for name, value in state.items() if name.startswith("encoder.")}
    try:
        hidden, width = state["dense.0.weight"].shape
    except (KeyError, ValueError, AttributeError):
        raise DiffseError(f"{path}: not weights of WV-MOS (lacks its dense layers)") from None
    network = WVMOS(_build(inner, path), width, hidden)
    weights.load(network, state, path)
    return network


# --------------------------------------------------------------------------------------------- recognition


def transcript(signal: np.ndarray, rate: int, path: Path) -> str:
    """What wav2vec 2.0 with a CTC head hears in `signal` [samples]: the best label of every frame, joined."""
    network = _recogniser(path)
    require_sound(enhanced=signal)
    require_seconds(signal, rate, MIN_SECONDS)
    wave = torch.from_numpy(at_rate(signal, rate, RATE).astype(np.float32))[None]
    with one_thread():
        best = network(wave)[0][0].argmax(dim=1)
    heard = torch.unique_consecutive(best).tolist()
    return "".join(_LABELS[place] for place in heard if place).replace("|", " ").strip()


@functools.cache
def _recogniser(path: Path) -> nn.Module:
    state = dict(_state(path))
    head = {name: state.get(f"aux.{name}") for name in ("weight", "bias")}
    if any(value is None for value in head.values()):
        raise DiffseError(f"{path}: not weights of a recogniser (lacks 'aux', its CTC head)")
    if len(head["bias"]) == len(_LABELS) + 3:  # the published file
        keep = [0, *range(_FIRST_LETTER, len(head["bias"]))]
        state |= {f"aux.{name}": value[keep] for name, value in head.items()}
    if len(state["aux.bias"]) != len(_LABELS):
        raise DiffseError(f"{path}: its CTC head has {len(head['bias'])} outputs; {len(_LABELS)} are known")
    network = _build(state, path)
    weights.load(network, state, path)
    return network


# --------------------------------------------------------------------------------------------------- sizes


def _state(path: Path) -> dict[str, Tensor]:
    content = weights.read(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise DiffseError(f"{path}: not weights of wav2vec 2.0")
    return state


def _build(state: dict[str, Tensor], path: Path) -> nn.Module:
    """The untrained network that `state` (torchaudio's names) fits."""
    from torchaudio.models import wav2vec2_model

    try:
        kernels = [state[f"feature_extractor.conv_layers.{i}.conv.weight"] for i in range(len(_STRIDES))]
        width = state["encoder.feature_projection.projection.weight"].shape[0]
        layers = len({found[1] for found in map(_LAYER.match, state) if found})
        inner = state["encoder.transformer.layers.0.feed_forward.intermediate_dense.weight"].shape[0]
        position = _position_kernel(state)
    except (KeyError, ValueError, AttributeError, IndexError) as error:
        raise DiffseError(f"{path}: not weights of wav2vec 2.0 in its base form (lacks {error})") from None
    return wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[
            (kernel.shape[0], kernel.shape[2], stride) for kernel, stride in zip(kernels, _STRIDES, strict=True)
        ],
        extractor_conv_bias=False,
        encoder_embed_dim=width,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=position[2],
        encoder_pos_conv_groups=width // position[1],
        encoder_num_layers=layers,
        encoder_num_heads=max(1, width // _HEAD),
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=inner,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=len(state["aux.bias"]) if "aux.bias" in state else None,
    )


def _position_kernel(state: dict[str, Tensor]) -> torch.Size:
    """Shape [width, width / groups, kernel] of the convolution that tells positions, by its old or new name."""
    conv = "encoder.transformer.pos_conv_embed.conv."
    name = conv + "weight_v"
    return state[name if name in state else conv + "parametrizations.weight.original1"].shape
