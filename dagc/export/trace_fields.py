"""Protobuf fields of a trace: whole fields, with the numbers that a schema gives them."""

from __future__ import annotations

import struct

from .chakra.wire import LENGTH, VARINT, tag, varint

FIXED64 = 1


def number(field: int, value: int) -> bytes:
    """A uint, int or enum field. Not for negative numbers."""
    return tag(field, VARINT) + varint(value)


def double(field: int, value: float) -> bytes:
    return tag(field, FIXED64) + struct.pack("<d", value)


def fixed(field: int, value: int) -> bytes:
    return tag(field, FIXED64) + struct.pack("<Q", value)


def message(field: int, body: bytes) -> bytes:
    """A nested message, or bytes."""
    return tag(field, LENGTH) + varint(len(body)) + body


def string(field: int, text: str) -> bytes:
    """Lone surrogates, which UTF-8 cannot encode, become question marks."""
    return message(field, text.encode("utf-8", "replace"))
