"""Between lexer and parser: what a newline and a comma mean depends on the bracket that they are in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_OPEN = {"LPAR", "LSQB", "LBRACE"}
_CLOSE = {"RPAR", "RSQB", "RBRACE"}


class BracketFilter:
    """Newlines vanish inside ( ) and [ ]; elsewhere a newline or a comma is _END. LBRACE wins over both again."""

    always_accept = ("_END", "COMMA")

    def process(self, stream: Iterator[Any]) -> Iterator[Any]:
        from lark import Token

        open_: list[str] = []
        for token in stream:
            if token.type in _OPEN:
                open_.append(token.type)
            elif token.type in _CLOSE and open_:
                open_.pop()
            inside = bool(open_) and open_[-1] != "LBRACE"
            if token.type == "_END" and inside:
                continue
            if token.type == "COMMA" and not inside:
                token = Token.new_borrow_pos("_END", token.value, token)
            yield token
