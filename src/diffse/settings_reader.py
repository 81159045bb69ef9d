"""YAML to frozen dataclasses, strictly, with line numbers in every complaint."""

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from diffse.errors import DiffseError
from diffse.settings_limits import outside


@dataclass(frozen=True)
class Node:
    """A YAML value together with where it stands."""

    value: Any  # scalar, list of Node, or dict of str -> Node
    path: Path
    line: int
    key: str

    def fail(self, message: str) -> DiffseError:
        place = f"'{self.key}' " if self.key else ""
        return DiffseError(f"{self.where}: {place}{message}")

    @property
    def where(self) -> str:
        """File and line; what did not come from YAML has no lines."""
        return f"{self.path}, line {self.line}" if self.line else str(self.path)


def read_yaml(path: Path) -> Node:
    """Parse a YAML mapping; duplicated keys, missing files and syntax errors are DiffseErrors."""
    try:
        tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except FileNotFoundError:
        raise DiffseError(f"{path}: no such file; run diffse in the folder that holds params.yaml") from None
    except IsADirectoryError:
        raise DiffseError(f"{path}: is a folder; name the file, such as {path / 'params.yaml'}") from None
    except UnicodeDecodeError:
        raise DiffseError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise DiffseError(f"{path}, line {line}: not valid YAML: {error.problem}") from None
    if not isinstance(tree, yaml.MappingNode):
        raise DiffseError(f"{path}: expected settings as 'key: value', found none")
    return _convert(tree, path, "")


def _convert(tree: yaml.Node, path: Path, key: str) -> Node:
    line = tree.start_mark.line + 1
    if isinstance(tree, yaml.MappingNode):
        entries: dict[str, Node] = {}
        for name_node, value_node in tree.value:
            name = str(name_node.value)
            if name in entries:
                raise DiffseError(f"{path}, line {name_node.start_mark.line + 1}: '{name}' appears twice")
            entries[name] = _convert(value_node, path, f"{key}.{name}" if key else name)
        return Node(entries, path, line, key)
    if isinstance(tree, yaml.SequenceNode):
        return Node([_convert(item, path, key) for item in tree.value], path, line, key)
    return Node(yaml.SafeLoader("").construct_object(tree), path, line, key)


def build(kind: Any, node: Node) -> Any:
    """Turn a node into `kind`: a dataclass, union of tagged dataclasses, tuple, dict, literal or scalar."""
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, node)
    if origin in (Union, types.UnionType):
        return _build_union(get_args(kind), node)
    if origin is tuple:
        return _build_tuple(get_args(kind), node)
    if origin is dict:
        _expect(node, dict, "a mapping")
        return {name: build(get_args(kind)[1], item) for name, item in node.value.items()}
    if origin is Literal:
        return _build_literal(get_args(kind), node)
    return _build_scalar(kind, node)


def _build_literal(allowed: tuple, node: Node) -> Any:
    if isinstance(node.value, str | int) and not isinstance(node.value, bool):
        for choice in (node.value, str(node.value)):  # YAML reads the choice "1" as a number
            if choice in allowed:
                return choice
    raise node.fail(f"is {node.value!r}; allowed: {', '.join(map(str, allowed))}")


def _build_dataclass(kind: Any, node: Node) -> Any:
    _expect(node, dict, "a mapping")
    hints = typing.get_type_hints(kind)
    names = [entry.name for entry in dataclasses.fields(kind)]
    for name, item in node.value.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise DiffseError(f"{item.where}: unknown setting '{item.key}'; {hint}allowed: {', '.join(names)}")
    required = [entry.name for entry in dataclasses.fields(kind) if _has_no_default(entry)]
    for name in required:
        if name not in node.value:
            raise node.fail(f"lacks the setting '{name}'")
    return kind(**{name: build(hints[name], item) for name, item in node.value.items()})


def _has_no_default(entry: dataclasses.Field) -> bool:
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


_ADDED: dict[type, list[type]] = {}  # member of a union -> dataclasses that stand beside it


def extend(member: type, kind: type) -> None:
    """Allow the dataclass `kind` in every union that holds `member`."""
    _ADDED.setdefault(member, []).append(kind)


def _build_union(kinds: tuple, node: Node) -> Any:
    """Choose by the tag (`name` or `kind`) that each dataclass of the union carries as its default."""
    kinds = tuple(kinds) + tuple(added for kind in kinds for added in _ADDED.get(kind, ()))
    if type(None) in kinds and node.value is None:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:  # an optional value
        return build(kinds[0], node)
    _expect(node, dict, "a mapping")
    tag = dataclasses.fields(kinds[0])[0].name
    by_tag = {getattr(kind, tag): kind for kind in kinds}
    if tag not in node.value:
        raise node.fail(f"lacks '{tag}' (allowed: {', '.join(by_tag)})")
    chosen = node.value[tag]
    if chosen.value not in by_tag:
        raise chosen.fail(f"is {chosen.value!r}; allowed: {', '.join(by_tag)}")
    return _build_dataclass(by_tag[chosen.value], node)


def _build_tuple(kinds: tuple, node: Node) -> tuple:
    _expect(node, list, "a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(build(kinds[0], item) for item in node.value)
    if len(node.value) != len(kinds):
        raise node.fail(f"has {len(node.value)} values; {len(kinds)} are needed")
    return tuple(build(kind, item) for kind, item in zip(kinds, node.value, strict=True))


def _build_scalar(kind: type, node: Node) -> Any:
    value = node.value
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            value = float(value)
        except ValueError:
            value = node.value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise node.fail(f"is {value!r}; a {_PLAIN[kind]} is needed")
    if kind is float and not math.isfinite(value):
        raise node.fail(f"is {value!r}; a finite number is needed")
    if isinstance(value, int | float) and (problem := outside(node.key.rpartition(".")[2], value)):
        raise node.fail(problem)
    return value


_PLAIN = {float: "number", int: "whole number", str: "text", bool: "true or false"}


def _expect(node: Node, kind: type, plain: str) -> None:
    if not isinstance(node.value, kind):
        raise node.fail(f"is {node.value!r}; {plain} is needed")


def to_plain(value: Any) -> Any:
    """Settings -> plain dicts, lists and scalars, for JSON."""
    if dataclasses.is_dataclass(value):
        return {entry.name: to_plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return {key: to_plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def from_plain(kind: Any, value: Any, where: str) -> Any:
    """The inverse of `to_plain`, as strict as reading a file; `where` stands in the error message."""
    return build(kind, _plain_node(value, Path(where), ""))


def _plain_node(value: Any, path: Path, key: str) -> Node:
    if isinstance(value, dict):
        entries = {
            name: _plain_node(item, path, f"{key}.{name}" if key else name) for name, item in value.items()
        }
        return Node(entries, path, 0, key)
    if isinstance(value, list):
        return Node([_plain_node(item, path, key) for item in value], path, 0, key)
    return Node(value, path, 0, key)
