"""Text to syntax tree, with every syntax error of the file in one run."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import ast
from .build import IGNORED, Builder
from .diagnostics import Collector, Diagnostic, SpecError, did_you_mean
from .source import Source, Span

MAX_CHARACTERS = 1_000_000
MAX_NESTING = 64
MAX_ERRORS = 20
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


def read_source(path: str) -> Source:
    """Read a spec file, or standard input for `-`. Raises SpecError (E01 not text, E05 not readable)."""
    name = "<stdin>" if path == "-" else path
    try:
        data = sys.stdin.buffer.read(4 * MAX_CHARACTERS + 1) if path == "-" else _read(Path(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError([Diagnostic("E05", f"cannot read {name!r}: {reason}")]) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{name} is not UTF-8 text (byte {error.start})"
        raise SpecError([Diagnostic("E01", message, help=("a spec is a text file",))]) from None
    return Source(name, text.replace("\r\n", "\n"))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4 * MAX_CHARACTERS + 1)


def parse(source: Source, out: Collector) -> ast.File:
    """The tree of a file. Syntax errors go to `out`; what could be read is returned all the same."""
    if not _readable(source, out):
        return ast.File(Span(source, 0, 0), ())
    file = _parse_with_recovery(source, out)
    _check_version(file, source, out)
    return file


def parse_expression(text: str, name: str, out: Collector) -> ast.Expr | None:
    """One expression (a `--set` value)."""
    source = Source(name, f"moe 1\nlet value = {text}\n")
    before = len(out.items)
    file = parse(source, out)
    lets = [s for s in file.statements if isinstance(s, ast.Let)]
    return lets[0].value if len(out.items) == before and len(file.statements) == 2 and lets else None


# -- guards before the parser ----------------------------------------------------------------------


def _readable(source: Source, out: Collector) -> bool:
    text = source.text
    if "\0" in text:
        at = text.index("\0")
        out.add("E01", "this is not a text file: it holds a zero byte", Span(source, at, at + 1))
        return False
    if len(text) > MAX_CHARACTERS:
        size = f"over {MAX_CHARACTERS // 1000} thousand characters"
        out.add("E01", f"the file is too large: {size}", Span(source, 0, 0), help=("split it with `import`",))
        return False
    deepest = _too_deep(text)
    if deepest is not None:
        out.add("E01", f"brackets nest deeper than {MAX_NESTING}", Span(source, deepest, deepest + 1))
        return False
    return True


_SKIPPED = re.compile(r'"[^"\n]*"?|#[^\n]*|[(\[{]|[)\]}]')


def _too_deep(text: str) -> int | None:
    """Offset of the first bracket beyond the limit, strings and comments apart."""
    depth = 0
    for match in _SKIPPED.finditer(text):
        token = match.group()
        if token in "([{":
            depth += 1
            if depth > MAX_NESTING:
                return match.start()
        elif token in ")]}":
            depth -= 1
    return None


def _check_version(file: ast.File, source: Source, out: Collector) -> None:
    if out.failed:
        return  # the version line itself may be what did not parse
    versions = [s for s in file.statements if isinstance(s, ast.Version)]
    if not file.statements:
        out.add("E01", "the file is empty", Span(source, 0, 0), help=("a spec begins with `moe 1`",))
    elif not isinstance(file.statements[0], ast.Version):
        span = file.statements[0].span
        out.add(
            "E01",
            "the first statement must be `moe 1`",
            span,
            "found this",
            help=("add the line `moe 1` on top",),
        )
    for version in versions[1:]:
        out.add("E01", "`moe` stands twice", version.span)
    for version in versions[:1]:
        if version.number != 1:
            out.add(
                "E01",
                f"language version {version.number} is not known",
                version.span,
                help=("this dagc reads `moe 1`",),
            )


# -- parsing ---------------------------------------------------------------------------------------


def _parse_with_recovery(source: Source, out: Collector) -> ast.File:
    """Parse; at an error blank out its line and parse again. Offsets never change, so spans stay right."""
    from lark.exceptions import UnexpectedInput, VisitError

    from . import tables

    parser = tables.load()
    text = source.text if source.text.endswith("\n") else source.text + "\n"
    blanked: set[int] = set()
    first_error = len(out.items)
    with _collector_paused():
        while True:
            try:
                tree = parser.parse(text)
                return Builder(source, out).file(tree)
            except VisitError as error:  # pragma: no cover - the builder raises nothing of its own
                raise error.orig_exc from None
            except UnexpectedInput as error:
                at = _offset(error, text)
                line = source.position(min(at, len(source.text)))[0]
                if line in blanked or len(out.items) - first_error >= MAX_ERRORS:
                    return ast.File(Span(source, 0, 0), ())
                if not any(abs(line - other) <= 1 and _is_closing(source, line) for other in blanked):
                    _report(error, at, source, out)
                blanked.add(line)
                text = _blank(text, source, line)


def _is_closing(source: Source, line: int) -> bool:
    """A lone closing bracket after a blanked line is that line's other half, not an error of its own."""
    return source.line(line).strip() in ("}", ")", "]")


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Building thousands of small nodes triggers the cyclic collector for nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _offset(error: Any, text: str) -> int:
    token = getattr(error, "token", None)
    if token is not None and token.type == "$END":
        return max(0, len(text.rstrip()) - 1)
    at = getattr(error, "pos_in_stream", None)
    if at is None:
        at = getattr(token, "start_pos", None)
    return int(at) if at is not None else max(0, len(text) - 1)


