"""A shell that follows a script: its variables, functions and files, and the programs that it starts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from ...base.frozen import record, replace
from .conditions import Truth, compared
from .expansions import Expansion
from .shell_fault import ShellError
from .sums import NoSum, value_of
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
    Variable,
    While,
    Word,
)
from .unknown import is_known, named, shown, split_marks

MAX_STEPS = 60_000
"""Commands that are followed, of a script and of all scripts that it starts."""
MAX_COMMANDS = 5_000
"""Programs that are started."""
MAX_LETTERS = 20_000_000
"""Of all values and files that are made: doubling a variable fifty times needs few steps."""
MAX_CALLS = 20
"""Functions in functions."""


@record
class Started:
    """A program that the script starts. `argv` and `environment` (what the script exports and what the command is given before it) have what is
    unknown as it is written; `unknown`: names of that. `maybe`: in an arm of a branch that only the run decides. `within`: functions around. `start`, `end`: in the
    script."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    unknown: tuple[str, ...]
    maybe: bool
    within: tuple[str, ...]
    start: int
    end: int


@dataclass(slots=True)
class Spent:
    """Of the bounds above."""

    steps: int = 0
    commands: int = 0
    letters: int = 0


class Leave(Exception):
    """`exit`, `return`, `break` or `continue`. `failing`: as a failure."""

    def __init__(self, what: str, failing: bool = False) -> None:
        super().__init__(what)
        self.what, self.failing = what, failing


