"""Words of a shell script: letters, quotations, expansions, here-documents."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .shell_fault import ShellError
from .syntax import Commands, Output, Part, Sum, Text, Variable, Word

MAX_DEPTH = 60
"""Of commands and expansions in others."""
MAX_PARTS = 100_000
"""Words and commands of a script."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SPECIAL = re.compile(r"[0-9@*#?$!-]")
OPERATION = re.compile(r":[-=+?]|//?|##?|%%?|\^\^?|,,?|[-=+?:@]")
ENDS = frozenset(" \t\n;&|()<>")
ESCAPED = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"', "r": "\r", "a": "\a", "e": "\x1b"}


@contextmanager
def _moved(start: int) -> Iterator[None]:
    """Faults of a text that begins here in the script."""
    try:
        yield
    except ShellError as error:
        raise ShellError(error.why, start + error.at) from None


@dataclass(slots=True)
class _Parts:
    """Parts of a word; letters that follow each other are one."""

    made: list[Part] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)
    quoted: bool = False

    def text(self, letters: str, quoted: bool) -> None:
        if quoted != self.quoted:
            self.flush()
            self.quoted = quoted
        self.letters.append(letters)

    def add(self, *parts: Part) -> None:
        for part in parts:
            if isinstance(part, Text):
                self.text(part.text, part.quoted)
            else:
                self.flush()
                self.made.append(part)

    def flush(self) -> None:
        if self.letters:
            self.made.append(Text("".join(self.letters), self.quoted))
            self.letters.clear()

    def all(self) -> tuple[Part, ...]:
        self.flush()
        return tuple(self.made)


