"""The protobuf wire format, as little of it as execution traces need."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

VARINT, LENGTH = 0, 2


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
    """A string, bytes or message field."""
    data = value.encode() if isinstance(value, str) else value
    return tag(number, LENGTH) + varint(len(data)) + data


def widths(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes that each number takes as a varint."""
    out = np.ones(values.shape, dtype=np.int64)
    left = values >> 7
    while left.any():
        out += left > 0
        left >>= 7
    return out


def patch(
    block: NDArray[np.uint8], positions: NDArray[np.int64], size: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    """Write varints of known sizes into every row of a block of equal records: `rows[:, c]` at `positions[c]`."""
    for byte in range(int(size.max(initial=0))):
        longer = np.flatnonzero(size > byte)
        low = rows[:, longer] >> (7 * byte) & 0x7F
        more = np.where(size[longer] > byte + 1, 0x80, 0)
        block[:, positions[longer] + byte] = (low | more).astype(np.uint8)