@dataclass(slots=True)
class Shell:
    """What a script has at one moment of it. `builtins`: commands that start no program."""

    builtins: Mapping[str, Builtin]
    variables: dict[str, str]
    arrays: dict[str, list[str]] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    open: set[str] = field(default_factory=set)  # arrays whose length is not known
    exported: set[str] = field(default_factory=set)
    functions: dict[str, Function] = field(default_factory=dict)
    skipped: bool = False  # the function has gone past `||` because a program is taken to succeed
    maybe: int = 0  # arms around, of branches that only the run decides
    files: dict[str, str] = field(default_factory=dict)
    started: list[Started] = field(default_factory=list)
    unset: list[str] = field(default_factory=list)
    branched: bool = False
    spent: Spent = field(default_factory=Spent)
    within: list[str] = field(default_factory=list)  # functions that are being called
    calls: int = 0
    quiet: int = 0  # inside of a substitution: what it starts is no server
    said: list[str] = field(default_factory=list)  # what the commands of a substitution print
    doubtful: bool = False  # some of that in an arm that only the run decides

    # Words

    def expansion(self) -> Expansion:
        return Expansion(self.variables, self.arrays, self.arguments, self.output, self.unset, self.spend, self.open)

    def spend(self, letters: int, at: int = 0) -> None:
        self.spent.letters += letters
        if self.spent.letters > MAX_LETTERS:
            raise ShellError(f"the script makes more than {MAX_LETTERS:,} letters", at)

    def word(self, word: Word) -> str:
        return self.expansion().joined(word)

    def words(self, words: Iterable[Word]) -> list[str]:
        expansion = self.expansion()
        return [one for word in words for one in expansion.split(word)]

    def output(self, body: Commands, text: str) -> str | None:
        """What commands print; None where they start a program, or only the run decides whether they print it."""
        saved = (self.said, self.variables, self.arrays, len(self.started))
        sure = (self.maybe, self.doubtful)
        self.said, self.variables, self.arrays = [], dict(self.variables), dict(self.arrays)
        self.maybe, self.doubtful = 0, False
        self.quiet += 1
        if self.quiet > MAX_CALLS:
            raise ShellError(f"commands are nested more than {MAX_CALLS} deep", 0)
        with suppress(Leave):
            self.all(body)
        self.quiet -= 1
        said = "".join(self.said)
        known = len(self.started) == saved[3] and not self.doubtful
        self.maybe, self.doubtful = sure
        del self.started[saved[3] :]
        self.said, self.variables, self.arrays = saved[0], saved[1], saved[2]
        return said.rstrip("\n") if known else None

    # Commands

    def all(self, commands: Commands) -> Truth:
        truth = Truth(True, True)
        for chain in commands:
            truth = self.own(partial(self.chain, chain)) if chain.beside else self.chain(chain)
        return truth

    def own(self, run: Callable[[], Truth]) -> Truth:
        """In a shell of its own: it leaves no variables behind, and only itself."""
        saved = self.variables, self.arrays, self.exported, self.arguments
        self.variables, self.arrays, self.exported = dict(saved[0]), dict(saved[1]), set(saved[2])
        self.arguments = list(saved[3])
        try:
            return run()
        except Leave:
            return Truth(True, False)
        finally:
            self.variables, self.arrays, self.exported, self.arguments = saved

    def chain(self, chain: Chain) -> Truth:
        truth = Truth(True, True)
        for op, pipe in chain.pipes:
            if (op == "&&" and truth.holds is False) or (op == "||" and truth.holds is True):
                self.skipped = self.skipped or (op == "||" and not truth.decided)
                continue
            if op and truth.holds is None:
                other = self.apart(pipe)
                truth = other if other.holds is None else Truth(None, False)
                continue
            truth = self.pipe(pipe)
        return truth

    def apart(self, pipe: Pipe) -> Truth:
        """Something that may not come about: if it leaves, what follows is reached all the same. A `break` is taken: it is what a loop
        waits for."""
        self.branched = True
        self.maybe += 1
        try:
            return self.pipe(pipe)
        except Leave as left:
            if left.what == "break":
                raise
            return Truth(None, False)
        finally:
            self.maybe -= 1

    def pipe(self, pipe: Pipe) -> Truth:
        truth = Truth(True, True)
        if len(pipe.commands) == 1:
            truth = self.command(pipe.commands[0])
        else:
            before = len(self.started)
            said, self.said = self.said, []
            for command in pipe.commands:
                printed, self.said = self.said, []
                truth = self.piped(command, "".join(printed))
            last, self.said = self.said, said
            if len(self.started) == before:
                self.said += last
        return Truth(None if truth.holds is None else not truth.holds, truth.decided) if pipe.negated else truth

    def piped(self, command: Command, given: str) -> Truth:
        """One whose input is what another printed."""
        if isinstance(command, Simple) and given:
            words = self.words(command.words)
            if words[:1] == ["tee"] or (words[:1] == ["cat"] and len(words) == 1):
                self.store([one for one in words[1:] if not one.startswith("-")], given)
                self.redirected(command.redirects, given)
                return Truth(True, True)
        try:
            return self.command(command)
        except Leave:
            return Truth(True, False)

    def command(self, command: Command) -> Truth:
        self.spent.steps += 1
        if self.spent.steps > MAX_STEPS:
            raise ShellError(f"following the script takes more than {MAX_STEPS:,} steps", 0)
        if isinstance(command, Simple):
            return self.simple(command)
        if isinstance(command, Group):
            return self.group(command)
        if isinstance(command, For):
            return self.loop(command)
        if isinstance(command, Count):
            return self.count(command)
        if isinstance(command, While):
            return self.again(command)
        if isinstance(command, If):
            return self.choice(command)
        if isinstance(command, Case):
            return self.case(command)
        if isinstance(command, Function):
            self.functions[command.name] = command
            return Truth(True, True)
        if isinstance(command, Test):
            return compared(command.tokens, self.expansion())
        return self.arithmetic(command)

    def arithmetic(self, command: Arithmetic) -> Truth:
        value = self.sum(command.word)
        return Truth(None if value is None else bool(value), value is not None)

    def sum(self, word: Word) -> int | None:
        text = self.word(word)
        try:
            return value_of(text, self.variables, self.arrays) if is_known(text) else None
        except NoSum:
            return None

    def group(self, group: Group) -> Truth:
        said = len(self.said)
        truth = self.own(lambda: self.all(group.body)) if group.apart else self.all(group.body)
        if any(redirect.op in (">", ">>", ">|") for redirect in group.redirects):
            printed = "".join(self.said[said:])
            del self.said[said:]
            self.redirected(group.redirects, printed)
        return truth

    def loop(self, loop: For) -> Truth:
        words = self.arguments[1:] if loop.words is None else self.words(loop.words)
        for word in words:
            self.variables[loop.name] = word
            if self.round(loop.body):
                break
        return Truth(True, True)

    def count(self, loop: Count) -> Truth:
        self.sum(loop.first)
        while True:
            self.spent.steps += 1
            holds = self.sum(loop.holds)
            if holds is None:
                self.round(loop.body)  # how often is not known: once
                break
            if not holds or self.round(loop.body):
                break
            if self.sum(loop.then) is None:
                break
        return Truth(True, True)

    def again(self, loop: While) -> Truth:
        while True:
            truth = self.all(loop.condition)
            holds = truth.holds if not loop.until or truth.holds is None else not truth.holds
            if holds is False:
                break
            # A loop around programs ends when they say so: its commands are followed once.
            if self.round(loop.body) or not truth.decided or not holds:
                break
        return Truth(True, True)

    def round(self, body: Commands) -> bool:
        """Whether the loop is left."""
        try:
            self.all(body)
        except Leave as left:
            if left.what not in ("break", "continue"):
                raise
            return left.what == "break"
        return False

    def choice(self, choice: If) -> Truth:
        doubtful = False  # whether an arm before may be the one that is taken
        for condition, body in choice.arms:
            truth = Truth(True, True) if condition is None else self.all(condition)
            if truth.holds is True and not doubtful:
                return self.all(body)
            if truth.holds is not False:
                self.arm(body)
                doubtful = True
            if truth.holds is True:
                break
        return Truth(True, True)

    def arm(self, body: Commands) -> None:
        self.branched = True
        self.maybe += 1
        try:
            self.all(body)
        except Leave:
            return
        finally:
            self.maybe -= 1

    def case(self, case: Case) -> Truth:
        expansion = self.expansion()
        word = expansion.joined(case.word)
        for patterns, body in case.arms:
            if not is_known(word):
                self.arm(body)
            elif any(expansion.matches(word, pattern) for pattern in patterns):
                return self.all(body)
        return Truth(True, True)

    # Simple commands

    def assign(self, one: Assignment) -> None:
        if isinstance(one.value, tuple):
            (self.open.add if self.is_open(one.value) else self.open.discard)(one.name)
            old = self.arrays.get(one.name, []) if one.more else []
            self.arrays[one.name] = [*old, *self.words(one.value)]
            self.variables.pop(one.name, None)
            return
        value = self.word(one.value)
        if one.index is not None:
            self.element(one.name, self.word(one.index), value, one.more)
            return
        if one.more:
            value = self.variables.get(one.name, "") + value
        self.variables[one.name] = value
        self.arrays.pop(one.name, None)

    def is_open(self, words: Sequence[Word]) -> bool:
        """Whether a list has all of one whose length is not known."""
        parts = (part for word in words for part in word.parts if isinstance(part, Variable))
        return any(
            part.name in self.open and part.index is not None and part.index.literal in ("@", "*") for part in parts
        )

    def declared(self, name: str, flag: str) -> str:
        """What `declare -f` and `declare -p` print, by which a script gives what it has to another shell."""
        if flag == "-f":
            return self.functions[name].text if name in self.functions else ""
        if name in self.arrays:
            return f"{name}=({' '.join(_quoted(one) for one in self.arrays[name])})"
        return f"{name}={_quoted(self.variables[name])}" if name in self.variables else ""

    def element(self, name: str, index: str, value: str, more: bool) -> None:
        try:
            k = value_of(index, self.variables, self.arrays)
        except NoSum:
            return
        held = self.arrays.setdefault(name, [])
        if 0 <= k <= 10_000:
            held += [""] * (k + 1 - len(held))
            held[k] = held[k] + value if more else value

    def simple(self, simple: Simple) -> Truth:
        words = self.words(simple.words)
        if not words:
            for one in simple.assignments:
                self.assign(one)
            self.redirected(simple.redirects, "")
            return Truth(True, True)
        name = words[0]
        builtin = self.builtins.get(name)
        if builtin is not None:
            return builtin(self, simple, words)
        body = self.functions.get(name)
        if body is not None:
            return self.call(body.body, words)
        return self.start(simple, words)

    def call(self, body: Command, words: list[str]) -> Truth:
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise ShellError(f"functions call each other more than {MAX_CALLS} deep", 0)
        self.within.append(words[0])
        skipped, self.skipped = self.skipped, False
        saved, self.arguments = self.arguments, [self.arguments[0], *words[1:]]
        try:
            return replace(self.command(body), decided=False)
        except Leave as left:
            # Where the function gives up because a program succeeds, it does not: `probe || return; fail`.
            if left.what != "return" and not (left.failing and self.skipped):
                raise
            return Truth(True, False)
        finally:
            self.skipped = skipped
            self.arguments = saved
            self.within.pop()
            self.calls -= 1

    def start(self, simple: Simple, words: list[str]) -> Truth:
        own = dict(self.variables)
        saved, self.variables = self.variables, own
        for one in simple.assignments:
            self.assign(one)
        names = {*self.exported, *(one.name for one in simple.assignments)}
        environment = {name: own[name] for name in own if name in names}
        self.variables = saved
        given = self.redirected(simple.redirects, "")
        if words[0] in ("cat", "tee") and given is not None:
            # `cat > FILE <<END`, `tee FILE <<END`
            self.store([one for one in words[1:] if not one.startswith("-")] if words[0] == "tee" else [], given)
            if not any(r.op in (">", ">>", ">|") for r in simple.redirects) and words[0] == "cat":
                self.say(given)
            return Truth(True, True)
        if words[0] == "mktemp":
            self.say("/tmp/made\n")
            return Truth(True, True)
        if words[0] == "seq" and (numbers := _sequence(words)) is not None:
            self.say(numbers)
            return Truth(True, True)
        self.spent.commands += 1
        if self.spent.commands > MAX_COMMANDS:
            raise ShellError(f"the script starts more than {MAX_COMMANDS:,} programs", simple.start)
        self.spend(sum(map(len, words)) + sum(map(len, environment.values())), simple.start)
        unknown = [name for word in words for name in named(word)]
        self.started.append(
            Started(
                tuple(map(shown, words)),
                {name: shown(value) for name, value in environment.items()},
                tuple(dict.fromkeys(unknown)),
                self.maybe > 0,
                tuple(self.within),
                simple.start,
                simple.end,
            )
        )
        return Truth(True, False)

    # Files and what is printed

    def redirected(self, redirects: Sequence[Redirect], printed: str) -> str | None:
        """Writes files that are written; the here-document that is read, if any."""
        given = None
        for one in redirects:
            if one.op in ("<<", "<<<"):
                given = self.word(one.target) + ("\n" if one.op == "<<<" else "")
        for one in redirects:
            if one.op in (">", ">>", ">|"):
                content = given if given is not None else printed
                self.store([self.word(one.target)], content, more=one.op == ">>")
        return given

    def store(self, paths: Sequence[str], content: str, *, more: bool = False) -> None:
        for path in paths:
            if path.startswith("/dev/") or not content:
                continue
            self.spend(len(content))
            self.files[path] = (self.files.get(path, "") if more else "") + content

    def say(self, text: str) -> None:
        self.spend(len(text))
        self.said.append(text)
        self.doubtful = self.doubtful or self.maybe > 0


Builtin: TypeAlias = Callable[[Shell, Simple, list[str]], Truth]
"""A command of the shell itself, with its words."""


def _quoted(word: str) -> str:
    """As a word of a script; what is unknown stays to be expanded."""
    pieces = split_marks(word)
    return "".join(f'"{text}"' if marked else shlex.quote(text) for marked, text in pieces) or "''"


def _sequence(words: list[str]) -> str | None:
    """What `seq` prints."""
    between, numbers = "\n", []
    rest = iter(words[1:])
    for word in rest:
        if word == "-s":
            between = next(rest, "\n")
        elif word.startswith("-s"):
            between = word[2:]
        elif word == "-w":
            continue
        else:
            numbers.append(word)
    try:
        values = [int(one) for one in numbers if len(one) < 10]
    except ValueError:
        return None
    if len(values) != len(numbers) or not 1 <= len(values) <= 3:
        return None
    first = values[0] if len(values) > 1 else 1
    step = values[1] if len(values) == 3 else 1
    if not step or abs((values[-1] - first) / step) > 10_000:
        return None
    return between.join(map(str, range(first, values[-1] + (1 if step > 0 else -1), step))) + "\n"
