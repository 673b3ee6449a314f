"""Where a cursor is in a text that is being typed: in which sections, and behind which words of its statement."""

from __future__ import annotations

import re

from ..base.frozen import record
from .buffer import Document
from .statement_tree import Statement, around
from .tokens import COMMENT, NAME, NEWLINE, OPERATOR, STRING, Token, closed_brackets

_PREFIX = re.compile(r"[A-Za-z_$%][A-Za-z0-9_/]*$")


@record
class Cursor:
    """`before`: tokens of the statement before the word that is being typed, which begins at `start`; `calls`: of the brackets that
    are open there, the word before each, innermost last; `string`: where the text in quotes begins that the cursor is in."""

    statements: tuple[Statement, ...]
    sections: tuple[Statement, ...]
    before: tuple[Token, ...]
    start: int
    calls: tuple[str, ...] = ()
    string: int | None = None

    @property
    def last(self) -> Token | None:
        return self.before[-1] if self.before else None

    @property
    def attribute(self) -> str:
        """Whose value is being typed."""
        return self.before[0].text if len(self.before) > 1 and self.before[1].text == "=" else ""

    @property
    def dotted(self) -> tuple[str, ...]:
        """Names with dots directly before the word: `decode`, `memory` of `decode.memory.`"""
        names: list[str] = []
        rest = list(self.before)
        while len(rest) > 1 and rest[-1].text == "." and rest[-2].kind == NAME:
            names.insert(0, rest[-2].text)
            rest = rest[:-2]
        return tuple(names)


def cursor_at(document: Document, offset: int) -> Cursor | None:
    """None inside a comment."""
    text, tokens, statements = document.text, document.tokens, document.statements
    offset = max(0, min(offset, len(text)))
    pairs = closed_brackets(tokens)
    string = None
    ahead: list[tuple[int, Token]] = []
    for i, token in enumerate(tokens):
        if token.start >= offset:
            break
        if offset <= token.end and token.kind == COMMENT:
            return None
        if token.kind == STRING and token.start < offset and (offset < token.end or not _closed(token)):
            string = token.start + 1
            break
        ahead.append((i, token))
    match = _PREFIX.search(text, max(0, offset - 200), offset) if string is None else None
    start = string if string is not None else match.start() if match is not None else offset
    before: list[Token] = []
    open_: list[tuple[int, str]] = []
    for i, token in ahead:
        if token.start >= start:
            break
        if token.kind == OPERATOR and token.text in "{}":
            before, open_ = [], []
            continue
        if token.kind == NEWLINE:
            open_ = [one for one in open_ if one[0] in pairs]
            if not open_:
                before = []
            continue
        if token.kind == OPERATOR and token.text == "," and not open_:
            before = []
            continue
        if token.kind == OPERATOR and token.text in "([":
            named = before[-1].text if before and before[-1].kind == NAME else ""
            open_.append((i, f"{named}{token.text}"))
        elif token.kind == OPERATOR and token.text in ")]" and open_:
            open_.pop()
        if token.kind != COMMENT:
            before.append(token)
    calls = tuple(call for _, call in open_)
    return Cursor(statements, around(statements, start), tuple(before), start, calls, string)


def _closed(token: Token) -> bool:
    return len(token.text) > 1 and token.text.endswith('"')
