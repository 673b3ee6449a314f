"""Words of a script with their expansions made: variables, patterns, braces, what commands print."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .sums import NoSum, value_of
from .syntax import Commands, Output, Sum, Text, Variable, Word
from .unknown import is_known, unknown

PIECES = re.compile("(?:[^ \t\n\x00]|\x00[^\x01]*\x01)+")
"""Words of a list; what is unknown is one."""
RANGE = re.compile(r"(-?\d{1,6})\.\.(-?\d{1,6})(?:\.\.(-?\d{1,6}))?")
MAX_BRACED = 10_000
MAX_MATCHED, MAX_PATTERN = 4_000, 100
"""Letters of a text that is compared with a pattern, and of the pattern."""


@dataclass(slots=True)
class Expansion:
    """`open`: arrays whose length is not known. `output`: what commands print, None where that is unknown. `unset`: gets the names of variables that have no value. `spend`: is
    told of letters that are made."""

    variables: MutableMapping[str, str]
    arrays: MutableMapping[str, list[str]]
    arguments: Sequence[str]
    output: Callable[[Commands, str], str | None]
    unset: list[str]
    spend: Callable[[int, int], None]
    open: Container[str] = ()

    def joined(self, word: Word) -> str:
        """As one text."""
        out = []
        for part in word.parts:
            if isinstance(part, Text):
                out.append(part.text)
            else:
                values = self.values(part)
                out.append(" ".join(values) if len(values) != 1 else values[0])
        text = "".join(out)
        self.spend(len(text), word.start)
        return text

    def split(self, word: Word, *, blanks: bool = False) -> list[str]:
        """As the words that a command gets. `blanks`: its letters are split at blanks too, as behind `${name:+`."""
        braced = word.literal
        if braced is not None and "{" in braced and not blanks:
            return self.braces(braced)
        made = _Fields()
        for part in word.parts:
            if isinstance(part, Text):
                (made.loose if blanks and not part.quoted else made.add)(part.text)
                continue
            listed = self.alternative(part)
            values = self.values(part) if listed is None else listed
            if listed is not None or (part.quoted and isinstance(part, Variable) and self.is_list(part)):
                made.several(values)
            elif part.quoted:
                made.add("".join(values))
            else:
                for k, value in enumerate(values):
                    if k:
                        made.end()
                    made.loose(value)
        made.end()
        self.spend(sum(map(len, made.all)) + len(made.all), word.start)
        return made.all

    def alternative(self, part: Variable | Output | Sum) -> list[str] | None:
        """Of `${name+words}` and `${name-words}`, whose words stay several; None: it is none, or the variable's own value holds."""
        kind = part.op.lstrip(":") if isinstance(part, Variable) else ""
        if not isinstance(part, Variable) or part.word is None or kind not in ("+", "-") or part.name in self.open:
            return None
        is_list = self.is_list(part)
        if part.quoted and not is_list:
            return None
        if is_list:
            there = bool(self.arguments[1:] if part.name in ("@", "*") else self.array(part.name))
        else:
            value = self.held(part)
            there = value is not None and (bool(value) or part.op == kind)
        if kind == "+":
            return self.split(part.word, blanks=not part.quoted) if there else []
        return self.split(part.word, blanks=not part.quoted) if not there else None

    def braces(self, text: str) -> list[str]:
        """`a{1..3}` and `a{x,y}`."""
        out = [text]
        for _ in range(8):
            found = next((k for k, one in enumerate(out) if _brace(one) is not None), None)
            if found is None:
                break
            made = _brace(out[found]) or []
            out[found : found + 1] = made
            if len(out) > MAX_BRACED:
                return [text]
        return out

    # Values

    def is_list(self, part: Variable) -> bool:
        return part.name in ("@", "*") or (part.index is not None and part.index.literal in ("@", "*"))

    def values(self, part: Variable | Output | Sum) -> list[str]:
        if isinstance(part, Output):
            found = self.output(part.body, part.text)
            return [unknown(part.text) if found is None else found]
        if isinstance(part, Sum):
            text = self.joined(part.word)
            try:
                return (
                    [str(value_of(text, self.variables, self.arrays))]
                    if is_known(text)
                    else [unknown(f"$(({_bare(text)}))")]
                )
            except NoSum:
                return [unknown(f"$(({text}))")]
        if self.is_list(part) and part.name in self.open:
            return [unknown(f"${part.name}")]
        if self.is_list(part) and part.of and part.index is not None:
            return [str(k) for k in range(len(self.array(part.name)))]
        if self.is_list(part) and not part.count and not part.of and part.op in ("", ":"):
            return self.listed(part)
        return [self.variable(part)]

    def listed(self, part: Variable) -> list[str]:
        held = list(self.arguments[1:]) if part.name in ("@", "*") else list(self.array(part.name))
        if part.op == ":" and part.word is not None:
            text = self.joined(part.word).split(":")
            try:
                numbers = [value_of(one, self.variables, self.arrays) for one in text]
            except NoSum:
                return held
            start = numbers[0] - (1 if part.name in ("@", "*") else 0)
            held = held[max(0, start) :][: numbers[1] if len(numbers) > 1 else None]
        star = part.name == "*" or (part.index is not None and part.index.literal == "*")
        return [" ".join(held)] if star and part.quoted else held

    def array(self, name: str) -> list[str]:
        if name in self.arrays:
            return self.arrays[name]
        return [self.variables[name]] if name in self.variables else []

    def held(self, part: Variable) -> str | None:
        name = part.name
        if part.of:
            name = self.variables.get(name, "")
        if part.index is not None:
            if part.index.literal in ("@", "*"):
                return " ".join(self.array(name)) if self.array(name) else None
            try:
                k = value_of(self.joined(part.index), self.variables, self.arrays)
            except NoSum:
                return None
            array = self.array(name)
            return array[k] if -len(array) <= k < len(array) else None
        if name.isdigit():
            k = int(name) if len(name) < 6 else len(self.arguments)
            return self.arguments[k] if k < len(self.arguments) else None
        if name in ("@", "*"):
            return " ".join(self.arguments[1:])
        if name in ("#", "?", "-"):
            return {"#": str(len(self.arguments) - 1), "?": "0", "-": ""}[name]
        if name in self.arrays:
            return self.arrays[name][0] if self.arrays[name] else None
        return self.variables.get(name)

    def variable(self, part: Variable) -> str:
        value = self.held(part)
        if part.count:
            listed = self.is_list(part)
            return str(len(self.listed(part)) if listed else len(value or ""))
        op, bare = part.op, part.op.lstrip(":")
        if bare in ("-", "=", "+", "?") and op:
            there = value is not None and (bool(value) or op == bare)
            if bare == "+":
                return self.joined(part.word) if there and part.word is not None else ""
            if there:
                return value or ""
            if bare == "?":
                return self.missing(part.name)
            otherwise = self.joined(part.word) if part.word is not None else ""
            if bare == "=":
                self.variables[part.name] = otherwise
            return otherwise
        if value is None:
            if part.name.isdigit():
                return ""
            return self.missing(part.name)
        if not op:
            return value
        return self.changed(value, part) if is_known(value) else value

    def missing(self, name: str) -> str:
        self.unset.append(name)
        return unknown(f"${name}")

    def changed(self, value: str, part: Variable) -> str:
        """A value without a prefix or suffix, with a part replaced, a part of it, or in other letters."""
        op, word = part.op, part.word
        assert word is not None
        if op in ("#", "##", "%", "%%"):
            return self.without(value, op, word)
        if op in ("^", "^^", ",", ",,"):
            change = str.upper if op[0] == "^" else str.lower
            return change(value) if len(op) == 2 else change(value[:1]) + value[1:]
        if op in ("/", "//"):
            return self.replaced(value, op, word)
        if op == ":":
            try:
                numbers = [value_of(one, self.variables, self.arrays) for one in self.joined(word).split(":")[:2]]
            except NoSum:
                return value
            cut = value[numbers[0] :] if numbers[0] < 0 else value[min(numbers[0], len(value)) :]
            return cut if len(numbers) < 2 else cut[: numbers[1]]
        return value

    def without(self, value: str, op: str, word: Word) -> str:
        ends = prefixes(self.pattern(word), value, backwards=op[0] == "%")
        if not ends:
            return value
        cut = max(ends) if len(op) == 2 else min(ends)
        return value[cut:] if op[0] == "#" else value[: len(value) - cut]

    def replaced(self, value: str, op: str, word: Word) -> str:
        text = self.joined(word)
        old, _, new = text.partition("/")
        if not old or any(c in old for c in "*?[") or len(value) * max(1, len(new)) > 10_000_000:
            return value
        return value.replace(old, new) if op == "//" else value.replace(old, new, 1)

    def matches(self, value: str, word: Word) -> bool:
        """Whether a text is of a pattern."""
        return len(value) in prefixes(self.pattern(word), value)

    def pattern(self, word: Word) -> list[Piece]:
        out: list[Piece] = []
        for part in word.parts:
            if not isinstance(part, Text):
                out += " ".join(self.values(part))
            elif part.quoted:
                out += part.text
            else:
                k = 0
                while k < len(part.text):
                    c = part.text[k]
                    end = part.text.find("]", k + 2) if c == "[" else -1
                    if end > 0:
                        body = part.text[k + 1 : end]
                        negated = body[0] in "!^"
                        out.append((negated, _letters(body[negated:])))
                        k = end + 1
                        continue
                    out.append(ANY if c == "?" else STAR if c == "*" else c)
                    k += 1
        return out


