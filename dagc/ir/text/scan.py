"""Words of the textual IR: lines with their continuations, and a cursor that reads one from left to right."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

CONTINUES = "    "
"""What a line that continues the one before begins with."""

_NAME = re.compile(r"[^\s,:=/+%@#?\"()\[\]{}]+")
_NUMBER = re.compile(r"\d+")
_AFTER_TYPE = re.compile(r"(dense|experts|sampled|decode|prompt\d*|tied|placed|in|kernel|all|loops)\b")
_SPACE = re.compile(r" *")


class TextError(ValueError):
    """The text is not printed IR. The message names the line."""


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, continuations joined, comments and empty lines left out."""
    number, parts = 0, list[str]()
    for at, line in enumerate(text.splitlines(), start=1):
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        if parts and line.startswith(CONTINUES):
            parts.append(words)
            continue
        if parts:
            yield number, " ".join(parts)
        number, parts = at, [words]
    if parts:
        yield number, " ".join(parts)


class Cursor:
    """A place in one line. Every method raises TextError with what was expected and what is there."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def skip(self) -> None:
        if self.text.startswith(" ", self.at):
            blank = _SPACE.match(self.text, self.at)
            self.at = blank.end() if blank else self.at

    def takes(self, mark: str) -> bool:
        """Whether the mark comes next; it is then behind the cursor. A word must end where the mark ends."""
        if self.text.startswith(" ", self.at):
            self.skip()
        if not self.text.startswith(mark, self.at):
            return False
        end = self.at + len(mark)
        if mark[-1].isalnum() and end < len(self.text) and _NAME.match(self.text, end):
            return False
        self.at = end
        return True

    def mark(self, mark: str) -> None:
        if not self.takes(mark):
            raise self.wrong(f"`{mark}`")

    def _match(self, pattern: re.Pattern[str], wanted: str) -> str:
        self.skip()
        match = pattern.match(self.text, self.at)
        if match is None:
            raise self.wrong(wanted)
        self.at = match.end()
        return match[0]

    def name(self) -> str:
        return self._match(_NAME, "a name")

    def value(self) -> str:
        """The name of a value: `%x`, or a weight with its `@`."""
        if self.takes("%"):
            return self.name()
        if self.takes("@"):
            return "@" + self.name()
        raise self.wrong("a value")

    def count(self) -> int:
        return int(self._match(_NUMBER, "a whole number"))

    def until(self, ends: str) -> str:
        """The text before the next of these characters."""
        match = re.compile(f"[^{re.escape(ends)}]*").match(self.text, self.at)
        start, self.at = self.at, match.end() if match else self.at
        return self.text[start : self.at].strip()

    def axes(self) -> tuple[str, ...]:
        """Names joined by `+`; `-`: none."""
        names = [self.name()]
        while self.takes("+"):
            names.append(self.name())
        return () if names == ["-"] else tuple(names)

    def list(self, opens: str, item: Callable[[], T], closes: str) -> list[T]:
        """Items between two marks, separated by commas."""
        self.mark(opens)
        items: list[T] = []
        while not self.takes(closes):
            if items:
                self.mark(",")
            items.append(item())
        return items

    def ends_type(self) -> bool:
        """Whether no dtype comes next: the line or the list ends, or another part of the line begins."""
        rest = self.rest()
        return not rest or rest[0] in ",)" or _AFTER_TYPE.match(rest) is not None

    def rest(self) -> str:
        self.skip()
        return self.text[self.at :]

    def end(self) -> None:
        if self.rest():
            raise self.wrong("the end of the line")

    def wrong(self, wanted: str) -> TextError:
        there = self.rest()
        return TextError(f"expected {wanted}, found `{there[:40]}`" if there else f"expected {wanted} at the end")
