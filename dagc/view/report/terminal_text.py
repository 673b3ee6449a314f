"""Text for a terminal of 80 columns: colours, aligned columns, lines that are long."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from textwrap import wrap

WIDTH = 80
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
COLUMN = re.compile(r" *\w{1,9} {2,}")
"""The label that a line begins with: what does not fit on the line goes below it."""
UNIT = re.compile(r"(\d) (?=[A-Za-z])")


class Paint:
    """ANSI colours, or nothing."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on else text

    def bold(self, text: str) -> str:
        return self(text, "1")

    def verdict(self, passed: bool) -> str:
        return self("pass", "32") if passed else self("FAIL", "31;1")


def within(line: str) -> list[str]:
    """The line in as many as it needs; colours take no room."""
    line = line.rstrip()
    plain = ESCAPE.sub("", line)
    if len(plain) <= WIDTH:
        return [line]
    column = COLUMN.match(plain)
    indent = " " * (len(column[0]) if column else len(plain) - len(plain.lstrip()) + 4)
    whole = UNIT.sub("\\1\u00a0", line)  # a number stays with its unit
    width = WIDTH + len(line) - len(plain)
    parts = wrap(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [part.replace("\u00a0", " ") for part in parts]


def narrow(lines: Iterable[str]) -> list[str]:
    """Lines as `within` has them, where an attribute stays with its value."""
    parts = (part for line in lines for part in within(line.replace(" = ", "\u00a0=\u00a0")))
    return [part.replace("\u00a0", " ") for part in parts]


def table(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Aligned columns; `align` has < or > per column."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    return ["    " + "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)) for row in rows]