Piece: TypeAlias = "str | tuple[bool, frozenset[str]]"
"""Of a pattern: a letter, or letters that one is among, or (True) is not."""
ANY: Piece = (True, frozenset())
STAR: Piece = "**"


def _letters(body: str) -> frozenset[str]:
    """`a-cx`"""
    found = set(body)
    for k in range(1, len(body) - 1):
        if body[k] == "-" and ord(body[k - 1]) <= ord(body[k + 1]) < 0x250:
            found.update(map(chr, range(ord(body[k - 1]), ord(body[k + 1]) + 1)))
    return frozenset(found)


def prefixes(pattern: list[Piece], text: str, *, backwards: bool = False) -> set[int]:
    """Lengths of those beginnings of a text (backwards: ends) that are of a pattern. Time goes with the product of both lengths."""
    if len(pattern) > MAX_PATTERN or len(text) > MAX_MATCHED:
        return set()
    if backwards:
        pattern, text = pattern[::-1], text[::-1]
    ends: set[int] = set()
    at = _past_stars({0}, pattern)
    for k in range(len(text) + 1):
        if len(pattern) in at:
            ends.add(k)
        if k == len(text) or not at:
            break
        reached = set()
        for p in at:
            if p == len(pattern):
                continue
            piece = pattern[p]
            if piece is STAR:
                reached.add(p)
            elif piece == text[k] or (isinstance(piece, tuple) and (text[k] in piece[1]) != piece[0]):
                reached.add(p + 1)
        at = _past_stars(reached, pattern)
    return ends


