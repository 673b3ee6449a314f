"""Random texts that the lark grammar accepts, drawn from its rules: what a parser sees, whether it means anything or not."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from dagc.base.syntax import lalr_tables

DEEP = 9
"""Nested rules, after which the shortest alternative is taken."""
WORDS = ("gpus", "ep", "hidden", "h", "x_1", "_y", "prefill", "bf16", "moe", "link", "to", "tok", "all_to_all", "W2")
QUANTITIES = (
    "1",
    "0",
    "4_096",
    "0.5",
    "1e-6",
    "60%",
    "60 %",
    "4 GB",
    "1.8 TB/s",
    "2us",
    "12 req/s",
    "2 $/h",
    "1 $",
    "3 tok/ms",
)
STRINGS = ('"a"', '""', '"# no comment { ("', '"first token, 2 s"')
BLANK = (" ", " ", " ", "  ", "\t")
HEADS = ("(", "=", ".", "[")
"""Before them is a name whose kind they tell."""
IN_BRACKETS = (*BLANK, "\n", "\n  # of a list\n")


def sentence(rng: random.Random, *, broken: bool = True) -> str:
    """One text; `broken`: lines may end between any two tokens in brackets. `link A to B` needs its middle word: the lexer asks for it."""
    tokens = _derived(rng, "start", 0)
    for i, (terminal, _) in enumerate(tokens):
        if terminal == "JOIN":
            tokens[i + 2] = ("NAME", "to")
    return _joined(rng, tokens, broken)


def _joined(rng: random.Random, tokens: list[tuple[str, str]], broken: bool) -> str:
    text, open_ = "", list[str]()
    following = [*(value for _, value in tokens), ""][1:]
    for (_, value), after in zip(tokens, following, strict=True):
        if value in "([{":
            open_.append(value)
        elif value in ")]}":
            open_.pop()
        inside = bool(open_) and open_[-1] != "{"
        gap = rng.choice(IN_BRACKETS if inside and (broken or after not in HEADS) else BLANK)
        comment = rng.choice(("", "", "", "  # told")) if value == "\n" else ""
        text += comment + value + gap
    return text + "\n"


@cache
def _rules() -> dict[str, list[list[Any]]]:
    rules: dict[str, list[list[Any]]] = {}
    for rule in lalr_tables.load().rules:
        rules.setdefault(rule.origin.name, []).append(rule.expansion)
    return rules


@cache
def _depths() -> dict[str, int]:
    """Of each rule: how deep its shortest derivation is."""
    depths: dict[str, int] = {}
    for _ in _rules():
        for name, expansions in _rules().items():
            known = [_depth(e, depths) for e in expansions]
            if finite := [d for d in known if d is not None]:
                depths[name] = min(finite)
    return depths


def _depth(expansion: list[Any], depths: dict[str, int]) -> int | None:
    inner = [0 if s.is_term else depths.get(s.name) for s in expansion]
    return None if None in inner else 1 + max((d for d in inner if d is not None), default=0)


def _derived(rng: random.Random, name: str, depth: int) -> list[tuple[str, str]]:
    expansions = _rules()[name]
    if depth > DEEP:
        least = _depths()[name]
        expansions = [e for e in expansions if _depth(e, _depths()) == least]
    tokens = []
    for symbol in rng.choice(expansions):
        tokens += [(symbol.name, _word(rng, symbol.name))] if symbol.is_term else _derived(rng, symbol.name, depth + 1)
    return tokens


def _word(rng: random.Random, terminal: str) -> str:
    choices = {
        "NAME": WORDS, "QUANTITY": QUANTITIES, "STRING": STRINGS, "_END": ("\n", "\n", ","), "MOE": ("moe",), "JOIN": ("link",),
        "COMPARE": ("<=", ">=", "==", "<", ">", "~"),
    }  # fmt: skip
    return rng.choice(choices[terminal]) if terminal in choices else _strings()[terminal]


@cache
def _strings() -> dict[str, str]:
    return {t.name: t.pattern.value for t in lalr_tables.load().terminals}
