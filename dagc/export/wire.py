"""The protobuf wire format, as much of it as a trace needs."""

from __future__ import annotations

import struct

VARINT, FIXED64, LENGTH = 0, 1, 2


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first. Not for negative numbers."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A uint, int or enum field."""
    return varint(field << 3 | VARINT) + varint(value)


def double(field: int, value: float) -> bytes:
    return varint(field << 3 | FIXED64) + struct.pack("<d", value)


def fixed(field: int, value: int) -> bytes:
    return varint(field << 3 | FIXED64) + struct.pack("<Q", value)


def message(field: int, body: bytes) -> bytes:
    """A nested message, or bytes."""
    return varint(field << 3 | LENGTH) + varint(len(body)) + body


def string(field: int, text: str) -> bytes:
    """Lone surrogates, which UTF-8 cannot hold, become question marks."""
    return message(field, text.encode("utf-8", "replace"))
