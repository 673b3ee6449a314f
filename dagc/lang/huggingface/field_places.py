"""Where a field of a JSON text is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

PART = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]')


def place_of(text: str, parts: Sequence[str]) -> tuple[int, int] | None:
    """Begin and end of a field's name by the fields on the way to it. `text` is valid JSON; None: it is not there."""
    return _places(text).get(tuple(parts))


@lru_cache(maxsize=1)
def _places(text: str) -> Mapping[tuple[str, ...], tuple[int, int]]:
    """Of all fields: a large file may be asked about each of many that are wrong in it."""
    return {path: (begin, end) for path, begin, end in _names(text)}


def _names(text: str) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Every field of an object, by its path. Items of lists have none."""
    path: list[str | None] = []
    for found in PART.finditer(text):
        part = found[0]
        if part in "{[":
            path.append(None)
        elif part in "}]":
            path.pop()
        elif path and text[found.end() : found.end() + 40].lstrip().startswith(":"):
            path[-1] = part[1:-1]
            if None not in path:
                yield tuple(str(name) for name in path), found.start(), found.end()