@dataclass(slots=True)
class WordReader(ABC):
    """Reads words from `at` on, which commands in them are read for by who reads commands."""

    text: str
    at: int = 0
    depth: int = 0
    parts: int = 0
    resume: tuple[int, int] = (-1, 0)
    """The end of the line that has here-documents, and the end of what they have."""

    @abstractmethod
    def commands(self, ends: tuple[str, ...]) -> Commands:
        """Up to one of the words, or to a closing bracket, which are left."""

    # Letters

    def looking(self, what: str) -> bool:
        return self.text.startswith(what, self.at)

    def counted(self) -> None:
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise ShellError(f"the script has more than {MAX_PARTS:,} words", self.at)

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ShellError(f"the script is nested more than {MAX_DEPTH} deep", self.at)

    def blanks(self) -> None:
        while True:
            if self.at < len(self.text) and self.text[self.at] in " \t\r":
                self.at += 1
            elif self.looking("\\\n"):
                self.at += 2
            elif self.looking("\\\r\n"):
                self.at += 3
            elif self.looking("#") and (self.at == 0 or self.text[self.at - 1] in " \t\n\r;&|("):
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return

    def lines(self) -> None:
        """Blanks, ends of lines, and the here-documents behind them."""
        while True:
            self.blanks()
            if not self.looking("\n"):
                return
            self.at = self.resume[1] if self.at == self.resume[0] else self.at + 1

    def document(self, end: str, quoted: bool, tabs: bool) -> Word:
        """The text of a here-document, which follows the line that is being read."""
        stop = self.text.find("\n", self.at)
        stop = len(self.text) if stop < 0 else stop
        at = start = self.resume[1] if stop == self.resume[0] else stop + 1
        lines = []
        while True:
            if at >= len(self.text):
                raise ShellError(f"the text up to `{end}` has no end", self.at)
            close = self.text.find("\n", at)
            close = len(self.text) if close < 0 else close
            line = self.text[at:close].lstrip("\t" if tabs else "")
            at = min(close + 1, len(self.text))
            if line.rstrip("\r") == end:
                break
            lines.append(line + "\n")
        self.resume = (stop, at)
        whole = "".join(lines)
        if quoted:
            return Word((Text(whole, True),), start, at)
        inner = type(self)(whole, depth=self.depth, parts=self.parts)
        with _moved(start):
            parts = inner.inside('"', here=True)
        self.parts = inner.parts
        return Word(parts, start, at)

    def expect(self, word: str) -> None:
        self.lines()
        if not self.looking(word):
            found = self.text[self.at : self.at + 12].split("\n")[0]
            raise ShellError(f"`{word}` is missing{f' before `{found}`' if found else ''}", self.at)
        self.at += len(word)

    # Words

    def word(self, *, parentheses: bool = False) -> Word:
        self.counted()
        start = self.at
        parts = _Parts()
        while self.at < len(self.text):
            c = self.text[self.at]
            if c in "<>" and self.text[self.at + 1 : self.at + 2] == "(" and self.at == start:
                self.at += 1
                parts.add(self.output(self.at - 1, False))
            elif c in ENDS and not (parentheses and c in "()|"):
                break
            elif c == "\r" and self.text[self.at + 1 : self.at + 2] in ("\n", ""):
                self.at += 1
            elif self.looking("\\\n"):
                self.at += 2
            elif not self.quotation(parts):
                parts.text(c, False)
                self.at += 1
        if self.at == start:
            ends = self.text[start : start + 1] in ("", "\r", "\n")
            found = "a word is missing" if ends else f"`{self.text[start]}` is out of place"
            raise ShellError(found, start)
        return Word(parts.all(), start, self.at)

    def quotation(self, into: _Parts) -> bool:
        """A quotation or an expansion, if one is next."""
        c = self.text[self.at]
        if c == "\\":
            into.text(self.text[self.at + 1 : self.at + 2], True)
            self.at = min(self.at + 2, len(self.text))
        elif c == "'":
            into.add(self.single())
        elif c == '"' or self.looking('$"'):
            self.at += 1 + (c == "$")
            into.add(*(self.inside('"') or (Text("", True),)))
        elif self.looking("$'"):
            into.add(self.escaped())
        elif c in "$`":
            into.add(self.expansion(False))
        else:
            return False
        return True

    def single(self) -> Text:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise ShellError("a quote has no end", self.at)
        found = Text(self.text[self.at + 1 : end], True)
        self.at = end + 1
        return found

    def escaped(self) -> Text:
        start = self.at
        self.at += 2
        out: list[str] = []
        while self.at < len(self.text):
            c = self.text[self.at]
            if c == "'":
                self.at += 1
                return Text("".join(out), True)
            if c == "\\" and self.at + 1 < len(self.text):
                following = self.text[self.at + 1]
                out.append(ESCAPED.get(following, "\\" + following))
                self.at += 2
                continue
            out.append(c)
            self.at += 1
        raise ShellError("a quote has no end", start)

    def inside(self, end: str, *, here: bool = False) -> tuple[Part, ...]:
        """Up to the closing quote; of a here-document, to its end."""
        start = self.at
        parts = _Parts()
        while self.at < len(self.text) or not here:
            if self.at >= len(self.text):
                raise ShellError("a quote has no end", start - 1)
            c = self.text[self.at]
            if c == end and not here:
                self.at += 1
                break
            if c == "\\" and self.at + 1 < len(self.text):
                following = self.text[self.at + 1]
                if following in "$`\\" or (following == '"' and not here):
                    parts.text(following, True)
                elif following != "\n":
                    parts.text("\\" + following, True)
                self.at += 2
            elif c in "$`":
                parts.add(self.expansion(True))
            else:
                parts.text(c, True)
                self.at += 1
        return parts.all()

    def expansion(self, quoted: bool) -> Part:
        self.counted()
        self.deeper()
        try:
            return self._expansion(quoted)
        finally:
            self.depth -= 1

    def _expansion(self, quoted: bool) -> Part:
        start = self.at
        if self.looking("`"):
            end = self.at + 1
            while end < len(self.text) and self.text[end] != "`":
                end += 2 if self.text[end] == "\\" else 1
            if end >= len(self.text):
                raise ShellError("a quote has no end", start)
            text = re.sub(r"\\([\\`$])", r"\1", self.text[start + 1 : end])
            self.at = end + 1
            inner = type(self)(text, depth=self.depth, parts=self.parts)
            with _moved(start + 1):
                body = inner.commands(())
            self.parts = inner.parts
            return Output(body, f"$({text})", quoted)
        self.at += 1
        if self.looking("(("):
            self.at += 2
            return Sum(self.sum(), quoted)
        if self.looking("("):
            return self.output(start, quoted)
        if self.looking("{"):
            self.at += 1
            return self.braced(start, quoted)
        name = NAME.match(self.text, self.at) or SPECIAL.match(self.text, self.at)
        if name is None:
            return Text("$", quoted)
        self.at = name.end()
        return Variable(name[0], quoted)

    def output(self, start: int, quoted: bool) -> Output:
        self.at += 1
        body = self.commands(())
        self.expect(")")
        return Output(body, self.text[start : self.at], quoted)

    def braced(self, start: int, quoted: bool) -> Variable:
        count = self.looking("#") and not self.looking("#}")
        of = self.looking("!")
        self.at += count or of
        name = NAME.match(self.text, self.at) or re.compile(r"\d+|[@*#?$!-]").match(self.text, self.at)
        if name is None:
            raise ShellError("`${` has no name", start)
        self.at = name.end()
        index = None
        if self.looking("["):
            self.at += 1
            index = self.until("]")
        op, word = "", None
        if not self.looking("}"):
            found = OPERATION.match(self.text, self.at)
            if found is None:
                raise ShellError(f"`${{{name[0]}` has no `}}`", start)
            op = found[0]
            self.at = found.end()
            word = self.until("}", back=True, ticks=quoted and op.lstrip(":") in ("-", "=", "+", "?"))
        if not self.looking("}"):
            raise ShellError(f"`${{{name[0]}` has no `}}`", start)
        self.at += 1
        return Variable(name[0], quoted, op, word, index, count, of)

    def until(self, end: str, *, back: bool = False, ticks: bool = False) -> Word:
        """A word, blanks included, up to the bracket, those of square ones in it included. `back`: which is left; `ticks`: `'` is a
        letter, as between double quotes."""
        start, depth = self.at, 0
        parts = _Parts()
        while True:
            if self.at >= len(self.text):
                raise ShellError(f"`{end}` is missing", start)
            c = self.text[self.at]
            if c == end and not depth:
                self.at += not back
                return Word(parts.all(), start, self.at)
            if (ticks and c == "'") or not self.quotation(parts):
                depth += ((c == "[") - (c == "]")) * (end == "]")
                parts.text(c, False)
                self.at += 1

    def sum(self, end: str = "))") -> Word:
        """Of `((`: its text, with the expansions in it."""
        start, depth = self.at, 0
        parts = _Parts()
        while True:
            if self.at >= len(self.text):
                raise ShellError("`((` has no end", start)
            if not depth and self.looking(end):
                self.at += len(end)
                return Word(parts.all(), start, self.at)
            c = self.text[self.at]
            if c in "$`" and self.text[self.at + 1 : self.at + 2] not in ("", " "):
                parts.add(self.expansion(True))
                continue
            depth += (c == "(") - (c == ")")
            if depth < 0:
                raise ShellError("`((` has no end", start)
            if c not in "\"'":
                parts.text(c, True)
            self.at += 1
