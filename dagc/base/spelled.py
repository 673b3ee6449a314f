"""A value in words: every word and number of it, for a digest that tells it from any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .frozen import fields_of, is_record
from .source import Span


class Unkeyed(Exception):
    """It follows from more than plain values: from files, or from what no two runs have alike."""


def spell(value: Any, add: Callable[[str], None]) -> None:
    """Every word and number of a value. Places in the text are left out, but not which attributes are written: `host = 0 ms` is not the
    engine's default."""
    if value is None or isinstance(value, (str, int, float, range)):
        add(repr(value))
    elif isinstance(value, Span):
        return
    elif isinstance(value, Mapping):
        add(f"{{{len(value)}")
        for name, one in value.items():
            spell(name, add)
            spell(one, add)
    elif isinstance(value, (tuple, list)):
        add(f"[{len(value)}")
        if set(map(type, value)) == {int}:
            add(repr(value))
            return
        for one in value:
            spell(one, add)
    elif is_record(type(value)):
        add(type(value).__name__)
        for name in fields_of(type(value)):
            spell(getattr(value, name), add)
    else:
        raise Unkeyed(type(value).__name__)
