"""Text to syntax tree, with every syntax error of the file in one run."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..diagnostics import Collector, Diagnostic, Label, SpecError, did_you_mean
from ..files import MAX_TEXT_BYTES, TooLong, Unreadable, read_named
from ..harmless import CONTROL
from ..source import Source, Span
from . import ast
from .build import MAX_NAME, Builder
from .errors import offset, report

MAX_CHARACTERS = 1_000_000
MAX_NESTING = 64
MAX_ERRORS = 20
MAX_NUMBER = 80
MAX_STRING = 1000
MAX_REREAD = 2_000_000
"""Characters read again to find further errors: a huge file shows its first few at once, not all after minutes."""


def read_source(path: str, allowed: Sequence[str | Path] = ()) -> Source:
    """Read a spec that the command line names, or standard input for `-`. A link out of its project is followed into
    `allowed` folders only. Raises SpecError (E01 not text, E05 not readable)."""
    name = "<stdin>" if path == "-" else path
    if path.endswith(".json"):
        help = ("`dagc import CONFIG.json` reads a config; compile, show, report, diff and export read a .graph.json",)
        raise SpecError([Diagnostic("E05", f"`{path}` is not a spec", help=help)])
    try:
        data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1) if path == "-" else read_named(path, MAX_TEXT_BYTES, allowed)
    except TooLong as error:
        raise SpecError(
            [Diagnostic("E01", f"cannot read {name!r}: {error}", help=("split it with `import`",))]
        ) from None
    except (OSError, ValueError, Unreadable) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(
            [Diagnostic("E05", f"cannot read {name!r}: {reason}", help=getattr(error, "help", ()))]
        ) from None
    return decoded(name, data)


def folder_of(spec: str) -> Path | None:
    """Where a spec's own files are looked up; None: where dagc runs."""
    return None if spec == "-" else Path(os.path.realpath(spec)).parent


def decoded(name: str, data: bytes) -> Source:
    """The source that bytes are. Raises SpecError with E01 where they are no text."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError([_not_text(error.object, error.start, name)]) from None
    return Source(name, text.replace("\r\n", "\n"))


def _not_text(data: bytes, at: int, name: str) -> Diagnostic:
    """Bytes that are no UTF-8, with the line and column of the first."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Diagnostic("E01", f"`{name}` is UTF-16, not UTF-8", help=("save it as UTF-8",))
    start = len(data[:at].decode().replace("\r\n", "\n"))
    source = Source(name, data.decode("utf-8", "replace").replace("\r\n", "\n"))
    line, column = source.position(start)
    message = f"this is not UTF-8 text: line {line}, column {column} has the byte {data[at]:02x}"
    help_ = "a spec is a text file: save it as UTF-8 (editors name the old encodings Latin-1 or Windows-1252)"
    return Diagnostic("E01", message, Span(source, start, start + 1), help=(help_,))


def parse(source: Source, out: Collector) -> ast.File:
    """The tree of a file. Syntax errors go to `out`; what could be read is returned all the same."""
    known = _clean.get((source.name, source.text))
    if known is not None:
        return known
    if not _readable(source, out):
        return ast.File(Span(source, 0, 0), ())
    found = Collector()
    recovery = _Recovery(source, found)
    file = recovery.run()
    _check_version(file, source, found, recovery.blanked)
    for d in found.items:
        out.take(d)
    if not found.items:
        while len(_clean) >= MAX_KEPT:
            del _clean[next(iter(_clean))]
        _clean[source.name, source.text] = file
    return file


MAX_KEPT = 32
_clean: dict[tuple[str, str], ast.File] = {}
"""Trees of files that parsed without a diagnostic, the latest few: a process that compiles many specs reads the library
once. Trees never change."""


def parse_expression(text: str, out: Collector) -> ast.Expr | None:
    """One expression on one line (a `--set` value)."""
    if any(c in text for c in "\n\r#"):
        return None
    source = Source("--set", f"moe 1\nlet value = {text}\n")
    before = len(out.items)
    file = parse(source, out)
    lets = [s for s in file.statements if isinstance(s, ast.Let)]
    return lets[0].value if len(out.items) == before and len(file.statements) == 2 and lets else None


# -- guards before the parser ----------------------------------------------------------------------


