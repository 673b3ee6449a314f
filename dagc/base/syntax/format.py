"""`dagc fmt`: one layout for every spec. Works on tokens, so comments survive; the syntax tree never changes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..frozen import mutable
from ..source import Source

INDENT = "  "
WIDTH = 110
_TOKEN = re.compile(
    r"(?P<comment>#[^\n]*)|(?P<string>\"[^\"\n]*\")|(?P<newline>\n)|(?P<blank>[ \t\r\f]+)"
    r"|(?P<number>[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*|\$)|(?P<op><=|>=|==|\.\.|\+-|.)"
)
_BINARY = {"=", "+", "-", "*", "/", "<=", ">=", "==", "<", ">", "~", "+-"}
_VALUE_END = {"name", "number", "string"}
_UNIT_TAIL = {"s", "ms", "us", "min", "tok", "h", "Mtok", "req"}


@mutable
class _Token:
    kind: str
    text: str
    spaced: bool = False  # blank before it in the source


def format_source(source: Source) -> str:
    """The formatted text. The source must parse."""
    out: list[str] = []
    depth = 0
    previous: list[_Token] = []
    for tokens in _fitting(_without_end_commas(_logical_lines(source.text))):
        if not tokens:
            if out and out[-1] and not _opens(previous):
                out.append("")
            continue
        closing = len(_leading_closers(tokens))
        if closing and out and not out[-1]:
            out.pop()
        depth = max(0, depth - closing)
        out.append(INDENT * depth + _join(tokens))
        depth = max(0, depth + _balance(tokens) + closing)
        previous = tokens
    while out and not out[-1]:
        out.pop()
    return "\n".join(out) + "\n"


def _logical_lines(text: str) -> list[list[_Token]]:
    lines: list[list[_Token]] = [[]]
    spaced = False
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind == "newline":
            lines.append([])
        elif kind != "blank":
            value = match.group().rstrip() if kind == "comment" else match.group()
            lines[-1].append(_Token(kind, value, spaced))
        spaced = kind == "blank"
    return lines


def _without_end_commas(lines: list[list[_Token]]) -> Iterator[list[_Token]]:
    """A comma at a line's end says what the newline says, unless ( ) or [ ] span the line's end."""
    open_: list[str] = []
    for tokens in lines:
        for t in tokens:
            if t.kind == "op" and t.text in "{([":
                open_.append(t.text)
            elif t.kind == "op" and t.text in "})]" and open_:
                open_.pop()
        if open_ and open_[-1] != "{":
            yield tokens
            continue
        comment = [t for t in tokens if t.kind == "comment"]
        body = tokens[: len(tokens) - len(comment)]
        while body and body[-1].text == ",":
            body.pop()
        if body or comment or not tokens:
            yield body + comment


def _fitting(lines: Iterable[list[_Token]]) -> Iterator[list[_Token]]:
    """Opens up the sections written on one line that do not fit it."""
    depth = 0
    for tokens in lines:
        shift = len(_leading_closers(tokens))
        yield from _unfolded(tokens, max(0, depth - shift))
        depth = max(0, depth + _balance(tokens))


def _unfolded(tokens: list[_Token], depth: int) -> Iterator[list[_Token]]:
    """The line itself if it fits or contains no whole section, else head, statements and closing brace on lines of their own."""
    comment = [t for t in tokens if t.kind == "comment"]
    body = tokens[: len(tokens) - len(comment)]
    braces = _outer_braces(body)
    if braces is None or len(INDENT) * depth + len(_join(body)) <= WIDTH:
        yield tokens
        return
    first, last = braces
    if comment:
        yield comment
    yield body[: first + 1]
    for statement in _statements(body[first + 1 : last]):
        yield from _unfolded(statement, depth + 1)
    yield from _unfolded(body[last:], depth)


def _outer_braces(body: list[_Token]) -> tuple[int, int] | None:
    """Where the first section that begins and ends on this line, with something in it, has its braces."""
    open_: list[int] = []
    spans: list[tuple[int, int]] = []
    for i, t in enumerate(body):
        if t.kind != "op":
            continue
        if t.text == "{":
            open_.append(i)
        elif t.text == "}" and open_:
            first = open_.pop()
            if i > first + 1:
                spans.append((first, i))
    return min(spans) if spans else None


def _statements(body: list[_Token]) -> Iterator[list[_Token]]:
    """Split at the commas that no bracket encloses."""
    statement: list[_Token] = []
    depth = 0
    for t in body:
        depth += _balance([t])
        if t.text == "," and depth == 0:
            if statement:
                yield statement
            statement = []
        else:
            statement.append(t)
    if statement:
        yield statement


def _opens(tokens: list[_Token]) -> bool:
    body = [t for t in tokens if t.kind != "comment"]
    return bool(body) and body[-1].text in "{(["


def _balance(tokens: list[_Token]) -> int:
    return sum((t.text in "{([") - (t.text in "})]") for t in tokens if t.kind == "op")


def _leading_closers(tokens: list[_Token]) -> list[_Token]:
    blanks = []
    for t in tokens:
        if t.kind != "op" or t.text not in "})]":
            break
        blanks.append(t)
    return blanks


def _join(tokens: list[_Token]) -> str:
    text = ""
    for i, token in enumerate(tokens):
        if i and _space(tokens, i):
            text += "  " if token.kind == "comment" else " "
        text += token.text
    return text


def _space(tokens: list[_Token], i: int) -> bool:
    """Whether there is a blank before token i."""
    left, right = tokens[i - 1], tokens[i]
    if right.kind == "comment":
        return True
    if _unit_slash(tokens, i) or _unit_slash(tokens, i - 1):
        return False
    if right.text in (",", ")", "]", ".", "..", "%") or left.text in ("(", "[", ".", ".."):
        return False
    if _unary_minus(tokens, i - 1):
        return False
    if right.text in ("(", "["):
        if left.kind == "name":
            return left.text in ("in", "require", "return")
        return left.text in _BINARY or left.text == "," or right.spaced
    if left.text in _BINARY or right.text in _BINARY or left.text == ",":
        return True
    if left.kind == "number" and right.kind == "name":
        return right.spaced  # `10 GB` stays, `10M` stays
    return True


def _unit_slash(tokens: list[_Token], i: int) -> bool:
    """Token i is the slash of a unit such as `GB/s`, written without blanks."""
    if not 0 < i < len(tokens) - 1 or tokens[i].text != "/":
        return False
    left, right = tokens[i - 1], tokens[i + 1]
    tight = not tokens[i].spaced and not right.spaced
    return tight and left.kind == "name" and right.text in _UNIT_TAIL and i >= 2 and tokens[i - 2].kind == "number"


def _unary_minus(tokens: list[_Token], i: int) -> bool:
    """Token i is a minus that negates what follows."""
    if tokens[i].text != "-":
        return False
    return i == 0 or not (tokens[i - 1].kind in _VALUE_END or tokens[i - 1].text in (")", "]", "%"))
