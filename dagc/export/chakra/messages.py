"""Messages of the Chakra schema (package ChakraProtoMsg): numbers of fields and enum values."""

from __future__ import annotations

from functools import lru_cache

from ..protobuf import LENGTH, VARINT, tag, text, varint

VERSION = "0.0.4"
"""Of the schema. Always written: an empty first message would read as the end of the file."""

COMP, SEND, RECV, COLL = 4, 5, 6, 7
COLLECTIVE_TYPE = {"all_reduce": 0, "all_gather": 2, "all_to_all": 6, "reduce_scatter": 7}
"""The four that the simulator simulates; permutes and stage edges are sends and receives."""

ID, NAME, TYPE, CONTROL, DATA, DURATION, ATTRIBUTE = 1, 2, 3, 4, 5, 7, 10

_VALUE = {"int32": 7, "int64": 9, "uint64": 13, "bool": 27, "string": 29, "string_list": 30}


def metadata() -> bytes:
    """The first message of a file, with its length."""
    body = text(1, VERSION)
    return varint(len(body)) + body


@lru_cache(maxsize=4096)
def attribute(name: str, kind: str, value: int | str | bytes) -> bytes:
    """A whole attribute field. A zero is written too: which member of the oneof is set carries the meaning."""
    number = _VALUE[kind]
    if kind == "string":
        assert not isinstance(value, int)
        data = text(number, value)
    else:
        data = tag(number, VARINT) + varint(int(value))
    return text(ATTRIBUTE, text(1, name) + data)


@lru_cache(maxsize=256)
def open_attribute(name: str, kind: str, size: int) -> bytes:
    """An attribute field up to its value, which takes `size` more bytes."""
    head = text(1, name) + tag(_VALUE[kind], LENGTH if kind in ("string", "string_list") else VARINT)
    return tag(ATTRIBUTE, LENGTH) + varint(len(head) + size) + head
