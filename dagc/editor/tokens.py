"""The words of a text that need not parse: the lexer of the grammar, but for what no token begins with, which is passed over."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..base.frozen import record
from ..base.syntax.errors import WORDS
from ..base.units import UNITS

NAME, NUMBER, UNIT, STRING, COMMENT, OPERATOR, NEWLINE = "name", "number", "unit", "string", "comment", "op", "newline"
_RESERVED = "|".join(WORDS)
_NUMBER = r"[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?"
_UNIT = rf"%|(?!(?:{_RESERVED})\b)[A-Za-z]+(?:/(?:s|ms|us|min|tok)\b)?(?!\w|[ \t]*=(?!=))|\$(?:/[A-Za-z]+)?"
_TOKEN = re.compile(
    rf'(?P<comment>#[^\n]*)|(?P<string>"[^"\n]*"?)|(?P<newline>\n)|(?P<number>{_NUMBER})(?:[ \t]*(?P<unit>{_UNIT}))?'
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<op><=|>=|==|\.\.|\+-|[^\s\w])"
)


@record
class Token:
    """`known`: of a unit, whether there is such a one."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def known(self) -> bool:
        return self.kind != UNIT or self.text in UNITS


def tokens_of(text: str) -> list[Token]:
    """All of them in order, comments and newlines too."""
    found: list[Token] = []
    for match in _TOKEN.finditer(text):
        if match["number"] is not None:
            found.append(Token(NUMBER, match["number"], match.start("number")))
            if match["unit"] is not None:
                found.append(Token(UNIT, match["unit"], match.start("unit")))
            continue
        kind = str(match.lastgroup)
        found.append(Token(kind, match.group(), match.start()))
    return found


_CLOSES = {")": "(", "]": "["}


def closed_brackets(tokens: Sequence[Token]) -> set[int]:
    """Indices of ( [ ) ] that have a partner before a brace closes around them."""
    found: set[int] = set()
    open_: list[tuple[str, int]] = []
    for i, token in enumerate(tokens):
        if token.kind != OPERATOR:
            continue
        if token.text in "([{":
            open_.append((token.text, i))
        elif token.text in _CLOSES:
            if open_ and open_[-1][0] == _CLOSES[token.text]:
                found |= {i, open_.pop()[1]}
        elif token.text == "}":
            while open_ and open_[-1][0] != "{":
                open_.pop()
            if open_:
                open_.pop()
    return found
