"""What a shell script consists of."""

from __future__ import annotations

from typing import TypeAlias

from ...base.frozen import record


@record
class Text:
    """Letters as they are. `quoted`: no pattern and no list of words."""

    text: str
    quoted: bool


@record
class Variable:
    """`$name` or `${name op word}`. `index`: of an array; `count`: `${#name}`; `of`: the variable whose name the value is, `${!name}`."""

    name: str
    quoted: bool
    op: str = ""
    word: Word | None = None
    index: Word | None = None
    count: bool = False
    of: bool = False


@record
class Output:
    """`$(commands)`. `text`: as written."""

    body: Commands
    text: str
    quoted: bool


@record
class Sum:
    """`$((text))`, after the expansions in it."""

    word: Word
    quoted: bool


Part: TypeAlias = Text | Variable | Output | Sum


@record
class Word:
    """`start` and `end` in the script."""

    parts: tuple[Part, ...]
    start: int
    end: int

    @property
    def literal(self) -> str | None:
        """Its text, where nothing in it is quoted or expanded."""
        if all(isinstance(p, Text) and not p.quoted for p in self.parts):
            return "".join(p.text for p in self.parts if isinstance(p, Text))
        return None


@record
class Assignment:
    """`name=value`, `name[index]=value`, `name+=value`; a list in parentheses is an array."""

    name: str
    value: Word | tuple[Word, ...]
    index: Word | None = None
    more: bool = False


@record
class Redirect:
    """`op target`. With op `<<`, `target` is the text of the here-document."""

    op: str
    target: Word


@record
class Simple:
    assignments: tuple[Assignment, ...]
    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...]
    start: int
    end: int


@record
class Pipe:
    """Commands joined by `|`. `negated`: by `!`."""

    commands: tuple[Command, ...]
    negated: bool


@record
class Chain:
    """Pipes, each with the operator before it: empty, `&&` or `||`. `beside`: `&`, they run beside what follows."""

    pipes: tuple[tuple[str, Pipe], ...]
    beside: bool = False


Commands: TypeAlias = tuple[Chain, ...]


@record
class Group:
    """`{ ... }`, or with `apart` `( ... )`, which leaves no variables behind."""

    body: Commands
    apart: bool
    redirects: tuple[Redirect, ...]


@record
class For:
    """`words` None: the arguments."""

    name: str
    words: tuple[Word, ...] | None
    body: Commands


@record
class Count:
    """`for ((first; holds; then))`."""

    first: Word
    holds: Word
    then: Word
    body: Commands


@record
class While:
    condition: Commands
    body: Commands
    until: bool


@record
class If:
    """Each condition with its commands; an `else` has none."""

    arms: tuple[tuple[Commands | None, Commands], ...]


@record
class Case:
    word: Word
    arms: tuple[tuple[tuple[Word, ...], Commands], ...]


@record
class Function:
    """`text`: as written."""

    name: str
    body: Command
    text: str


@record
class Test:
    """`[[ ... ]]`: words and operators."""

    tokens: tuple[Word | str, ...]


@record
class Arithmetic:
    """`((text))`"""

    word: Word


Command: TypeAlias = Simple | Group | For | Count | While | If | Case | Function | Test | Arithmetic
