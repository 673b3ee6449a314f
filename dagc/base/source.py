"""Source text and the spans that every node, record and diagnostic carries."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from itertools import accumulate

from .frozen import record


@record(slots=False)
class Source:
    """One file (or stdin, or a string) of spec text. `name` is what diagnostics print."""

    name: str
    text: str

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @cached_property
    def _lines(self) -> list[int]:
        """Where lines begin."""
        return [0, *accumulate(len(line) + 1 for line in self.text.split("\n")[:-1])]

    def position(self, offset: int) -> tuple[int, int]:
        """1-based (line, column) of a character offset."""
        line = bisect_right(self._lines, offset) - 1
        return line + 1, offset - self._lines[line] + 1

    def line(self, number: int) -> str:
        """Text of a 1-based line, without its newline."""
        if not 1 <= number <= len(self._lines):
            return ""
        start = self._lines[number - 1]
        end = self.text.find("\n", start)
        return self.text[start:] if end < 0 else self.text[start:end]

    @property
    def line_count(self) -> int:
        return len(self._lines)


@record
class Span:
    """Half-open range [start, end) of character offsets in a source."""

    source: Source
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of `other` (same source)."""
        return Span(self.source, self.start, other.end)
