"""Requests that ended, row by row, into the columns of what was served."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from struct import pack
from typing import Any

from .records import Served

KEPT = 1 << 14
"""Numbers that wait."""


class ServedRows:
    """`add` takes a row in the order of the columns of `Served`; they are there after `flush`. Many at once: an array takes
    single numbers many times as slowly as a list."""

    __slots__ = ("_columns", "_rows", "add")

    def __init__(self, served: Served) -> None:
        self._columns: tuple[Any, ...] = served.columns
        self._rows: list[float] = []  # one after the other: a tuple each is one more object to look through
        self.add: Callable[[tuple[float, float, float, float, int, int, int]], None] = self._rows.extend

    def __len__(self) -> int:
        return len(self._rows)

    def flush(self) -> None:
        """Rows become columns."""
        for place, column in enumerate(self._columns):
            values = self._rows[place :: len(self._columns)]
            if isinstance(column, array):
                column.frombytes(pack(f"{len(values)}{column.typecode}", *values))
            else:
                column.extend(values)
        self._rows.clear()
