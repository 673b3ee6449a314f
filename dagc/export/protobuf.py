"""The protobuf wire format, as little of it as traces need: fields with the numbers that a schema gives them."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np

from ..base.arrays import NDArray

VARINT, FIXED64, LENGTH = 0, 1, 2
_ONE = [bytes([value]) for value in range(0x80)]


def varint(value: int) -> bytes:
    """Base-128 varint of an unsigned number."""
    if value <= 0x7F:
        return _ONE[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@cache
def tag(number: int, kind: int) -> bytes:
    return varint(number << 3 | kind)


def text(number: int, value: str | bytes) -> bytes:
    """A string that UTF-8 can encode, or bytes."""
    return message(number, value.encode() if isinstance(value, str) else value)


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


def widths(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes that each number takes as a varint."""
    out = np.ones(values.shape, dtype=np.int64)
    left = values >> 7
    while left.any():
        out += left > 0
        left >>= 7
    return out


def digits(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Decimal digits of each number; none is negative."""
    out = np.ones(values.shape, dtype=np.int64)
    left = values // 10
    while left.any():
        out += left > 0
        left //= 10
    return out


def patch_text(
    block: NDArray[np.uint8], positions: NDArray[np.int64], size: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    """The same as decimal digits."""
    left = rows
    for digit in range(int(size.max(initial=0))):
        longer = np.flatnonzero(size > digit)
        block[:, positions[longer] + size[longer] - 1 - digit] = (left[:, longer] % 10 + ord("0")).astype(np.uint8)
        left = left // 10


def patch(
    block: NDArray[np.uint8], positions: NDArray[np.int64], size: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    """Write varints of known sizes into every row of a block of equal records: `rows[:, c]` at `positions[c]`."""
    for byte in range(int(size.max(initial=0))):
        longer = np.flatnonzero(size > byte)
        low = rows[:, longer] >> (7 * byte) & 0x7F
        more = np.where(size[longer] > byte + 1, 0x80, 0)
        block[:, positions[longer] + byte] = (low | more).astype(np.uint8)
