"""The text that an editor holds, and its places: offsets here, lines and code units over the wire."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..base.frozen import field, record, replace
from ..base.source import Source
from .statement_tree import Statement, statements_of
from .tokens import Token, tokens_of

UNTITLED = "<untitled>"
MAX_CHECKED = 200_000
"""Characters of a text of which more than its syntax is looked at while it is typed."""

_LINE_END = re.compile("[\n\r]")
_UNITS: Mapping[str, Callable[[str], int]] = {
    "utf-8": lambda text: len(text.encode("utf-8", "surrogatepass")),
    "utf-16": lambda text: len(text) + sum(c > "\uffff" for c in text),
    "utf-32": len,
}
"""How many units of each encoding a text has."""
ENCODINGS = tuple(_UNITS)


@record
class Settings:
    """What the command line says elsewhere: texts of `--set`, and folders of `--allow-import`."""

    params: Mapping[str, str] = field(default_factory=dict)
    allow_import: tuple[str, ...] = ()


@record(slots=False)
class Document:
    """`text` has newlines alone, as dagc reads files; `newline` is what the editor's text has. `path` is None for a text that is in
    no file: it counts as one in the current folder."""

    text: str
    path: str | None = None
    settings: Settings = field(default_factory=Settings)
    newline: str = "\n"
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was worked out of the text and of files beside it, kept as long as the document is."""

    @classmethod
    def of(cls, text: str, path: str | None = None, settings: Settings | None = None) -> Document:
        """Of the text as the editor has it."""
        newline = "\r\n" if "\r\n" in text else "\n"
        return cls(text.removeprefix("\ufeff").replace("\r\n", "\n"), path, settings or Settings(), newline)

    @property
    def name(self) -> str:
        """What diagnostics call it."""
        return self.path or UNTITLED

    @property
    def folder(self) -> Path:
        """Where files that it names are looked up."""
        return Path(os.getcwd()) if self.path is None else Path(os.path.realpath(self.path)).parent

    @cached_property
    def source(self) -> Source:
        return Source(self.name, self.text)

    @cached_property
    def tokens(self) -> list[Token]:
        """None of a text that is too long: going through it would keep the editor waiting."""
        return [] if self.too_long else tokens_of(self.text)

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """Those at the top; none of a text that is too long."""
        return () if self.too_long else statements_of(self.text)

    @property
    def too_long(self) -> bool:
        """More than its syntax is not looked at."""
        return len(self.text) > MAX_CHECKED

    def again(self) -> Document:
        """The same text, of which nothing is known yet: a file beside it may have changed."""
        return replace(self, memo={})

    def with_text(self, text: str) -> Document:
        """The same file with another text, newlines alone."""
        return Document(text, self.path, self.settings, self.newline)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in _LINE_END.finditer(self.text))]

    def _line(self, number: int) -> str:
        end = self._starts[number + 1] if number + 1 < len(self._starts) else len(self.text)
        return self.text[self._starts[number] : end].rstrip("\r\n")

    def position(self, offset: int, encoding: str = "utf-16") -> tuple[int, int]:
        """Line and unit, both from 0."""
        offset = max(0, min(offset, len(self.text)))
        line = bisect_right(self._starts, offset) - 1
        return line, _UNITS[encoding](self.text[self._starts[line] : offset])

    def offset(self, line: int, unit: int, encoding: str = "utf-16") -> int:
        """The offset of a line and a unit; one beyond the line is its end, one inside a character its start."""
        if line < 0:
            return 0
        if line >= len(self._starts):
            return len(self.text)
        text, count, width = self._line(line), 0, _UNITS[encoding]
        if text.isascii():
            return self._starts[line] + max(0, min(unit, len(text)))
        for i, char in enumerate(text):
            count += width(char)
            if count > unit:
                return self._starts[line] + i
        return self._starts[line] + len(text)


@record
class Edit:
    """Characters [start, end) of a document that become `text`."""

    start: int
    end: int
    text: str


def applied(text: str, edits: Sequence[Edit]) -> str:
    """The text after edits that do not overlap."""
    for edit in sorted(edits, key=lambda e: (e.start, e.end), reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def moved(offset: int, before: str, after: str) -> int | None:
    """Where an offset of a text is in its next version; None where something changed."""
    if offset > len(before):
        return None
    start = _alike(before, after)
    if offset < start:
        return offset
    most = min(len(before), len(after)) - start
    end = _alike(before[::-1][:most], after[::-1][:most])
    return offset + len(after) - len(before) if offset >= len(before) - end else None


def _alike(one: str, other: str) -> int:
    """How many first characters are the same."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
