"""The text of a shell script as its commands: what `sh` and `bash` scripts that start servers are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .script_words import ENDS, NAME, WordReader
from .shell_fault import ShellError
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
    Pipe,
    Redirect,
    Simple,
    Test,
    Text,
    While,
    Word,
)

ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?=)")
INDEXED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\[")
REDIRECTED = re.compile(r"(?:\d{0,3}|\{[A-Za-z_]\w*\})(&>>|&>|<<<|<<-|<<|>>|>\||>&|<&|<>|<|>)")
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
DECLARES = frozenset(("export", "declare", "local", "readonly", "typeset"))
"""Commands whose arguments are assignments."""


def parse_script(text: str) -> Commands:
    """Raises ShellError."""
    reader = _Parser(text)
    body = reader.commands(())
    if reader.at < len(text):
        raise ShellError(f"`{text[reader.at]}` closes nothing", reader.at)
    return body


@dataclass(slots=True)
class _Parser(WordReader):
    def keyword(self) -> str:
        """The reserved word that is next, or nothing."""
        stop = self.at
        while stop < len(self.text) and self.text[stop] not in ENDS and stop - self.at < 9:
            stop += 1
        word = self.text[self.at : stop]
        return word if word in KEYWORDS else ""

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