def _past_stars(at: set[int], pattern: list[Piece]) -> set[int]:
    for p in sorted(at):
        while p < len(pattern) and pattern[p] is STAR:
            p += 1
            at.add(p)
    return at


@dataclass(slots=True)
class _Fields:
    """Words that are made of the parts of one."""

    all: list[str] = field(default_factory=list)
    current: str | None = None

    def add(self, text: str) -> None:
        self.current = (self.current or "") + text

    def end(self) -> None:
        if self.current is not None:
            self.all.append(self.current)
            self.current = None

    def several(self, words: Sequence[str]) -> None:
        """Which are words already: the first goes on with what is before, the last with what follows."""
        for k, word in enumerate(words):
            if k:
                self.end()
            self.add(word)

    def loose(self, text: str) -> None:
        """Which is split at blanks."""
        if text[:1] in (" ", "\t", "\n"):
            self.end()
        for k, piece in enumerate(PIECES.findall(text)):
            if k:
                self.end()
            self.add(piece)
        if text and text[-1] in " \t\n":
            self.end()


def _bare(text: str) -> str:
    return text.replace("\x00", "").replace("\x01", "")


def _brace(text: str) -> list[str] | None:
    """The words of the first braces; None: it has none."""
    for start, c in enumerate(text):
        if c != "{":
            continue
        end = text.find("}", start)
        if end < 0:
            return None
        inner = text[start + 1 : end]
        found = RANGE.fullmatch(inner)
        if found is not None:
            first, last = int(found[1]), int(found[2])
            step = abs(int(found[3] or 1)) or 1
            if abs(last - first) / step > MAX_BRACED:
                return None
            numbers = range(first, last + 1, step) if last >= first else range(first, last - 1, -step)
            return [f"{text[:start]}{n}{text[end + 1 :]}" for n in numbers]
        if "," in inner and "{" not in inner:
            return [text[:start] + one + text[end + 1 :] for one in inner.split(",")]
    return None
