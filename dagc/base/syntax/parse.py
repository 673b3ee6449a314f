"""Text to syntax tree, with every syntax error of the file in one run; what no parser should meet is refused before."""

from __future__ import annotations

import re

from ..diagnostics import Collector
from ..harmless import control_in
from ..source import Source, Span
from . import ast
from .build import MAX_NAME
from .clean import clean_file
from .edited import Known, edited

MAX_CHARACTERS = 1_000_000
MAX_NESTING = 64
MAX_NUMBER = 80
MAX_STRING = 4000


def parse(source: Source, out: Collector) -> ast.File:
    """The tree of a file. Syntax errors go to `out`; what could be read is still returned."""
    key = source.name, source.text
    known = _clean.pop(key, None)
    if known is not None:
        _clean[key] = known  # the library, which every text asks for, stays
        return known[0]
    found = Collector()
    clean, blanked = _edited(source), set[int]()
    if clean is None:
        if not _readable(source, out):
            return ast.File(Span(source, 0, 0), ())
        clean = clean_file(source, found)
    if clean is not None:
        file = clean[0]
    else:
        from .recovery import Recovery

        recovery = Recovery(source, found)
        file, blanked = recovery.run(), recovery.blanked
    _check_version(file, source, found, blanked)
    for d in found.items:
        out.take(d)
    if clean is not None and not found.items:
        for oldest in list(_clean)[: max(0, len(_clean) - MAX_KEPT + 1)]:
            _clean.pop(oldest, None)  # another thread may have it out
        _clean[key] = clean
    return file


MAX_KEPT = 32
_clean: dict[tuple[str, str], Known] = {}
"""Trees of files that parsed without a diagnostic, the few that were asked for last: a process that compiles many specs reads the
library once. Trees never change."""


def _edited(source: Source) -> Known | None:
    """Of a text that has statements of the last one of its name; None where it is read as a whole."""
    if len(source.text) > MAX_CHARACTERS:
        return None
    known = next((each for (name, _), each in reversed(list(_clean.items())) if name == source.name), None)
    return None if known is None else edited(source, known, lambda text: _readable(Source("", text), Collector()))


def parse_expression(text: str, out: Collector) -> ast.Expr | None:
    """One expression on one line (a `--set` value)."""
    if any(c in text for c in "\n\r#"):
        return None
    source = Source("--set", f"moe 1\nlet value = {text}\n")
    before = len(out.items)
    file = parse(source, out)
    lets = [s for s in file.statements if isinstance(s, ast.Let)]
    return lets[0].value if len(out.items) == before and len(file.statements) == 2 and lets else None


def _readable(source: Source, out: Collector) -> bool:
    text = source.text
    if "\0" in text:
        at = text.index("\0")
        out.add("E01", "this is not a text file: it contains a zero byte", Span(source, at, at + 1))
        return False
    control = control_in(text)
    if control is not None:
        what = f"a control character (U+{ord(control[0]):04X}) is not allowed here"
        out.add("E01", what, Span(source, control.start(), control.end()), help=("a spec is plain text",))
        return False
    if len(text) > MAX_CHARACTERS:
        size = f"over {MAX_CHARACTERS // 1000} thousand characters"
        out.add("E01", f"the file is too large: {size}", Span(source, 0, 0), help=("split it with `import`",))
        return False
    return _shallow(source, out)


_SKIPPED = re.compile(
    r'"[^"\n]*"?|#[^\n]*|[(\[{]|[)\]}]|-(?:[-\s]|#[^\n]*)*|[A-Za-z_][A-Za-z0-9_]*|[0-9][0-9_.]*(?:[eE][+-]?[0-9]+)?'
)
_COMMENT = re.compile(r"#[^\n]*")


def _shallow(source: Source, out: Collector) -> bool:
    """No bracket or row of minus signs nests beyond the limit, and no number is absurdly long."""
    open_: list[int] = []  # per bracket: how much deeper it goes, signs before it included
    signs = 0
    for match in _SKIPPED.finditer(source.text):
        token = match.group()
        if token[0].isdigit() and len(token) > MAX_NUMBER:
            out.add("E01", f"a number of {len(token)} characters is too long", _first_of(match, source))
            return False
        most = MAX_STRING if token[0] == '"' else MAX_NAME
        if len(token) > most and (token[0] in '"_' or token[0].isalpha()):
            what = "text" if token[0] == '"' else "name"
            out.add("E01", f"a {what} of {len(token)} characters is too long", _first_of(match, source))
            return False
        if token[0] in "([{":
            open_.append(1 + signs)
        elif token[0] in ")]}" and open_:
            open_.pop()
        signs = _COMMENT.sub("", token).count("-") - 1 if token[0] == "-" else 0
        if len(open_) > MAX_NESTING or sum(open_) + signs > MAX_NESTING:
            what = "brackets nest" if not signs else "signs nest"
            out.add("E01", f"{what} deeper than {MAX_NESTING}", _first_of(match, source))
            return False
    return True


def _first_of(match: re.Match[str], source: Source) -> Span:
    return Span(source, match.start(), match.start() + 1)


def _check_version(file: ast.File, source: Source, out: Collector, blanked: set[int]) -> None:
    """The first statement is `moe 1`, unless it may be among the lines that did not parse."""
    versions = [s for s in file.statements if isinstance(s, ast.Version)]
    first = file.statements[0].span.start if file.statements else len(source.text)
    if any(line <= source.position(first)[0] for line in blanked):
        return
    if not file.statements:
        out.add("E01", "the file is empty", Span(source, 0, 0), help=("a spec begins with `moe 1`",))
    elif not isinstance(file.statements[0], ast.Version):
        span = file.statements[0].span
        out.add(
            "E01",
            "the first statement must be `moe 1`",
            span,
            "found this",
            help=("add the line `moe 1` at the top",),
        )
    for version in versions[1:]:
        out.add("E01", "`moe` is given twice", version.span)
    for version in versions[:1]:
        if version.number != 1:
            out.add(
                "E01",
                f"language version {version.span.text.removeprefix('moe').strip()} is not known",
                version.span,
                help=("this dagc reads `moe 1`",),
            )
