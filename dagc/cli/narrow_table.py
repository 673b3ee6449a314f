"""A table for a terminal that is narrower than it: what is read to the end of a line is not cut by the terminal inside of words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

LEAST = 0.4
"""Share of the width that the last column needs to have its words in a column."""
INDENT = "    "


def narrow(
    columns: Sequence[str], head: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], width: int
) -> list[str]:
    """The words of the last column below each other, or where they have too little room, a paragraph for each row."""
    before = [max(len(row[i]) for row in (*head, *rows)) for i in range(len(columns) - 1)]
    taken = sum(before) + 2 * len(before)
    if width - taken >= max(width * LEAST, 20):
        return [line for row in (*head, *rows) for line in _beside(row, before, width - taken)]
    return [line for row in rows for line in _paragraph(columns, row, max(width, 20))]


def _beside(row: Sequence[str], widths: Sequence[int], room: int) -> list[str]:
    start = "".join(f"{cell.ljust(w)}  " for cell, w in zip(row, widths, strict=False))
    lines = _wrapped(row[-1], room) or [""]
    return [(start + lines[0]).rstrip(), *(" " * len(start) + line for line in lines[1:])]


def _paragraph(columns: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """Its name, what it is, and below, what else there is of it: `default 1`."""
    names = 2 if columns[0] == "section" else 1
    cells = dict(zip(columns, row, strict=True))
    about = cells.get("about", "")
    others = (n for n in columns[names:] if n != "about" and cells[n])
    more = "; ".join(n if cells[n] == n else f"{n} {cells[n]}" for n in others)
    title = " ".join(row[:names]) + (f": {about}" if about else "")
    first, *rest = _wrapped(title, width - len(INDENT)) or [""]
    return [first, *(INDENT + line for line in (*rest, *_wrapped(more, width - len(INDENT))))]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)
