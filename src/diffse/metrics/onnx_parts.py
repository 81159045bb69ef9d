"""A part of a network that was published as one ONNX file: its nodes and weights as they are, cut elsewhere.

The file is a protocol buffer (github.com/onnx/onnx, onnx.proto); only what stands around nodes and weights is
read and written here, so that no further package is needed.
"""

from collections.abc import Iterator

_GRAPH = 7  # field of a model
_NODE, _WEIGHTS, _INPUT, _OUTPUT, _SHAPES = 1, 5, 11, 12, 13  # fields of a graph
_NODE_INPUT, _NODE_OUTPUT, _WEIGHTS_NAME = 1, 2, 8
_FLOAT_TENSOR = b"\x0a\x02\x08\x01"  # a type: tensor of floats, of any shape
_VARINT, _BYTES = 0, 2  # wire types
_FIXED = {1: 8, 5: 4}  # wire type -> bytes

Field = tuple[int, int, bytes]  # number, wire type, content


def between(model: bytes, start: str, end: str) -> bytes:
    """The model that computes the float tensor `end` from the float tensor `start`, both named as in `model`.

    Shapes are left open, so that a convolution may run over another length. ValueError: no such part.
    """
    fields = list(_fields(model))
    (graph,) = (content for number, _, content in fields if number == _GRAPH)
    parts = list(_fields(graph))
    wanted, nodes = {end}, []
    for _, _, node in reversed([part for part in parts if part[0] == _NODE]):  # they stand in order
        if wanted.isdisjoint(_texts(node, _NODE_OUTPUT)) or start in _texts(node, _NODE_OUTPUT):
            continue
        nodes.append(node)
        wanted |= _texts(node, _NODE_INPUT)
    if start not in wanted or not nodes:
        raise ValueError(f"the network has no part from {start} to {end}")
    dropped = (_NODE, _INPUT, _OUTPUT, _SHAPES)
    kept = [part for part in parts if part[0] not in dropped and (part[0] != _WEIGHTS or _is(part, wanted))]
    kept += [(_NODE, _BYTES, node) for node in reversed(nodes)]
    kept += [(_INPUT, _BYTES, _value(start)), (_OUTPUT, _BYTES, _value(end))]
    whole = [(field[0], _BYTES, _joined(kept)) if field[0] == _GRAPH else field for field in fields]
    return _joined(whole)


def _is(weights: Field, names: set[str]) -> bool:
    return not names.isdisjoint(_texts(weights[2], _WEIGHTS_NAME))


def _value(name: str) -> bytes:
    """ValueInfoProto of a float tensor."""
    return _joined([(1, _BYTES, name.encode()), (2, _BYTES, _FLOAT_TENSOR)])


def _texts(message: bytes, wanted: int) -> set[str]:
    return {content.decode() for number, _, content in _fields(message) if number == wanted}


def _fields(message: bytes) -> Iterator[Field]:
    """The fields of a message in their order. Content of a varint: its bytes."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        wire, begin = key & 7, place
        if wire == _VARINT:
            _, place = _number(message, place)
        elif wire == _BYTES:
            length, begin = _number(message, place)
            place = begin + length
        elif wire in _FIXED:
            place += _FIXED[wire]
        else:
            raise ValueError(f"not a protocol buffer: wire type {wire}")
        yield key >> 3, wire, message[begin:place]


def _number(message: bytes, place: int) -> tuple[int, int]:
    """(the varint at `place`, the place behind it)."""
    value = shift = 0
    while True:
        byte = message[place]
        value, shift, place = value | (byte & 0x7F) << shift, shift + 7, place + 1
        if byte < 0x80:
            return value, place


def _joined(fields: list[Field]) -> bytes:
    parts = []
    for number, wire, content in fields:
        parts.append(_varint(number << 3 | wire))
        parts += [_varint(len(content))] if wire == _BYTES else []
        parts.append(content)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
