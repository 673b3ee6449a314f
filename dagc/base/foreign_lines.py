"""Lines of a file of somebody else, one at a time: of any length of file, with bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from .files import Unreadable, open_regular

MOST_LINE_BYTES = 1_000_000
"""Of one line: a prompt of a million tokens in blocks of 512 has 2,000 ids."""
BOM = b"\xef\xbb\xbf"
OTHER_TEXT = (b"\xff\xfe", b"\xfe\xff")
"""What text of two bytes a character begins with."""
SCANNED_BYTES = 4096
"""At the beginning of a file, among which a zero byte says that it is no text."""


class TraceError(ValueError):
    """A trace or a histogram of lengths is wrong. The message begins with the file, and the line where one is to blame; it
    never quotes what the file says."""

    def __init__(self, path: Path, line: int, reason: str, help: str = "") -> None:
        place = f"{shown(path)}:{line}" if line else shown(path)
        super().__init__(f"{place}: {reason}")
        self.path, self.help = path, (help,) if help else ()


def shown(path: Path) -> str:
    """A path as people would write it from where they are."""
    try:
        relative = os.path.relpath(path)
    except ValueError:
        return str(path)
    return str(path) if relative.startswith("..") else relative


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, text) of every line that is not empty. Raises TraceError."""
    try:
        file = open_regular(path)
    except Unreadable as error:
        raise TraceError(path, 0, f"cannot be read: {error}") from None
    with file:
        head = file.read(SCANNED_BYTES)
        if head.startswith(OTHER_TEXT) or b"\0" in head:
            raise TraceError(path, 0, "it is not UTF-8 text")
        file.seek(len(BOM) if head.startswith(BOM) else 0)
        number = 0
        while line := file.readline(MOST_LINE_BYTES + 1):
            number += 1
            if len(line) > MOST_LINE_BYTES:
                raise TraceError(path, number, f"the line is longer than {MOST_LINE_BYTES:,} bytes")
            text = line.strip()
            if text:
                yield number, text


def columns(line: bytes) -> list[str]:
    """Names of the columns of a header, in lower case; those that are no text are empty."""
    names = (word.strip(b" \t\"'") for word in line.split(b","))
    return [name.decode().lower() if name.isascii() and name.decode().isprintable() else "" for name in names]


def number(word: bytes, what: str, path: Path, line: int) -> float:
    """A finite number of at least 0. Raises TraceError."""
    try:
        value = float(word.strip(b" \t\"'"))
    except ValueError:
        raise TraceError(path, line, f"`{what}` is not a number" if word.strip() else f"`{what}` is empty") from None
    if not isfinite(value):
        raise TraceError(path, line, f"`{what}` is not finite")
    if value < 0:
        raise TraceError(path, line, f"`{what}` is negative")
    return value


def whole(word: bytes, what: str, most: int, path: Path, line: int) -> int:
    """A whole number from 1 to `most`. Raises TraceError."""
    try:
        value = int(word)
    except ValueError:
        exact = number(word, what, path, line)
        if exact != int(exact):
            raise TraceError(path, line, f"`{what}` is not a whole number") from None
        value = int(exact)
    if value < 1:
        raise TraceError(path, line, f"`{what}` is {'0' if value == 0 else 'negative'}: at least 1 is needed")
    if value > most:
        raise TraceError(path, line, f"`{what}` is more than {most:,}")
    return value
