"""The outline of a file and what folds in it."""

from __future__ import annotations

from collections.abc import Sequence

from ..base.frozen import record
from .buffer import Document
from .library_files import unquoted
from .statement_tree import (
    ASSIGN,
    BLOCK,
    IMPORT,
    LAYER,
    LET,
    LINK,
    PARAM,
    REQUIRE,
    SECTION,
    Statement,
    walk,
)
from .tokens import COMMENT, STRING


@record
class Symbol:
    """A statement that an outline shows. `start` to `end`: all of it; `at` to `until`: its name."""

    kind: str
    name: str
    detail: str
    start: int
    end: int
    at: int
    until: int
    inside: tuple[Symbol, ...] = ()


def symbols(document: Document) -> list[Symbol]:
    """Definitions, sections with their attributes, and requirements."""
    return _symbols(document.text, document.statements)


def _symbols(text: str, statements: Sequence[Statement]) -> list[Symbol]:
    found = []
    for s in statements:
        shown = s.name or (s.head[0] if s.head else None)
        if shown is None or s.kind not in (ASSIGN, BLOCK, IMPORT, LAYER, LET, LINK, PARAM, REQUIRE, SECTION):
            continue
        name, value = shown.text, " ".join(text[t.start : t.end] for t in s.value)
        if s.kind in (SECTION, LINK, BLOCK, LAYER):
            brace = s.head[-1].start if s.inside is not None else s.head[-1].end
            name, value = text[s.start : brace].strip(), ""
        elif s.kind == REQUIRE:
            name = unquoted(shown) if shown.kind == STRING else value
            value = text[s.value[0].start : s.value[-1].end] if s.value else ""
        elif s.kind == IMPORT:
            name = value
        inside = tuple(_symbols(text, s.body)) if s.kind != BLOCK else ()
        found.append(
            Symbol(s.kind, name or s.word, value[:80], s.start, max(s.end, shown.end), shown.start, shown.end, inside)
        )
    return found


def folds(document: Document) -> list[tuple[int, int, bool]]:
    """Offsets where something folds: braces that are on different lines, and runs of comments (the flag)."""
    text = document.text
    found = [
        (s.inside[0] - 1, s.inside[1], False)
        for s, _ in walk(document.statements)
        if s.inside is not None and "\n" in text[s.inside[0] : s.inside[1]]
    ]
    run: list[int] = []
    for token in (*document.tokens, None):
        if (
            token is not None
            and token.kind == COMMENT
            and not text[text.rfind("\n", 0, token.start) + 1 : token.start].strip()
        ):
            if run and text[run[-1] : token.start].count("\n") > 1:
                found += [(run[0], run[-1], True)] if len(run) > 1 else []
                run = []
            run.append(token.start)
        elif token is None or token.kind != "newline":
            found += [(run[0], run[-1], True)] if len(run) > 1 else []
            run = []
    return sorted(found)
