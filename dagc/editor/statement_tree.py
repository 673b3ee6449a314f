"""The statements of a text that need not parse, with the place of every word. What the parser reads, it reads alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ..base.frozen import record
from ..lang.statements import TOP
from .tokens import COMMENT, NAME, NEWLINE, OPERATOR, STRING, Token, closed_brackets, tokens_of

VERSION, IMPORT, LET, PARAM, REQUIRE, BLOCK, LAYER, SECTION, LINK, ASSIGN, BARE, DIRECTIVE, TENSOR, RETURN, OTHER = (
    "version", "import", "let", "param", "require", "block", "layer", "section", "link", "assign", "bare", "directive",
    "tensor", "return", "other",
)  # fmt: skip
"""Kinds of statements; `other`: what is none of them."""
_WORDED = {"moe": VERSION, "import": IMPORT, "let": LET, "param": PARAM, "require": REQUIRE, "block": BLOCK,
           "layer": LAYER, "return": RETURN}  # fmt: skip
AT_TOP = (*(w for w in _WORDED if w not in ("let", "return", "moe")), *(kind for kind in TOP))
"""Words that begin a statement at the top of a file and nowhere else: a brace before them is not closed yet."""
MAX_DEPTH = 64
"""Sections inside each other: further braces are passed over."""


@record
class Statement:
    """`head`: its tokens up to `{`, comments left out; `value`: those behind `=`; `name`: what it defines or sets. `inside`: from
    behind `{` to before `}`, or to where it ends without one."""

    kind: str
    head: tuple[Token, ...]
    name: Token | None = None
    preset: Token | None = None
    value: tuple[Token, ...] = ()
    body: tuple[Statement, ...] = ()
    inside: tuple[int, int] | None = None
    end: int = 0
    closed: bool = True

    @property
    def word(self) -> str:
        """Its first word."""
        return self.head[0].text if self.head else ""

    @property
    def start(self) -> int:
        return self.head[0].start if self.head else self.end

    def attribute(self, name: str) -> Statement | None:
        """The statement of the body that sets an attribute."""
        return next((s for s in self.body if s.kind == ASSIGN and s.word == name), None)

    def section(self, kind: str) -> Statement | None:
        """The first section of the body of a kind."""
        return next((s for s in self.body if s.kind == SECTION and s.word == kind), None)


def statements_of(text: str) -> tuple[Statement, ...]:
    """The statements at the top."""
    return Reader(tokens_of(text), len(text)).statements(0, False)


def walk(
    statements: Sequence[Statement], path: tuple[Statement, ...] = ()
) -> Iterator[tuple[Statement, tuple[Statement, ...]]]:
    """Every statement, with those that it is inside of."""
    for s in statements:
        yield s, path
        yield from walk(s.body, (*path, s))


def around(statements: Sequence[Statement], offset: int) -> tuple[Statement, ...]:
    """The sections whose braces an offset is inside of, outermost first."""
    for s in statements:
        if s.inside is not None and s.inside[0] <= offset <= s.inside[1]:
            return (s, *around(s.body, offset))
    return ()


def statement_at(statements: Sequence[Statement], offset: int) -> Statement | None:
    """The innermost statement whose head has the offset, or ends at it."""
    for s in statements:
        if s.inside is not None and s.inside[0] <= offset <= s.inside[1]:
            return statement_at(s.body, offset)
        if s.head and s.start <= offset <= s.head[-1].end:
            return s
    return None


@dataclass(slots=True)
class Reader:
    """Goes through the tokens once."""

    tokens: Sequence[Token]
    length: int
    at: int = 0
    pairs: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self.pairs = closed_brackets(self.tokens)

    def statements(self, depth: int, in_block: bool) -> tuple[Statement, ...]:
        """Up to the `}` that ends them, which is left, or to a statement that belongs further out."""
        found = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind in (NEWLINE, COMMENT) or (token.kind == OPERATOR and token.text == ","):
                self.at += 1
            elif token.kind == OPERATOR and token.text == "}":
                if depth:
                    break
                self.at += 1
            elif depth and self._is_outer():
                break
            else:
                found.append(self.statement(depth, in_block))
        return tuple(found)

    def _is_outer(self) -> bool:
        token = self.tokens[self.at]
        after = self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else None
        return token.kind == NAME and token.text in AT_TOP and after is not None and after.kind in (NAME, STRING)

    def statement(self, depth: int, in_block: bool) -> Statement:
        head: list[Token] = []
        inner = 0
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind == OPERATOR:
                if self.at in self.pairs:
                    inner += 1 if token.text in "([" else -1
                elif not inner and token.text in (",", "}"):
                    break
                if not inner and token.text == "{":
                    return self._with_body(head, depth, in_block)
            elif token.kind == NEWLINE and not inner:
                break
            if token.kind not in (COMMENT, NEWLINE):
                head.append(token)
            self.at += 1
        end = head[-1].end if head else self.tokens[self.at - 1].end
        return _made(tuple(head), in_block, end=end)

    def _with_body(self, head: list[Token], depth: int, in_block: bool) -> Statement:
        brace = self.tokens[self.at]
        self.at += 1
        body: tuple[Statement, ...] = ()
        if depth < MAX_DEPTH:
            body = self.statements(depth + 1, in_block or bool(head and head[0].text == BLOCK))
        ended = self.at < len(self.tokens) and self.tokens[self.at].text == "}"
        if ended:
            stop, self.at = self.tokens[self.at].start, self.at + 1
        else:
            stop = self.tokens[self.at].start - 1 if self.at < len(self.tokens) else self.length
        stop = max(stop, brace.end, *(s.end for s in body[-1:]))
        end = self.tokens[self.at - 1].end if ended else stop
        return _made((*head, brace), in_block, body, (brace.end, stop), end, ended)


def _begins(first: Token, second: Token | None) -> bool:
    """Whether the first word says what a statement is: not one that is given a value, nor `moe` alone, a block of a layer."""
    if second is None:
        return first.text in _WORDED and _WORDED[first.text] != VERSION
    return first.text in _WORDED and not (second.text == "=" and first.text not in (LET, PARAM))


def _made(
    head: tuple[Token, ...],
    in_block: bool,
    body: tuple[Statement, ...] = (),
    inside: tuple[int, int] | None = None,
    end: int = 0,
    closed: bool = True,
) -> Statement:
    """What the words of a statement say that it is."""
    first = head[0] if head else None
    second = head[1] if len(head) > 1 else None
    sign = next((i for i, t in enumerate(head) if t.kind == OPERATOR and t.text == "="), None)
    value = () if sign is None else head[sign + 1 :]
    named = second if second is not None and second.kind == NAME else None
    kind, name, preset = OTHER, None, None
    if first is None or first.kind != NAME:
        pass
    elif _begins(first, second):
        kind, name = _WORDED[first.text], named
        if kind == REQUIRE:
            value, name = head[1:], second if second is not None and second.kind == STRING else None
        elif kind in (IMPORT, RETURN, VERSION):
            value, name = head[1:], None
    elif inside is not None and sign is None:
        kind = LINK if first.text == "link" and len(head) > 3 and head[2].text == "to" else SECTION
        name = second if second is not None and second.kind in (NAME, STRING) and second.text != "from" else None
        preset = _preset(head)
    elif sign == 1:
        kind, name = ASSIGN, first
    elif in_block and (sign is not None or (second is not None and second.text == "[")):
        kind, name = TENSOR, first
    elif sign == 2 and named is not None:
        kind, name = DIRECTIVE, named
    elif second is None:
        kind, name = BARE, first
    elif any(t.text == "from" for t in head[1:3]) or (named is not None and first.text in TOP):
        kind, preset = SECTION, _preset(head)
        name = named if named is not None and named.text != "from" else None
    if in_block and kind == ASSIGN:
        kind = TENSOR
    return Statement(kind, head, name, preset, value, body, inside, end, closed)


def _preset(head: tuple[Token, ...]) -> Token | None:
    """The string behind `from`."""
    for word, after in pairwise(head):
        if word.text == "from" and after.kind == STRING:
            return after
    return None
