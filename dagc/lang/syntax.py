"""Syntax errors in words: where the parser stumbled, what it found, what may stand there."""

from __future__ import annotations

import re
from typing import Any

from .diagnostics import Collector, did_you_mean
from .source import Source, Span

WORDS = (
    "moe",
    "import",
    "let",
    "param",
    "in",
    "require",
    "from",
    "true",
    "false",
    "block",
    "layer",
    "return",
)


def offset(error: Any, text: str) -> int:
    """Where the parser stumbled."""
    token = getattr(error, "token", None)
    if token is not None and token.type == "$END":
        return max(0, len(text.rstrip()) - 1)
    at = getattr(error, "pos_in_stream", None)
    if at is None:
        at = getattr(token, "start_pos", None)
    return int(at) if at is not None else max(0, len(text) - 1)


_SPOKEN = {
    "NAME": "a name",
    "QUANTITY": "a number",
    "STRING": "a string",
    "COMPARE": "a comparison (<= >= < > == ~)",
    "_END": "the end of the statement",
    "COMMA": "`,`",
    "MOE": "`moe 1`",
    "EQUAL": "`=`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "DOT": "`.`",
    "PLUS": "an operator",
    "MINUS": "an operator",
    "STAR": "an operator",
    "SLASH": "an operator",
}
_HIDDEN = {
    "$END",
    "RPAR",
    "RSQB",
    "COMMA",
    "MOE",
    "DOT",
    "PLUS",
    "MINUS",
    "STAR",
    "SLASH",
    "LPAR",
    "LSQB",
    "TRUE",
    "FALSE",
}


def report(error: Any, at: int, source: Source, out: Collector) -> None:
    """Add the diagnostic of one syntax error."""
    token = getattr(error, "token", None)
    if token is None:
        char = source.text[at : at + 1]
        if char == '"':
            out.add("E01", "a string does not end on its line", Span(source, at, at + 1))
        else:
            shown = f"`{char}`" if char.isprintable() else ascii(char)
            out.add("E01", f"{shown} means nothing here", Span(source, at, at + 1), help=_char_help(char))
        return
    if (word := _missing_comma(error, at, source)) is not None:
        out.add("E01", f"a comma or a newline is missing before `{word.text}`", word)
        return
    ended = token.type == "$END"
    found = "end of the file" if ended else "end of the line" if token.value == "\n" else f"`{token.value}`"
    text = _expected(error)
    span = Span(source, at, min(len(source.text), at + max(1, 0 if ended else len(token.value))))
    label = f"expected {text}" if text else ""
    out.add("E01", f"unexpected {found}", span, label, help=_hint(error, at, source))


_STARTS = {"NAME", "LET", "PARAM", "REQUIRE", "IMPORT", "BLOCK", "LAYER", "RETURN"}
_UNIT_WORD = re.compile(r"[0-9][0-9_.]*(?:[eE][+-]?[0-9]+)?[ \t]*([A-Za-z]+)[ \t]*$")


def _missing_comma(error: Any, at: int, source: Source) -> Span | None:
    """`tp = 2 pp = 4` (read as the unit of 2) and `kind = gqa heads = 4`: the word that starts a new statement."""
    line_start = source.text.rfind("\n", 0, at) + 1
    before = source.text[line_start:at]
    if error.token.type == "EQUAL" and (unit := _UNIT_WORD.search(before)):
        return Span(source, line_start + unit.start(1), line_start + unit.end(1))
    starts = error.token.type in _STARTS and before.strip() and "_END" in _accepted(error)
    return Span(source, at, at + len(error.token.value)) if starts and "EQUAL" not in _accepted(error) else None


def _accepted(error: Any) -> set[str]:
    """What may really stand here; `expected` also holds what other places with the same state allow."""
    return set(error.accepts or error.expected)


def _expected(error: Any) -> str:
    """In words, at most five of them."""
    names = _accepted(error)
    if "LET" in names:
        spoken = {"a statement"} | ({"`}`"} if "RBRACE" in names else set())
    else:
        shown = (n for n in names - _HIDDEN if n != "_END" and not n.startswith("__"))
        spoken = {_SPOKEN.get(name, f"`{name.lower()}`") for name in shown}
        # Where only a closing bracket or an operator can follow, say so.
        spoken = spoken or {_SPOKEN[n] for n in names & {"RPAR", "RSQB", "COMMA", "PLUS", "LPAR", "LSQB"}}
    words = sorted(spoken)
    if "_END" in names and "LET" not in names:
        words.append("the end of the statement")
    return ", ".join(words[:5]) + (" ..." if len(words) > 5 else "")


def _hint(error: Any, at: int, source: Source) -> tuple[str, ...]:
    token = error.token
    before = re.search(r"([A-Za-z_]+)[ \t]*$", source.text[:at][-80:])
    if token.value in WORDS:
        return (f"`{token.value}` is a reserved word",)
    if token.value == "=" and before and before[1] in WORDS:
        return (f"`{before[1]}` is a reserved word",)
    if token.value == "\n" and "LBRACE" in error.expected and source.text[at:].lstrip().startswith("{"):
        return ("the `{` belongs on this line",)
    if token.type == "QUANTITY" and "EQUAL" in error.expected:
        return ("write `name = value`",)
    head = re.match(r"\s*([A-Za-z_]+)", source.line(source.position(at)[0]))
    if token.type == "LPAR" and head and (near := did_you_mean(head[1], WORDS)) and near != head[1]:
        return (f"did you mean `{near}`?",)
    if token.type == "NAME" and (near := did_you_mean(str(token.value), WORDS)) and near != token.value:
        return (f"did you mean `{near}`?",)
    return ()


def _char_help(char: str) -> tuple[str, ...]:
    return {
        "'": ('strings are written in double quotes: "..."',),
        ";": ("statements end with a newline or a comma",),
        ":": ("write `name = value`",),
        "!": ("`!=` does not exist; state what must hold",),
        "/": ("comments begin with `#`",),
    }.get(char, ())
