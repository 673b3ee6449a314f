"""What a spec says: its text without comments and empty lines, whose change changes no answer, only where in the text it is.

Nothing is left out within ( ) and [ ]: messages quote expressions as they are written.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from .frozen import record

MOST = 1 << 17
"""Characters; of longer texts nothing is left out."""
_PARTS = re.compile(r'"[^"\n]*"|#[^\n]*|[(\[]|[)\]]|\n')


@record
class Said:
    """`text`: the lines that are left; `here`, `there`: where each begins in it, and in the text of the spec."""

    text: str
    here: Sequence[int]
    there: Sequence[int]
    lengths: Sequence[int]

    def place(self, at: int) -> int | None:
        """Where in what is said a place of the spec is; None: it is left out."""
        return _moved(at, self.there, self.here, self.lengths)

    def back(self, at: int) -> int | None:
        """Where in the spec a place is; None: there is none."""
        return _moved(at, self.here, self.there, self.lengths)


def _moved(at: int, starts: Sequence[int], others: Sequence[int], lengths: Sequence[int]) -> int | None:
    line = bisect_right(starts, at) - 1
    within = at - starts[line] if line >= 0 else -1
    return others[line] + within if 0 <= within <= lengths[line] else None


def said(text: str) -> Said:
    """What is left of a text that is read as one of the language."""
    lines = list(_lines(text)) if len(text) <= MOST else [(0, text)]
    here = [0]
    for _, line in lines:
        here.append(here[-1] + len(line) + 1)
    own = [line for _, line in lines]
    return Said("\n".join(own), here[:-1], [start for start, _ in lines], [len(line) for line in own])


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Where each line begins that says something, and what it says."""
    start, depth, whole, end = 0, 0, False, None
    for part in (*_PARTS.finditer(text), None):
        word = "\n" if part is None else part.group()
        if word == "\n":
            at = len(text) if part is None else part.start()
            whole = whole or depth > 0
            line = text[start:at] if whole else text[start : at if end is None else end].rstrip(" \t")
            if line or whole:
                yield start, line
            start, whole, end = at + 1, depth > 0, None
        elif word in "([":
            depth += 1
        elif word in ")]":
            depth = max(0, depth - 1)
        elif part is not None and word[0] == "#":
            # Some characters are refused wherever they are.
            whole = whole or depth > 0 or not word.replace("\t", " ").isprintable()
            end = part.start()
