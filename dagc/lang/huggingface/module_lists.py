"""Lists of modules as configs write them: names, parts of names, globs, and expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from ...base.frozen import record

MOST, LONGEST = 20_000, 200
"""Entries of a list that are read, and characters of a glob or expression."""
_REPEATED_GROUP = re.compile(r"\)\s?[*+{]|\\[0-9]")
"""In an expression: it may take exponential time (a repeated group, a reference back)."""
REPEATS = 6
"""Repeats in one expression; each more makes it slower by the length of a name."""


@record
class Patterns:
    """`words`: whole names or dotted parts of them; `expressions`: matched from a name's start."""

    words: frozenset[str] = frozenset()
    expressions: tuple[re.Pattern[str], ...] = ()
    all: bool = False

    @staticmethod
    def everything() -> Patterns:
        return Patterns(all=True)

    @staticmethod
    def of(*lists: object) -> Patterns:
        """Of lists of entries; anything else has none. An expression that is invalid, or may take for ever, means nothing."""
        entries = [str(e) for found in lists if isinstance(found, list) for e in found[:MOST]]
        words: set[str] = set()
        expressions: list[re.Pattern[str]] = []
        for entry in entries:
            if entry.startswith("re:"):
                expressions += _compiled(entry[3:])
            elif any(c in entry for c in "*?["):
                for before in ("", "*."):
                    for after in ("", ".*"):
                        expressions += _compiled(translate(f"{before}{entry}{after}"), glob=True)
            else:
                words.add(entry.removesuffix("."))
        return Patterns(frozenset(words), tuple(expressions))

    def plus(self, entries: list[str]) -> Patterns:
        """These and some more."""
        more = Patterns.of(entries)
        return Patterns(self.words | more.words, self.expressions + more.expressions, self.all)

    def match(self, module: str) -> bool:
        """Does an entry mean this module?"""
        if self.all or not self.words.isdisjoint(_parts(module)):
            return True
        return any(expression.match(module) is not None for expression in self.expressions)


def _compiled(text: str, *, glob: bool = False) -> Iterable[re.Pattern[str]]:
    repeats = sum(text.count(c) for c in "*+{")
    if len(text) > LONGEST or repeats > REPEATS or (not glob and _REPEATED_GROUP.search(text)):
        return []
    try:
        return [re.compile(text)]
    except re.error:
        return []


def _parts(module: str) -> Iterable[str]:
    """Every run of a name's dotted words."""
    words = module.split(".")
    return (".".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))