def _blank(text: str, source: Source, line: int) -> str:
    """Replace a line by blanks of the same length, keeping the balance of its braces."""
    start = sum(len(source.line(n)) + 1 for n in range(1, line))
    old = source.line(line)
    bare = re.sub(r'"[^"\n]*"?|#[^\n]*', "", old)
    opens, closes = bare.count("{") - bare.count("}"), bare.count("}") - bare.count("{")
    new = ""
    if opens > 0 and len(old) > len(IGNORED):
        new = f"{IGNORED}{{"  # one, whatever was typed: `{{` is the likelier slip
    elif closes > 0:
        new = "}" * closes
    return text[:start] + new.ljust(len(old)) + text[start + len(old) :]


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


def _report(error: Any, at: int, source: Source, out: Collector) -> None:
    token = getattr(error, "token", None)
    if token is None:
        char = source.text[at : at + 1]
        if char == '"':
            out.add("E01", "a string does not end on its line", Span(source, at, at + 1))
        else:
            out.add("E01", f"{char!r} means nothing here", Span(source, at, at + 1), help=_char_help(char))
        return
    ended = token.type == "$END"
    found = "the end of the file" if ended else "the end of the line" if token.value == "\n" else f"`{token.value}`"
    expected = sorted(
        {
            _SPOKEN.get(name, f"`{name.lower()}`")
            for name in error.expected - _HIDDEN
            if name != "_END" and not name.startswith("__")
        }
    )
    if "_END" in error.expected:
        expected.append("the end of the statement")
    text = ", ".join(expected[:5]) + (" ..." if len(expected) > 5 else "")
    help_: tuple[str, ...] = ()
    if token.value in WORDS:
        help_ = (f"`{token.value}` is a reserved word",)
    elif ended and "RBRACE" in error.expected:
        help_ = ("a `{` is never closed",)
    elif token.type == "QUANTITY" and "EQUAL" in error.expected:
        help_ = ("write `name = value`",)
    elif token.type == "NAME" and (near := did_you_mean(str(token.value), WORDS)) and near != token.value:
        help_ = (f"did you mean `{near}`?",)
    span = Span(source, at, min(len(source.text), at + max(1, 0 if ended else len(token.value))))
    out.add("E01", f"unexpected {found}", span, f"expected {text}" if text else "", help=help_)


def _char_help(char: str) -> tuple[str, ...]:
    return {
        "'": ('strings are written in double quotes: "..."',),
        ";": ("statements end with a newline or a comma",),
        ":": ("write `name = value`",),
        "!": ("`!=` does not exist; state what must hold",),
        "/": ("comments begin with `#`",),
    }.get(char, ())
