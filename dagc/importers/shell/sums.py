"""Arithmetic of the shell, on integers of 64 bits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

MOST = 2**63
TOKEN = re.compile(
    r"\s*(?:(0[xX][0-9a-fA-F]{1,16}|\d{1,19})|([A-Za-z_]\w*)"
    r"|(\*\*|<<=|>>=|\+\+|--|[-+*/%&|^]=|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%<>=!~&|^?:(),\[\]]))"
)
LEVELS = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<", ">", "<=", ">="),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)
"""Operators, weakest first."""
SIGNED = frozenset(("=", "+=", "-=", "*=", "/=", "%="))


class NoSum(Exception):
    """The text has no value that is known."""


BINARY: dict[str, Callable[[int, int], int]] = {
    "||": lambda a, b: int(bool(a or b)),
    "&&": lambda a, b: int(bool(a and b)),
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "&": lambda a, b: a & b,
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(a < b),
    ">": lambda a, b: int(a > b),
    "<=": lambda a, b: int(a <= b),
    ">=": lambda a, b: int(a >= b),
    "<<": lambda a, b: a << (b % 64),
    ">>": lambda a, b: a >> (b % 64),
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: _quotient(a, b),
    "%": lambda a, b: a - b * _quotient(a, b),
}


def _quotient(a: int, b: int) -> int:
    """Towards zero, as in C."""
    if b == 0:
        raise NoSum
    whole = abs(a) // abs(b)
    return whole if (a < 0) == (b < 0) else -whole


def value_of(text: str, variables: MutableMapping[str, str], arrays: Mapping[str, Sequence[str]] | None = None) -> int:
    """Of an expression, which may assign to variables. Raises NoSum."""
    if len(text) > 1000:
        raise NoSum
    tokens, at = [], 0
    text = text.strip()
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None or found.end() == at:
            raise NoSum
        tokens.append(found[1] or found[2] or found[3])
        at = found.end()
    if not tokens:
        return 0
    reader = _Sum(tokens, variables, arrays or {})
    value = reader.all()
    if reader.at < len(tokens):
        raise NoSum
    return value


@dataclass(slots=True)
class _Sum:
    tokens: list[str]
    variables: MutableMapping[str, str]
    arrays: Mapping[str, Sequence[str]]
    at: int = 0
    depth: int = 0

    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.next()
        self.at += 1
        return token

    def all(self) -> int:
        value = self.chosen()
        while self.next() == ",":
            self.at += 1
            value = self.chosen()
        return value

    def chosen(self) -> int:
        self.depth += 1
        if self.depth > 40:
            raise NoSum
        name, sign = self.next(), self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else ""
        if sign in SIGNED and _is_name(name):
            self.at += 2
            value = self.chosen()
            value = self.set(name, value if sign == "=" else BINARY[sign[:-1]](self.get(name), value))
        else:
            value = self.level(0)
            if self.next() == "?":
                self.at += 1
                yes = self.chosen()
                if self.take() != ":":
                    raise NoSum
                no = self.chosen()
                value = yes if value else no
        self.depth -= 1
        return value

    def level(self, k: int) -> int:
        if k == len(LEVELS):
            return self.power()
        value = self.level(k + 1)
        while self.next() in LEVELS[k]:
            value = bounded(BINARY[self.take()](value, self.level(k + 1)))
        return value

    def power(self) -> int:
        value = self.one()
        if self.next() == "**":
            self.at += 1
            other = self.power()
            if not 0 <= other < 64:
                raise NoSum
            value = bounded(value**other)
        return value

    def one(self) -> int:
        token = self.take()
        if token in ("-", "+", "!", "~"):
            self.depth += 1
            if self.depth > 40:
                raise NoSum
            value = self.one()
            self.depth -= 1
            return {"-": -value, "+": value, "!": int(not value), "~": ~value}[token]
        if token in ("++", "--"):
            name = self.take()
            return self.set(name, self.get(name) + (1 if token == "++" else -1))
        if token == "(":
            value = self.all()
            if self.take() != ")":
                raise NoSum
            return value
        if token[:1].isdigit():
            return bounded(
                int(
                    token,
                    16
                    if token[:2] in ("0x", "0X")
                    else 8
                    if token[0] == "0" and token.isdigit() and "8" not in token and "9" not in token
                    else 10,
                )
            )
        if not _is_name(token):
            raise NoSum
        if self.next() == "[":
            return self.element(token)
        value = self.get(token)
        if self.next() in ("++", "--"):
            self.set(token, value + (1 if self.take() == "++" else -1))
        return value

    def get(self, name: str) -> int:
        if not _is_name(name):
            raise NoSum
        return _number(self.variables.get(name, "0"))

    def element(self, name: str) -> int:
        self.at += 1
        k = self.all()
        held = self.arrays.get(name, ())
        if self.take() != "]" or not -len(held) <= k < len(held):
            raise NoSum
        return _number(held[k])

    def set(self, name: str, value: int) -> int:
        if not _is_name(name):
            raise NoSum
        self.variables[name] = str(bounded(value))
        return value


def _number(text: str) -> int:
    text = text.strip() or "0"
    if not re.fullmatch(r"-?\d{1,19}", text):
        raise NoSum
    return bounded(int(text))


def _is_name(token: str) -> bool:
    return token[:1].isalpha() or token[:1] == "_"


def bounded(value: int) -> int:
    if not -MOST <= value < MOST:
        raise NoSum
    return value
