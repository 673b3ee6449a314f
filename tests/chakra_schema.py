"""The Chakra schema for `google.protobuf`, built from its table of fields, and a reader of trace files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

FIELDS: dict[str, list[tuple[int, str, str, bool]]] = {
    "GlobalMetadata": [(1, "version", "string", False), (2, "attr", "AttributeProto", True)],
    "IOInfo": [(1, "values", "string", False), (2, "shapes", "string", False), (3, "types", "string", False)],
    "Node": [
        (1, "id", "uint64", False),
        (2, "name", "string", False),
        (3, "type", "int32", False),  # an enum on the wire
        (4, "ctrl_deps", "uint64", True),
        (5, "data_deps", "uint64", True),
        (6, "start_time_micros", "uint64", False),
        (7, "duration_micros", "uint64", False),
        (8, "inputs", "IOInfo", False),
        (9, "outputs", "IOInfo", False),
        (10, "attr", "AttributeProto", True),
    ],
    "StringList": [(1, "values", "string", True)],
    "AttributeProto": [(1, "name", "string", False), (2, "doc_string", "string", False)],
}
VALUES = {"double": 3, "int32": 7, "int64": 9, "uint64": 13, "bool": 27, "string": 29}
COMP, SEND, RECV, COLL = 4, 5, 6, 7
COMM = {0: "all_reduce", 2: "all_gather", 6: "all_to_all", 7: "reduce_scatter"}


@cache
def messages() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="et_def.proto", package="ChakraProtoMsg", syntax="proto3")
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for number, label, kind, repeated in fields:
            added = message.field.add(name=label, number=number, label=3 if repeated else 1)
            if kind in FIELDS:
                added.type, added.type_name = field.TYPE_MESSAGE, f".ChakraProtoMsg.{kind}"
            else:
                added.type = getattr(field, f"TYPE_{kind.upper()}")
        if name == "AttributeProto":
            message.oneof_decl.add(name="value")
            for kind, number in VALUES.items():
                added = message.field.add(name=f"{kind}_val", number=number, label=1, oneof_index=0)
                added.type = getattr(field, f"TYPE_{kind.upper()}")
            added = message.field.add(name="string_list", number=30, label=1, oneof_index=0, type=field.TYPE_MESSAGE)
            added.type_name = ".ChakraProtoMsg.StringList"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ChakraProtoMsg.{n}")) for n in FIELDS}


def records(data: bytes) -> Iterator[bytes]:
    """Messages with their lengths before them."""
    at = 0
    while at < len(data):
        size = shift = 0
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield data[at : at + size]
        assert at + size <= len(data)
        at += size


def read(data: bytes) -> tuple[Any, list[Any]]:
    """The metadata and the nodes of a file."""
    first, *rest = records(data)
    return messages()["GlobalMetadata"].FromString(first), [messages()["Node"].FromString(r) for r in rest]


KNOWN: dict[bytes, tuple[str, tuple[str, Any]]] = {}
"""Attributes that were read: nodes have few different ones."""


def attributes(node: Any) -> dict[str, tuple[str, Any]]:
    """Name -> (type, value)."""
    return dict(
        KNOWN.get(data) or KNOWN.setdefault(data, attribute(a)) for a in node.attr for data in (a.SerializeToString(),)
    )


def attribute(a: Any) -> tuple[str, tuple[str, Any]]:
    kind = a.WhichOneof("value")
    value = getattr(a, kind)
    return a.name, (kind.removesuffix("_val"), list(value.values) if kind == "string_list" else value)