def _readable(source: Source, out: Collector) -> bool:
    text = source.text
    if "\0" in text:
        at = text.index("\0")
        out.add("E01", "this is not a text file: it contains a zero byte", Span(source, at, at + 1))
        return False
    control = CONTROL.search(text)
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
        span = Span(source, match.start(), match.start() + 1)
        if token[0].isdigit() and len(token) > MAX_NUMBER:
            out.add("E01", f"a number of {len(token)} characters is too long", span)
            return False
        most = MAX_STRING if token[0] == '"' else MAX_NAME
        if len(token) > most and (token[0] in '"_' or token[0].isalpha()):
            what = "text" if token[0] == '"' else "name"
            out.add("E01", f"a {what} of {len(token)} characters is too long", span)
            return False
        if token[0] in "([{":
            open_.append(1 + signs)
        elif token[0] in ")]}" and open_:
            open_.pop()
        signs = _COMMENT.sub("", token).count("-") - 1 if token[0] == "-" else 0
        if len(open_) > MAX_NESTING or sum(open_) + signs > MAX_NESTING:
            what = "brackets nest" if not signs else "signs nest"
            out.add("E01", f"{what} deeper than {MAX_NESTING}", span)
            return False
    return True


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


# -- parsing ---------------------------------------------------------------------------------------


_PAIR = {"(": ")", "[": "]", "{": "}"}
_BRACKETS = re.compile(r'"[^"\n]*"?|#[^\n]*|[(\[{]|[)\]}]')
_STATEMENT = re.compile(
    r"\s*(?:hardware|model|workload|phase|checkpoint|require|let|param|import|block|layer)\b(?!\s*=)"
)
"""What begins a statement at the top of a file."""
_HEAD = re.compile(r"\s*(hardware|model|workload|phase|checkpoint|attention|experts|mlp|rope|link|compute)\b(?!\s*=)")
"""What begins a section."""
_STAND_IN = "_"
"""Kind of the section whose opening line did not parse: two characters hold it and its brace."""


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _open_brackets(text: str, end: int, start: int = 0) -> list[int]:
    """Offsets of the brackets open at `end`; one closed by the wrong kind counts as open."""
    open_: list[int] = []
    for match in _BRACKETS.finditer(text, start, end):
        token = match.group()
        if token in _PAIR:
            open_.append(match.start())
        elif token in ")]}" and open_ and _PAIR[text[open_[-1]]] == token:
            open_.pop()
    return open_


def _match(text: str, at: int) -> int | None:
    """Offset of the bracket that closes the one at `at`; None when another kind or the end comes first."""
    open_: list[str] = []
    for match in _BRACKETS.finditer(text, at):
        token = match.group()
        if token in _PAIR:
            open_.append(_PAIR[token])
        elif token in ")]}":
            if open_.pop() != token:
                return None
            if not open_:
                return match.start()
    return None


