"""Parsing beyond errors: each is reported, and the part that contains it is removed so that the rest can be read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..diagnostics import Collector, Label, did_you_mean
from ..frozen import field, mutable, replace
from ..source import Source, Span
from . import ast
from .build import Builder
from .clean import collector_paused, ended
from .errors import offset, report

MAX_ERRORS = 20
MAX_REREAD = 2_000_000
"""Characters read again to find further errors: a huge file shows its first few at once, not all after minutes."""

_PAIR = {"(": ")", "[": "]", "{": "}"}
_BRACKETS = re.compile(r'"[^"\n]*"?|#[^\n]*|[(\[{]|[)\]}]')
_STATEMENT = re.compile(
    r"\s*(?:hardware|model|workload|phase|checkpoint|require|let|param|import|block|layer)\b(?!\s*=)"
)
"""What begins a statement at the top of a file."""
_HEAD = re.compile(r"\s*(hardware|model|workload|phase|checkpoint|attention|experts|mlp|rope|link|compute)\b(?!\s*=)")
"""What begins a section."""
_STAND_IN = "_"
"""Kind of the section whose opening line did not parse: two characters represent it and its brace."""


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


@mutable
class Recovery:
    """Parse; at an error blank out its lines and parse again. Offsets never change, so spans stay right."""

    source: Source
    out: Collector
    text: str = field(init=False)
    blanked: set[int] = field(default_factory=set)
    quiet: set[int] = field(default_factory=set)  # lines whose error is the other half of a reported one
    surplus: int = 0  # closing braces that blanked lines left without a partner

    def __post_init__(self) -> None:
        self.text = ended(self.source.text)

    def run(self) -> ast.File:
        from lark.exceptions import UnexpectedInput

        from . import lalr_tables as tables

        parser = tables.load()
        first = len(self.out.items)
        reread = 0
        with collector_paused():
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
        the statement that is indented as far as it is."""
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
        """Where the first line begins that is indented like that of the brace and begins a statement."""
        first = self._line(brace)
        indent = _indent(self.source.line(first))
        for number in range(first + 1, self.source.line_count + 1):
            line = self.source.line(number)
            if _indent(line) <= indent and _STATEMENT.match(line):
                return self._start(number) + _indent(line)
        return None

    def _ends_further_left(self, brace: int) -> int | None:
        """A brace inside, closed by one that is further left than its own line: what closes it is missing."""
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
        """A `)` where a `{` is open: it is taken as the `}`, unless that follows."""
        closing = self.text[at]
        also = (Label(Span(self.source, open_[-1], open_[-1] + 1), "opened here"),)
        self.out.add("E01", f"unexpected `{closing}`", Span(self.source, at, at + 1), "expected `}`", also=also)
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
        """The line of a `{` that should have been at the end of this one."""
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
    """Without the sections that replace lines which did not parse."""
    kept = (s for s in statements if not (isinstance(s, ast.Section) and s.kind == _STAND_IN))
    return tuple(replace(s, body=_kept(s.body)) if isinstance(s, ast.Section) else s for s in kept)
