"""A text without a syntax error to its tree, from the tables that lark made of the grammar, in a tenth of lark's time and
without importing it. Everything else (None) is read again by lark, which knows what was expected where."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_OPEN = {"LPAR", "LSQB", "LBRACE"}
_CLOSE = {"RPAR", "RSQB", "RBRACE"}


class Word(str):
    """A token that the tree keeps."""

    start_pos: int
    end_pos: int


class Tree:
    """A node, as lark's."""

    __slots__ = ("children", "data", "end_pos", "start_pos")

    def __init__(self, data: str, children: list[Any], start: int | None, end: int | None) -> None:
        self.data, self.children = data, children
        self.start_pos, self.end_pos = start, end

    @property
    def meta(self) -> Tree:
        return self


@cache
def _lexer(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def tokens(text: str, tables: Any) -> list[tuple[str, int, int]] | None:
    """Kind, start and end of each token; None where there is a character that begins none. What a newline and a comma
    mean depends on the bracket that they are in, as `lexing.BracketFilter` has it."""
    found: list[tuple[str, int, int]] = []
    keep = found.append
    brackets: list[str] = []
    keywords, ignored = tables.KEYWORDS, tables.IGNORED
    at = 0
    for match in _lexer(tables.LEXER).finditer(text):
        start, end = match.span()
        if start != at or start == end:
            return None
        at = end
        kind = match.lastgroup
        if kind in ignored:
            continue
        assert kind is not None
        own = keywords.get(kind)
        if own is not None:
            kind = own.get(text[start:end], kind)
        elif kind in _OPEN:
            brackets.append(kind)
        elif kind in _CLOSE:
            if brackets:
                brackets.pop()
        elif kind == "_END" or kind == "COMMA":
            if brackets and brackets[-1] != "LBRACE":
                if kind == "_END":
                    continue
            else:
                kind = "_END"
        keep((kind, start, end))
    if at != len(text):
        return None
    keep(("$END", at, at))
    return found


def tree(text: str, tables: Any) -> Tree | None:
    """None: the text has a syntax error."""
    read = tokens(text, tables)
    if read is None:
        return None
    actions, rules, kept, passed = tables.STATES, tables.RULES, tables.KEPT, _passed
    state = tables.START
    states = [state]
    values: list[Any] = []
    firsts: list[int | None] = []  # of each value: where it begins and ends with its brackets, None for nothing at all
    lasts: list[int | None] = []
    for kind, start, end in read:
        while True:
            action = actions[state].get(kind)
            if action is None:
                return None
            if action >= 0:
                break
            origin, data, size, single, include, after = rules[~action]
            if size == 1 and single and include is None:  # `?rule` of one part: the part itself
                states.pop()
                state = passed(actions, rules, states[-1], origin, kind)
                states.append(state)
                continue
            if size:
                parts, first, last = values[-size:], firsts[-size:], lasts[-size:]
                del values[-size:], firsts[-size:], lasts[-size:], states[-size:]
                begins, ends = first[0], last[-1]
                if begins is None:
                    begins = next((f for f in first if f is not None), None)
                if ends is None:
                    ends = next((e for e in reversed(last) if e is not None), None)
            else:
                parts, begins, ends = [], None, None
            if include is not None:
                filtered: list[Any] = []
                for place, inline, nones in include:
                    if nones:
                        filtered += (None,) * nones
                    if inline:
                        filtered += parts[place].children
                    else:
                        filtered.append(parts[place])
                parts = filtered
            if after:
                parts += (None,) * after
            made = parts[0] if single and len(parts) == 1 else Tree(data, parts, begins, ends)
            values.append(made)
            firsts.append(begins)
            lasts.append(ends)
            state = actions[states[-1]][origin]
            if state == tables.END and kind == "$END":
                return made if isinstance(made, Tree) else None
            states.append(state)
        state = action
        states.append(state)
        if kind in kept:
            word = Word(text[start:end])
            word.start_pos, word.end_pos = start, end
            values.append(word)
        else:
            values.append(None)
        firsts.append(start)
        lasts.append(end)
    return None


_REACHED: dict[tuple[int, str, str], int] = {}


def _passed(actions: Any, rules: Any, below: int, origin: str, kind: str) -> int:
    """The state after a rule of one part and all those that follow from it at once: an atom that is a product, a sum and an
    expression passes a dozen of them."""
    key = below, origin, kind
    found = _REACHED.get(key)
    if found is None:
        found = actions[below][origin]
        action = actions[found].get(kind, 0)
        if action < 0:
            upper, _, size, single, include, _ = rules[~action]
            if size == 1 and single and include is None:
                found = _passed(actions, rules, below, upper, kind)
        _REACHED[key] = found
    return found
