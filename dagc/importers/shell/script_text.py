"""The text of a shell script as its commands: what `sh` and `bash` scripts that start servers are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .syntax import (
    Arithmetic,
    Assignment,
    Case,
    Chain,
    Command,
    Commands,
    Count,
    For,
    Function,
    Group,
    If,
    Output,
    Part,
    Pipe,
    Redirect,
    Simple,
    Sum,
    Test,
    Text,
    Variable,
    While,
    Word,
)

MAX_DEPTH = 60
"""Of commands and expansions in others."""
MAX_PARTS = 100_000
"""Words and commands of a script."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SPECIAL = re.compile(r"[0-9@*#?$!-]")
ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?=)")
INDEXED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\[")
REDIRECTED = re.compile(r"(?:\d{0,3}|\{[A-Za-z_]\w*\})(&>>|&>|<<<|<<-|<<|>>|>\||>&|<&|<>|<|>)")
OPERATION = re.compile(r":[-=+?]|//?|##?|%%?|\^\^?|,,?|[-=+?:@]")
ENDS = frozenset(" \t\n;&|()<>")
KEYWORDS = frozenset(
    [
        "if",
        "then",
        "elif",
        "else",
        "fi",
        "for",
        "while",
        "until",
        "do",
        "done",
        "case",
        "esac",
        "function",
        "select",
        "{",
        "}",
        "!",
        "[[",
        "in",
    ]
)
ESCAPED = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"', "r": "\r", "a": "\a", "e": "\x1b"}


class ShellError(Exception):
    """The text is no script that is read. `at`: where."""

    def __init__(self, why: str, at: int) -> None:
        super().__init__(why)
        self.why, self.at = why, at


@contextmanager
def _moved(start: int) -> Iterator[None]:
    """Faults of a text that begins here in the script."""
    try:
        yield
    except ShellError as error:
        raise ShellError(error.why, start + error.at) from None


def parse_script(text: str) -> Commands:
    """Raises ShellError."""
    reader = _Parser(text)
    body = reader.commands(())
    if reader.at < len(text):
        raise ShellError(f"`{text[reader.at]}` closes nothing", reader.at)
    return body


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
class _Parser:
    text: str
    at: int = 0
    depth: int = 0
    parts: int = 0
    resume: tuple[int, int] = (-1, 0)
    """The end of the line that has here-documents, and the end of what they have."""

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
        inner = _Parser(whole, depth=self.depth, parts=self.parts)
        with _moved(start):
            parts = inner.inside('"', here=True)
        self.parts = inner.parts
        return Word(parts, start, at)

    def keyword(self) -> str:
        """The reserved word that is next, or nothing."""
        stop = self.at
        while stop < len(self.text) and self.text[stop] not in ENDS and stop - self.at < 9:
            stop += 1
        word = self.text[self.at : stop]
        return word if word in KEYWORDS else ""

    def expect(self, word: str) -> None:
        self.lines()
        if not self.looking(word):
            found = self.text[self.at : self.at + 12].split("\n")[0]
            raise ShellError(f"`{word}` is missing{f' before `{found}`' if found else ''}", self.at)
        self.at += len(word)

    # Commands

    def commands(self, ends: tuple[str, ...]) -> Commands:
        """Up to one of the words, or to a closing bracket, which are left."""
        self.deeper()
        chains = []
        while True:
            self.lines()
            if self.at >= len(self.text) or self.text[self.at] == ")" or self.looking(";;"):
                break
            word = self.keyword()
            if word in ends or word == "}":
                break
            if self.looking(";") or self.looking("&"):
                raise ShellError(f"nothing is before `{self.text[self.at]}`", self.at)
            chains.append(self.chain())
            self.blanks()
            if self.looking(";;"):
                break
            if self.looking(";") or self.looking("&"):
                if self.looking("&"):
                    chains[-1] = Chain(chains[-1].pipes, True)
                self.at += 1
            elif self.at < len(self.text) and self.text[self.at] not in "\n)":
                raise ShellError(f"`{self.text[self.at]}` follows a command", self.at)
        self.depth -= 1
        return tuple(chains)

    def chain(self) -> Chain:
        pipes = [("", self.pipe())]
        while True:
            self.blanks()
            op = next((op for op in ("&&", "||") if self.looking(op)), "")
            if not op:
                return Chain(tuple(pipes))
            self.at += 2
            self.lines()
            pipes.append((op, self.pipe()))

    def pipe(self) -> Pipe:
        negated = False
        while self.keyword() == "!":
            self.at += 1
            negated = not negated
            self.blanks()
        commands = [self.command()]
        while True:
            self.blanks()
            if not self.looking("|") or self.looking("||"):
                return Pipe(tuple(commands), negated)
            self.at += 2 if self.looking("|&") else 1
            self.lines()
            commands.append(self.command())

    def command(self) -> Command:
        self.counted()
        word = self.keyword()
        if self.looking("(("):
            self.at += 2
            return Arithmetic(self.sum())
        made: Command
        if self.looking("("):
            self.at += 1
            body = self.commands(())
            self.expect(")")
            return Group(body, True, self.redirects())
        if word == "{":
            self.at += 1
            body = self.commands(())
            self.expect("}")
            return Group(body, False, self.redirects())
        if word == "[[":
            return self.test()
        if word in ("if", "for", "select", "while", "until", "case"):
            self.at += len(word)
            if word == "if":
                made = self.choice()
            elif word == "case":
                made = self.case()
            else:
                made = self.loop() if word in ("for", "select") else self.again(word == "until")
            redirects = self.redirects()
            return Group((Chain((("", Pipe((made,), False)),)),), False, redirects) if redirects else made
        if word == "function":
            self.at += len(word)
            self.blanks()
            start = self.at
            name = self.word().literal or ""
            self.blanks()
            if self.looking("("):
                self.at += 1
                self.expect(")")
            self.lines()
            made = self.command()
            return Function(name, made, f"function {self.text[start : self.at]}")
        if word and word not in ("in", "!"):
            raise ShellError(f"`{word}` is out of place", self.at)
        return self.simple()

    def choice(self) -> If:
        arms: list[tuple[Commands | None, Commands]] = []
        while True:
            condition = self.commands(("then",))
            self.expect("then")
            arms.append((condition, self.commands(("elif", "else", "fi"))))
            word = self.keyword()
            if word == "elif":
                self.at += 4
                continue
            if word == "else":
                self.at += 4
                arms.append((None, self.commands(("fi",))))
            self.expect("fi")
            return If(tuple(arms))

    def again(self, until: bool) -> While:
        condition = self.commands(("do",))
        return While(condition, self.done(), until)

    def done(self) -> Commands:
        self.expect("do")
        body = self.commands(("done",))
        self.expect("done")
        return body

    def loop(self) -> For | Count:
        self.blanks()
        if self.looking("(("):
            self.at += 2
            first, holds, then = self.sum(";"), self.sum(";"), self.sum()
            self.separated()
            return Count(first, holds, then, self.done())
        name = NAME.match(self.text, self.at)
        if name is None:
            raise ShellError("`for` has no name", self.at)
        self.at = name.end()
        self.lines()
        words = None
        if self.keyword() == "in":
            self.at += 2
            words = self.words()
        self.separated()
        return For(name[0], words, self.done())

    def separated(self) -> None:
        self.blanks()
        if self.looking(";"):
            self.at += 1

    def words(self) -> tuple[Word, ...]:
        found: list[Word] = []
        while True:
            self.blanks()
            if self.at >= len(self.text) or self.text[self.at] in "\n;&|)":
                return tuple(found)
            found.append(self.word())

    def case(self) -> Case:
        self.blanks()
        word = self.word()
        self.expect("in")
        arms: list[tuple[tuple[Word, ...], Commands]] = []
        while True:
            self.lines()
            if self.keyword() == "esac":
                self.at += 4
                return Case(word, tuple(arms))
            if self.looking("("):
                self.at += 1
            patterns = []
            while True:
                self.blanks()
                patterns.append(self.word())
                self.blanks()
                if not self.looking("|"):
                    break
                self.at += 1
            self.expect(")")
            body = self.commands(("esac",))
            self.lines()
            for end in (";;&", ";;", ";&"):
                if self.looking(end):
                    self.at += len(end)
                    break
            arms.append((tuple(patterns), body))

    def test(self) -> Test:
        start = self.at
        self.at += 2
        tokens: list[Word | str] = []
        while True:
            self.lines()
            if self.at >= len(self.text):
                raise ShellError("`[[` has no `]]`", start)
            if self.looking("]]"):
                self.at += 2
                return Test(tuple(tokens))
            op = next((op for op in ("&&", "||", "(", ")", "<", ">") if self.looking(op)), None)
            if op is not None:
                self.at += len(op)
                tokens.append(op)
                continue
            word = self.word(parentheses=bool(tokens) and tokens[-1] == "=~")
            tokens.append(word.literal if word.literal in ("!", "=~", "==", "=", "!=") else word)

    def simple(self) -> Command:
        start = self.at
        assignments: list[Assignment] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        end = start
        while True:
            self.blanks()
            if self.redirect(redirects):
                end = self.at
                continue
            if self.at >= len(self.text) or self.text[self.at] in "\n;&|)":
                break
            if self.text[self.at] == "(":
                if len(words) == 1 and not assignments and words[0].literal:
                    self.at += 1
                    self.expect(")")
                    self.lines()
                    body = self.command()
                    return Function(words[0].literal, body, self.text[start : self.at])
                raise ShellError("`(` follows a word", self.at)
            declares = bool(words) and words[0].literal in DECLARES
            assigned = self.assignment() if not words or declares else None
            if assigned is None:
                words.append(self.word())
            else:
                assignments.append(assigned)
            end = self.at
        if not words and not assignments and not redirects:
            raise ShellError("a command is missing", self.at)
        return Simple(tuple(assignments), tuple(words), tuple(redirects), start, end)

    def assignment(self) -> Assignment | None:
        found = ASSIGNED.match(self.text, self.at)
        index = None
        if found is None:
            indexed = INDEXED.match(self.text, self.at)
            close = self.text.find("]", self.at, self.at + 200)
            sign = next((s for s in ("+=", "=") if indexed and close > 0 and self.text.startswith(s, close + 1)), "")
            if indexed is None or not sign:
                return None
            self.at = indexed.end()
            index = self.until("]")
            self.at += len(sign)
            name = indexed[1]
        else:
            self.at = found.end()
            name, sign = found[1], found[2]
        if self.looking("(") and index is None:
            self.at += 1
            values: list[Word] = []
            while True:
                self.lines()
                if self.looking(")"):
                    self.at += 1
                    return Assignment(name, tuple(values), None, sign == "+=")
                if self.at >= len(self.text):
                    raise ShellError("a list has no `)`", self.at)
                values.append(self.word())
        empty = self.at >= len(self.text) or self.text[self.at] in ENDS
        value = Word((), self.at, self.at) if empty else self.word()
        return Assignment(name, value, index, sign == "+=")

    def redirects(self) -> tuple[Redirect, ...]:
        found: list[Redirect] = []
        while True:
            self.blanks()
            if not self.redirect(found):
                return tuple(found)

    def redirect(self, into: list[Redirect]) -> bool:
        found = REDIRECTED.match(self.text, self.at)
        if found is None or (self.text[found.end() : found.end() + 1] == "(" and found[1] in "<>"):
            return False
        self.at = found.end()
        self.blanks()
        op = found[1]
        if op in ("<<", "<<-"):
            start = self.at
            end = self.word()
            quoted = any(c in self.text[start : self.at] for c in "'\"\\")
            plain = "".join(p.text for p in end.parts if isinstance(p, Text))
            into.append(Redirect("<<", self.document(plain, quoted, op == "<<-")))
        else:
            into.append(Redirect(op, self.word()))
        return True

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
            found = f"`{self.text[start]}` is out of place" if start < len(self.text) else "a word is missing"
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
            inner = _Parser(text, depth=self.depth, parts=self.parts)
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


DECLARES = frozenset(("export", "declare", "local", "readonly", "typeset"))
"""Commands whose arguments are assignments."""
