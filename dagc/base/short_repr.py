"""The text of a record in a debugger or a notebook: a line, however large what it holds is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

ROOM = 60
"""Characters that the value of a field may take, unless it is one number."""
LINE = 240
"""Characters of the fields that are shown; the rest are dots."""


def short_record(value: object, names: Sequence[str]) -> str:
    """`Name(field=value, ...)`; of values that do not fit, what they are and how many they have."""
    shown: list[str] = []
    length = 0
    for name in names:
        text = f"{name}={short(getattr(value, name))}"
        length += len(text) + 2
        if length > LINE:
            shown.append("...")
            break
        shown.append(text)
    return f"{type(value).__qualname__}({', '.join(shown)})"


def short(value: Any, room: int = ROOM) -> str:
    """A value within `room` characters. Whatever has items is looked into only as far as there is room."""
    if isinstance(value, str | bytes):
        text = repr(value[: room + 1])
        return text if len(text) <= room else f"{text[: room - 3]}..."
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape and hasattr(value, "dtype"):
        return f"<array {' x '.join(map(str, shape))}>"
    if isinstance(value, Mapping):
        return _items(value, "{", "}", (f"{short(k, room)}: {short(v, room)}" for k, v in value.items()), room)
    if isinstance(value, tuple | list | Set):
        brackets = "()" if isinstance(value, tuple) else "[]" if isinstance(value, list) else "{}"
        return _items(value, brackets[0], brackets[1], (short(v, room) for v in value), room)
    if _is_record(value):
        return f"<{type(value).__qualname__}>"
    text = repr(value)
    return text if len(text) <= room else f"<{type(value).__qualname__}>"


def _items(value: Any, opening: str, closing: str, texts: Iterable[str], room: int) -> str:
    found: list[str] = []
    left = room - 2
    for text in texts:
        left -= len(text) + 2
        if left < 0:
            return f"{opening}{len(value)} items{closing}"
        found.append(text)
    comma = "," if opening == "(" and len(found) == 1 else ""
    return f"{opening}{', '.join(found)}{comma}{closing}"


def _is_record(value: object) -> bool:
    """One of many fields, which its own line would need."""
    return len(getattr(type(value), "__dataclass_fields__", ())) > 1
