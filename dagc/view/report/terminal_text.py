"""Text for a terminal: colours, and columns and lines that fit its width."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from textwrap import wrap

WIDTH = 80
"""Columns where nobody says how many there are: of a file or a pipe, whose lines are the same everywhere."""
PROSE = 120
"""Sentences longer than this are hard to read, however wide a terminal is."""
TIED = "\u00a0"
"""A space at which no line is broken."""
OFF = "\x1b[0m"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
COLUMN = re.compile(r" *\w{1,9} {2,}")
"""The label that a line begins with: what does not fit on the line goes below it."""
UNIT = re.compile(r"(?<=\d) (?=[A-Za-z$])|(?<=[<>=~]) (?=\d)")
"""A number stays with its unit, and with the sign before it."""


class Paint:
    """ANSI colours, or nothing; and how wide lines may be."""

    def __init__(self, on: bool, width: int = WIDTH) -> None:
        self.on, self.width = on, width

    def rule(self, name: str) -> str:
        """The head of a part."""
        return self.bold(f"{name} ".ljust(min(self.width, PROSE), "-"))

    def __call__(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}{OFF}" if self.on else text

    def bold(self, text: str) -> str:
        return self(text, "1")

    def verdict(self, passed: bool) -> str:
        return self("pass", "32") if passed else self("FAIL", "31;1")


def within(line: str, width: int = WIDTH) -> list[str]:
    """The line in as many as it needs; colours take no room. Lines of tables are as wide as they are made."""
    line = line.rstrip()
    plain = ESCAPE.sub("", line)
    if len(plain) <= (width if "  " in plain.strip() else min(width, PROSE)):
        return [line.replace(TIED, " ")]
    column = COLUMN.match(plain)
    indent = " " * (len(column[0]) if column else len(plain) - len(plain.lstrip()) + 4)
    whole, room = UNIT.sub(TIED, plain), min(width, PROSE)
    parts = wrap(whole, room, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return _painted("\n".join(parts).replace(TIED, " "), line).split("\n")


def _painted(wrapped: str, line: str) -> str:
    """The colours of a line, at the same words of the lines that it has become."""
    begins: dict[int, str] = {}
    ends: dict[int, str] = {}
    seen = 0
    for words, code in zip_longest(ESCAPE.split(line), ESCAPE.findall(line), fillvalue=""):
        seen += sum(not c.isspace() for c in words)
        marks = ends if code == OFF else begins
        marks[seen] = marks.get(seen, "") + code
    out, seen = [], 0
    for c in wrapped:
        if c.isspace():
            out.append(c)
            continue
        out += [begins.get(seen, ""), c, ends.get(seen + 1, "")]
        seen += 1
    return "".join(out)


def narrow(lines: Iterable[str], width: int = WIDTH) -> list[str]:
    """Lines as `within` has them, where an attribute stays with its value."""
    return [part for line in lines for part in within(line.replace(" = ", f"{TIED}={TIED}"), width)]


def table(rows: Sequence[Sequence[str]], align: str, indent: str = "    ", gap: str = "  ") -> list[str]:
    """Aligned columns; `align` has < or > per column."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    return [indent + gap.join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)) for row in rows]


def fitted(rows: Sequence[Sequence[str]], align: str, width: int) -> list[str]:
    """The same, whose first row is its head; where it would be too wide a list, a line a row with the name of each cell before it."""
    lines = table(rows, align)
    if max(len(line.rstrip()) for line in lines) <= width:
        return lines
    head, *body = rows
    out = []
    for first, *cells in body:
        said = (f"{name} {cell}".replace(" ", TIED) for name, cell in zip(head[1:], cells, strict=True) if cell.strip())
        out.append(f"    {first}: {', '.join(said)}")
    return out


def in_blocks(rows: Sequence[Sequence[str]], keys: int, width: int) -> list[str]:
    """Columns to the left, as many beside each other as fit, the rest in further blocks; each block begins with the first `keys`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    blocks: list[list[int]] = [[]]
    for at in range(keys, len(widths)):
        if blocks[-1] and sum(widths[k] + 2 for k in (*range(keys), *blocks[-1], at)) - 2 > width:
            blocks.append([])
        blocks[-1].append(at)
    texts = [
        ["  ".join(row[k].ljust(widths[k]) for k in (*range(keys), *own)).rstrip() for row in rows] for own in blocks
    ]
    return [line for k, lines in enumerate(texts) for line in ([""] * (k > 0) + lines)]


def or_lines(rows: Sequence[Sequence[str]], align: str, width: int) -> list[str]:
    """A table without a head. Where it would be too wide its columns move together, then its rows go without their padding."""
    lines = [line.rstrip() for line in table(rows, align)]
    if max(map(len, lines)) > width:
        lines = [line.rstrip() for line in table(rows, align, "  ", " ")]
    if max(map(len, lines)) > width:
        lines = [part for row in rows for part in within("    " + " ".join(cell for cell in row if cell), width)]
    return lines
