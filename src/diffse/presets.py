"""Presets: the constants of the papers' systems, one table (`presets.yaml`).

An entry under `train` or `enhance` in `params.yaml` that says `preset: NAME` starts from that table and changes
what else it says: `{preset: m5, batch: 8}`. Entries under `prepare` do the same with the data of the papers
(`presets_corpora.yaml`): `{preset: wsj0_chime3_storm}`.
"""

import dataclasses
import difflib
import functools
from pathlib import Path

from diffse.settings_reader import Node, read_yaml

TABLE = Path(__file__).with_name("presets.yaml")
CORPORA = Path(__file__).with_name("presets_corpora.yaml")
BLOCKS = ("train", "enhance")
_TAGS = ("name", "kind")  # choosing another process or network does not keep settings of the preset's one


@functools.cache
def table() -> dict[str, Node]:
    """Preset -> its node with the entries `train` and `enhance`; the small forms are made here."""
    entries = dict(read_yaml(TABLE).value)
    small = entries.pop("small")
    return entries | {f"{name}_small": _shrunk(node, small) for name, node in entries.items()}


@functools.cache
def corpora() -> dict[str, Node]:
    """Preset -> its node of settings of a corpus."""
    return read_yaml(CORPORA).value


def _shrunk(preset: Node, small: Node) -> Node:
    """A preset with the small training over it, and each network in its small form."""
    train = _merged(preset.value["train"], small.value["train"])
    by_network = small.value["train_of"].value
    if (network := train.value["network"].value["name"].value) in by_network:
        train = _merged(train, by_network[network])
    entries = dict(train.value)
    entries["network"] = _small_network(entries["network"], small)
    if "predictor" in entries:
        predictor = dict(entries["predictor"].value)
        predictor["network"] = _small_network(predictor["network"], small)
        if "pretrain_steps" in predictor:
            predictor |= small.value["predictor"].value
        entries["predictor"] = dataclasses.replace(entries["predictor"], value=predictor)
    if "power_ema" in entries:
        entries["power_ema"] = _merged(entries["power_ema"], small.value["power_ema"])
    own = preset.value["train"].value.get("stft")
    if own is not None and "n_fft" in own.value:  # its network has the bins of no other transform
        entries["stft"] = own
    paper = entries["paper"]
    entries["paper"] = dataclasses.replace(paper, value=f"{paper.value}, small form")
    train = dataclasses.replace(train, value=entries)
    return dataclasses.replace(preset, value={**preset.value, "train": train})


def _small_network(network: Node, small: Node) -> Node:
    return _merged(network, small.value["networks"].value[network.value["name"].value])


def applied(params: Node) -> Node:
    """`params.yaml` with every `preset` replaced by what it stands for (DiffseError for an unknown one)."""
    entries = dict(params.value)
    for block in (*BLOCKS, "prepare"):
        if block in entries and isinstance(entries[block].value, dict):
            resolved = {name: _resolved(block, item) for name, item in entries[block].value.items()}
            entries[block] = dataclasses.replace(entries[block], value=resolved)
    return dataclasses.replace(params, value=entries)


def _resolved(block: str, item: Node) -> Node:
    if not isinstance(item.value, dict) or "preset" not in item.value:
        return item
    wanted, there = item.value["preset"], corpora() if block == "prepare" else table()
    if not isinstance(wanted.value, str) or wanted.value not in there:
        near = difflib.get_close_matches(str(wanted.value), there, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise wanted.fail(f"is {wanted.value!r}; {hint}allowed: {', '.join(there)}")
    own = {key: value for key, value in item.value.items() if key != "preset"}
    preset = there[wanted.value] if block == "prepare" else there[wanted.value].value[block]
    return _merged(_renamed(preset, item.key), dataclasses.replace(item, value=own))


def _renamed(node: Node, key: str) -> Node:
    """A preset's node under the key of the recipe, so that complaints name what the user wrote."""
    if not isinstance(node.value, dict):
        return dataclasses.replace(node, key=key)
    entries = {name: _renamed(item, f"{key}.{name}") for name, item in node.value.items()}
    return dataclasses.replace(node, value=entries, key=key)


def _merged(base: Node, change: Node) -> Node:
    """`change` over `base`, block by block; a block with another tag replaces the whole block."""
    if not (isinstance(base.value, dict) and isinstance(change.value, dict)):
        return change
    for tag in _TAGS:
        if tag in change.value and tag in base.value and change.value[tag].value != base.value[tag].value:
            return change
    entries = dict(base.value)
    for name, item in change.value.items():
        entries[name] = _merged(entries[name], item) if name in entries else item
    return dataclasses.replace(change, value=entries)
