"""Plain data out of a pickle, read by this module alone: no class is looked up, nothing is called, and what it takes is bounded."""

from __future__ import annotations

import struct
from typing import Any, NoReturn

MOST_OPS = 15_000_000
"""Steps of a file: half a minute of reading, and a gigabyte of what they make."""


class NotPlain(ValueError):
    """The pickle is damaged, too long, or has more in it than dictionaries, lists, texts and numbers."""


_INTS = {ord("K"): ("<B", 1), ord("M"): ("<H", 2), ord("J"): ("<i", 4), ord("G"): (">d", 8)}
_TEXTS = {0x8C: 1, ord("X"): 4, 0x8D: 8}
_BYTES = {ord("C"): 1, ord("B"): 4, 0x8E: 8}
_CONSTANTS: dict[int, Any] = {ord("N"): None, 0x88: True, 0x89: False}


def loads(data: bytes) -> Any:
    """The value. Raises NotPlain."""
    try:
        return _loaded(data)
    except NotPlain:
        raise
    except (ValueError, IndexError, struct.error, KeyError, TypeError, MemoryError):
        raise NotPlain("the pickle is cut off or damaged") from None


def _loaded(data: bytes) -> Any:
    at, ops = 0, 0
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def items() -> list[Any]:
        start = marks.pop()
        found = stack[start:]
        del stack[start:]
        return found

    while True:
        op = data[at]
        at += 1
        ops += 1
        if ops > MOST_OPS:
            raise NotPlain(f"it takes more than {MOST_OPS:,} steps")
        if op == 0x94:  # MEMOIZE
            memo[len(memo)] = stack[-1]
        elif op == 0x68:  # BINGET
            stack.append(memo[data[at]])
            at += 1
        elif op == 0x6A:  # LONG_BINGET
            stack.append(memo[int.from_bytes(data[at : at + 4], "little")])
            at += 4
        elif op in _INTS:
            form, size = _INTS[op]
            stack.append(struct.unpack_from(form, data, at)[0])
            at += size
        elif op == 0x8A:  # LONG1
            size = data[at]
            stack.append(int.from_bytes(data[at + 1 : at + 1 + size], "little", signed=True))
            at += 1 + size
        elif op in _TEXTS or op in _BYTES:
            width = _TEXTS.get(op) or _BYTES[op]
            size = int.from_bytes(data[at : at + width], "little")
            at += width
            if size > len(data) - at:
                raise NotPlain("the pickle is cut off or damaged")
            part = data[at : at + size]
            stack.append(part.decode("utf-8", "surrogatepass") if op in _TEXTS else part)
            at += size
        elif op in _CONSTANTS:
            stack.append(_CONSTANTS[op])
        elif op == 0x28:  # MARK
            marks.append(len(stack))
        elif op == 0x7D:  # EMPTY_DICT
            stack.append({})
        elif op == 0x5D:  # EMPTY_LIST
            stack.append([])
        elif op == 0x29:  # EMPTY_TUPLE
            stack.append(())
        elif op == 0x75:  # SETITEMS
            pairs = items()
            into = _dict(stack[-1])
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                into[_key(key)] = value
        elif op == 0x73:  # SETITEM
            value, key = stack.pop(), stack.pop()
            _dict(stack[-1])[_key(key)] = value
        elif op == 0x65:  # APPENDS
            more = items()
            _list(stack[-1]).extend(more)
        elif op == 0x61:  # APPEND
            value = stack.pop()
            _list(stack[-1]).append(value)
        elif op in (0x85, 0x86, 0x87):  # TUPLE1, TUPLE2, TUPLE3
            size = op - 0x84
            part_ = tuple(stack[-size:]) if len(stack) >= size else _damaged()
            del stack[-size:]
            stack.append(part_)
        elif op == 0x74:  # TUPLE
            stack.append(tuple(items()))
        elif op == 0x71:  # BINPUT
            memo[data[at]] = stack[-1]
            at += 1
        elif op == 0x72:  # LONG_BINPUT
            memo[int.from_bytes(data[at : at + 4], "little")] = stack[-1]
            at += 4
        elif op == 0x80:  # PROTO
            at += 1
        elif op == 0x95:  # FRAME
            at += 8
        elif op == 0x30:  # POP
            stack.pop()
        elif op == 0x2E:  # STOP
            if len(stack) != 1:
                _damaged()
            return stack[0]
        else:
            raise NotPlain(f"it has more in it than plain data (step {op:#04x}): it is not read")


def _dict(value: Any) -> dict[Any, Any]:
    return value if type(value) is dict else _damaged()


def _key(value: Any) -> Any:
    """A text or a number: the hash of tuples within tuples has no end."""
    return value if type(value) in (str, int) else _damaged()


def _list(value: Any) -> list[Any]:
    return value if type(value) is list else _damaged()


def _damaged() -> NoReturn:
    raise NotPlain("the pickle is cut off or damaged")