@dataclass(slots=True)
class _Recovery:
    """Parse; at an error blank out its lines and parse again. Offsets never change, so spans stay right."""

    source: Source
    out: Collector
    text: str = field(init=False)
    blanked: set[int] = field(default_factory=set)
    quiet: set[int] = field(default_factory=set)  # lines whose error is the other half of a reported one
    surplus: int = 0  # closing braces that blanked lines left without a partner

    def __post_init__(self) -> None:
        self.text = self.source.text if self.source.text.endswith("\n") else self.source.text + "\n"

    def run(self) -> ast.File:
        from lark.exceptions import UnexpectedInput

        from . import lalr_tables as tables

        parser = tables.load()
        first = len(self.out.items)
        reread = 0
        with _collector_paused():
            for _ in range(8 * MAX_ERRORS):
                try:
                    tree = parser.parse(self.text)
                except UnexpectedInput as error:
                    if len(self.out.items) - first >= MAX_ERRORS or reread > MAX_REREAD:
                        break
                    reread += offset(error, self.text)
                    self._mend(error)
                else:
                    return self._without_stand_ins(Builder(self.source, self.out).file(tree))
        return ast.File(Span(self.source, 0, 0), ())

    def _without_stand_ins(self, file: ast.File) -> ast.File:
        return replace(file, statements=_kept(file.statements)) if self.blanked else file

    def _mend(self, error: Any) -> None:
        """Report one error, and make the text parse beyond it."""
        at = offset(error, self.text)
        token = getattr(error, "token", None)
        ended = token is not None and token.type == "$END"
        open_ = _open_brackets(self.text, len(self.text) if ended else at)
        if ended and open_:
            self._unclosed_at_end(open_)
        elif token is not None and token.value in (")", "]", "}") and not open_:
            self._closes_nothing(at)
        elif token is not None and token.value in (")", "]") and self.text[open_[-1]] == "{":
            self._closed_by_another(at, open_)
        elif open_ and self.text[open_[-1]] != "{" and self._inside_bracket(error, at, open_[-1]):
            pass
        else:
            self._blame_line(error, at)

    def _line(self, offset: int) -> int:
        return self.source.position(min(offset, len(self.source.text)))[0]

    def _unclosed_at_end(self, open_: list[int]) -> None:
        """One brace that is missing leaves the rest of the file inside: the section of the brace is given up, up to
        the statement that stands as far left as it does."""
        at = open_[-1]
        if self.text[at] != "{":
            self._never_closed(at)
            self._blank(self._line(at), self.source.line_count)
            return
        next_ = self._next_statement(open_[0])
        culprit = self._ends_further_left(open_[-1]) or open_[-1]
        self._never_closed(culprit, next_)
        if next_ is not None:
            self._write(self._line(open_[0]), self._line(next_) - 1)
        else:
            self.blanked.add(self._line(at))
            self.text += "}" * sum(self.text[i] == "{" for i in open_) + "\n"

    def _next_statement(self, brace: int) -> int | None:
        """Where the first line begins that stands as far left as that of the brace and begins a statement."""
        first = self._line(brace)
        indent = _indent(self.source.line(first))
        for number in range(first + 1, self.source.line_count + 1):
            line = self.source.line(number)
            if _indent(line) <= indent and _STATEMENT.match(line):
                return self._start(number) + _indent(line)
        return None

    def _ends_further_left(self, brace: int) -> int | None:
        """A brace inside, closed by one that stands further left than its own line: what closes it is missing."""
        open_: list[int] = []
        for match in _BRACKETS.finditer(self.text, brace + 1):
            if match.group() == "{":
                open_.append(match.start())
            elif match.group() == "}" and open_:
                opened = open_.pop()
                line = self.source.line(self._line(match.start()))
                alone = line.lstrip().startswith("}") and self._line(opened) < self._line(match.start())
                if alone and _indent(line) < _indent(self.source.line(self._line(opened))):
                    return opened
        return None

    def _never_closed(self, at: int, next_: int | None = None) -> None:
        also = []
        if next_ is not None and self._line(next_) > self._line(at):
            word = re.compile(r"\w+").match(self.source.text, next_)
            also = [Label(Span(self.source, next_, word.end() if word else next_ + 1), "probably before this")]
        self.out.add("E01", f"`{self.text[at]}` is never closed", Span(self.source, at, at + 1), also=also)

    def _closes_nothing(self, at: int) -> None:
        if self.surplus:
            self.surplus -= 1
        else:
            message = f"`{self.text[at]}` has no opening bracket"
            also = [Label(head, "its `{` is probably missing")] if (head := self._without_brace(at)) else []
            self.out.add("E01", message, Span(self.source, at, at + 1), "no bracket is open here", also=also)
        self.blanked.add(self._line(at))
        self.text = f"{self.text[:at]} {self.text[at + 1 :]}"

    def _without_brace(self, at: int) -> Span | None:
        """The nearest head of a section before a `}` that has no `{` on its line."""
        for number in range(self._line(at), 0, -1):
            line = self.source.line(number)
            if (head := _HEAD.match(line)) and "{" not in line:
                start = self._start(number)
                return Span(self.source, start + head.start(1), start + head.end(1))
        return None

    def _closed_by_another(self, at: int, open_: Sequence[int]) -> None:
        """A `)` where a `{` is open: it stands for the `}`, unless that follows."""
        found = self.text[at]
        also = (Label(Span(self.source, open_[-1], open_[-1] + 1), "opened here"),)
        self.out.add("E01", f"unexpected `{found}`", Span(self.source, at, at + 1), "expected `}`", also=also)
        self.blanked.add(self._line(at))
        missing = _open_brackets(self.text, len(self.text)) != []
        self.text = f"{self.text[:at]}{'}' if missing else ' '}{self.text[at + 1 :]}"

    def _opens_later(self, error: Any, at: int) -> bool:
        """The head of a section whose `{` is missing, or is another bracket: what would be inside is given up with it."""
        token = getattr(error, "token", None)
        if token is None or token.value not in ("\n", "[", "(") or "LBRACE" not in error.expected:
            return False
        line = self._line(at)
        if (
            re.fullmatch(
                r"\s*\w+(\s+(\w+|\"[^\"]*\"))?(\s+from\s+\"[^\"]*\")?\s*[\[(]?\s*(#.*)?", self.source.line(line)
            )
            is None
        ):
            return False
        closer = _match(self.text, at) if token.value != "\n" else None
        if closer is not None:
            self._write(line, self._line(closer))
            return True
        end = self.text.index("\n", at)
        depth = sum(self.text[i] == "{" for i in _open_brackets(self.text, at))
        for match in _BRACKETS.finditer(self.text, end):
            depth += {"{": 1, "}": -1}.get(match.group(), 0)
            if depth < 0:
                self._write(line, line, head=_STAND_IN + "{")
                return True
        return False

    def _inside_bracket(self, error: Any, at: int, bracket: int) -> bool:
        """An error between ( ) or [ ]: blame the bracket if nothing closes it. False: an error like any other."""
        first, here = self._line(bracket), self._line(at)
        closer = _match(self.text, bracket)
        if closer is not None:
            report(error, at, self.source, self.out)
            self._blank(first, self._line(closer))
            return True
        token = getattr(error, "token", None)
        if first == here and token is not None and token.value in (")", "]"):
            text = self.text[bracket]
            also = (Label(Span(self.source, bracket, bracket + 1), "opened here"),)
            span = Span(self.source, at, at + 1)
            self.out.add("E01", f"unexpected `{token.value}`", span, f"expected `{_PAIR[text]}`", also=also)
            self._blank(first, first)
            return True
        if first == here and (token is None or token.value not in ("}", "\n")):
            return False
        self._never_closed(bracket)
        self._blank(first, max(first, here - 1))
        return True

    def _blame_line(self, error: Any, at: int) -> None:
        line = self._line(at)
        if line in self.blanked:  # what was left of it does not fit either
            self._write(line, line)
            return
        if line not in self.quiet:
            report(error, at, self.source, self.out)
        below = self._brace_below(error, at)
        self.quiet |= below
        if not below and self._opens_later(error, at):
            return
        last = line
        head = re.match(r"\s*([A-Za-z_]+)", self.source.line(line))
        start = self.text.rfind("\n", 0, at) + 1
        if head and did_you_mean(head[1], ("block", "layer")):
            # Nothing inside a block reads as a plain section would.
            opened = _open_brackets(self.text, self.text.index("\n", start), start)
            closer = _match(self.text, opened[-1]) if opened else None
            last = line if closer is None else self._line(closer)
        self._blank(line, last)

    def _brace_below(self, error: Any, at: int) -> set[int]:
        """The line of a `{` that should have stood at the end of this one."""
        token = getattr(error, "token", None)
        if token is None or token.value != "\n" or "LBRACE" not in error.expected:
            return set()
        rest = self.text[at:]
        return {self._line(len(self.text) - len(rest.lstrip()))} if rest.lstrip().startswith("{") else set()

    def _blank(self, first: int, last: int) -> None:
        """Replace lines by blanks of the same length, keeping the balance of their braces."""
        bare = re.sub(r'"[^"\n]*"?|#[^\n]*', "", "\n".join(self.source.line(n) for n in range(first, last + 1)))
        balance = bare.count("{") - bare.count("}")
        if balance > 0:
            self.surplus += balance - 1  # one, whatever was typed: `{{` is the likelier slip
            self._write(first, last, head=_STAND_IN + "{")
        else:
            before = _open_brackets(self.text, self._start(first)) if balance else []
            partners = sum(self.text[i] == "{" for i in before)
            self._write(first, last, tail="}" * min(-balance, partners))

    def _start(self, line: int) -> int:
        return sum(len(self.source.line(n)) + 1 for n in range(1, line))

    def _write(self, first: int, last: int, head: str = "", tail: str = "") -> None:
        """Put blanks in place of lines, `head` at the start of the first (a lone `{` borrows the newline after
        it) and `tail` at that of the last."""
        self.blanked.update(range(first, last + 1))
        start = self._start(first)
        lines = [" " * len(self.source.line(n)) + "\n" for n in range(first, last + 1)]
        lines[-1] = tail + lines[-1][len(tail) :]
        new = "".join(lines)
        self.text = self.text[:start] + head + new[len(head) :] + self.text[start + len(new) :]


def _kept(statements: tuple[ast.Statement, ...]) -> tuple[ast.Statement, ...]:
    """Without the sections that stand for lines which did not parse."""
    kept = (s for s in statements if not (isinstance(s, ast.Section) and s.kind == _STAND_IN))
    return tuple(replace(s, body=_kept(s.body)) if isinstance(s, ast.Section) else s for s in kept)


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
