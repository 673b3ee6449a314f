"""What `[ ... ]` and `[[ ... ]]` say, as far as it is known without running anything."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...base.frozen import record
from .syntax import Word
from .unknown import is_known, named

if TYPE_CHECKING:
    from .expansions import Expansion

INTEGER = re.compile(r"\s*[+-]?\d{1,18}\s*")
NUMBERS = {
    "-eq": operator.eq,
    "-ne": operator.ne,
    "-lt": operator.lt,
    "-le": operator.le,
    "-gt": operator.gt,
    "-ge": operator.ge,
}
FILES = frozenset(("-f", "-d", "-e", "-s", "-x", "-r", "-w", "-h", "-L", "-p", "-S", "-t", "-b", "-c", "-O", "-G"))


@record
class Truth:
    """`holds` None: only the run would know. `decided`: by values, not because programs are taken to succeed."""

    holds: bool | None
    decided: bool


def _truth(holds: bool | None) -> Truth:
    return Truth(holds, holds is not None)


def _not(a: bool | None) -> bool | None:
    return None if a is None else not a


def _both(a: bool | None, b: bool | None) -> bool | None:
    return False if a is False or b is False else None if a is None or b is None else True


def _either(a: bool | None, b: bool | None) -> bool | None:
    return _not(_both(_not(a), _not(b)))


def tested(words: Sequence[str]) -> Truth:
    """Of the words between `[` and `]`."""
    for op, join in (("-o", _either), ("-a", _both)):
        if op in words[1:-1]:
            k = words.index(op, 1)
            return _truth(join(tested(words[:k]).holds, tested(words[k + 1 :]).holds)) if k < 200 else _truth(None)
    if words[:1] == ["!"] and len(words) > 1:
        return _truth(_not(tested(words[1:]).holds)) if words[1:2] != ["!"] else _truth(None)
    if len(words) == 3:
        return _truth(_binary(words[0], words[1], words[2]))
    if len(words) == 2:
        return _truth(_unary(words[0], words[1]))
    if len(words) == 1:
        return _truth(_unary("-n", words[0]))
    return _truth(False if not words else None)


def _unary(op: str, word: str) -> bool | None:
    if op in ("-n", "-z"):
        filled = _filled(word)
        return filled if op == "-n" else _not(filled)
    return None


def _filled(word: str) -> bool | None:
    """Whether there is something in it. A variable that the script does not set is taken as empty."""
    rest = word
    for name in named(word):
        if not re.fullmatch(r"\$\w+", name):
            return None
        rest = rest.replace(f"\x00{name}\x01", "")
    return bool(rest)


def _binary(left: str, op: str, right: str) -> bool | None:
    if not is_known(left) or not is_known(right):
        return None
    if op in NUMBERS:
        if not INTEGER.fullmatch(left) or not INTEGER.fullmatch(right):
            return None
        return bool(NUMBERS[op](int(left), int(right)))
    compare = {"=": operator.eq, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}.get(op)
    return bool(compare(left, right)) if compare is not None else None


def compared(tokens: Sequence[Word | str], expansion: Expansion) -> Truth:
    """Of what is between `[[` and `]]`."""
    reader = _Compared(tokens, expansion)
    return _truth(reader.any())


class _Compared:
    def __init__(self, tokens: Sequence[Word | str], expansion: Expansion) -> None:
        self.tokens, self.expansion, self.at, self.depth = tokens, expansion, 0, 0

    def next(self) -> Word | str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def any(self) -> bool | None:
        holds = self.all()
        while self.next() == "||":
            self.at += 1
            holds = _either(holds, self.all())
        return holds

    def all(self) -> bool | None:
        holds = self.one()
        while self.next() == "&&":
            self.at += 1
            holds = _both(holds, self.one())
        return holds

    def one(self) -> bool | None:
        token = self.next()
        self.at += 1
        negated = False
        while token == "!":
            negated, token = not negated, self.next()
            self.at += 1
        holds = self.single(token)
        return _not(holds) if negated else holds

    def single(self, token: Word | str | None) -> bool | None:
        if token == "(":
            self.depth += 1
            holds = self.any() if self.depth < 50 else None
            self.at += 1
            return holds
        if not isinstance(token, Word):
            return None
        if (token.literal in FILES or token.literal in ("-n", "-z", "-v", "-o")) and isinstance(self.next(), Word):
            word = self.next()
            self.at += 1
            assert isinstance(word, Word) and token.literal is not None
            return _unary(token.literal, self.expansion.joined(word))
        left = self.expansion.joined(token)
        op = self.next()
        named_op = op.literal if isinstance(op, Word) else op
        if named_op not in ("=", "==", "!=", "<", ">", "=~", *NUMBERS):
            return _unary("-n", left)
        self.at += 1
        right = self.next()
        self.at += 1
        if not isinstance(right, Word) or named_op == "=~" or named_op is None:
            return None
        if named_op in ("=", "==", "!="):
            if not is_known(left) or not is_known(self.expansion.joined(right)):
                return None
            same = self.expansion.matches(left, right)
            return same if named_op != "!=" else not same
        return _binary(left, named_op, self.expansion.joined(right))
