"""within: what a command line restricts of a space: `gpus <= 32`, `attention.tp = 8`, `dispatch = allgather`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from .rules import FOLDED
from .space import Flags, Rows, Rule, Test

FORM = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(<=|>=|==|!=|=|<|>)\s*([A-Za-z_]\w*|-?\d+)\s*(?:tok)?\s*")
"""NAME, comparison, value."""


WITHIN = "within "
"""Begins the name of a rule that a command line adds."""


class Wrong(ValueError):
    """A restriction that cannot be read; `help`: what would."""

    def __init__(self, text: str, help: str) -> None:
        super().__init__(text)
        self.help = help


def restrictions(texts: Sequence[str], phase: str, phases: Collection[str], paths: Collection[str]) -> tuple[Rule, ...]:
    """Rules for one phase of the `phases` that are searched. A name may begin with the phase that is meant. `paths`: what is open in it,
    beside what rules know anyway. Raises Wrong."""
    found = []
    for text in (part for whole in texts for part in whole.split(",")):
        match = FORM.fullmatch(text)
        if match is None:
            raise Wrong(f"`{text.strip()}` is not of the form NAME <= NUMBER", "write `gpus <= 32`, `attention.tp = 8`")
        name, sign, value = match.groups()
        owner, _, rest = name.partition(".")
        if owner in phases:
            if owner != phase:
                continue
            name = rest
        name = FOLDED.get(name, name)
        found.append(
            Rule(
                f"{WITHIN}{text.strip()}",
                "asked for on the command line",
                (((name,), _test(name, sign, value)),),
                "E14",
            )
        )
    return tuple(found)


def _test(name: str, sign: str, value: str) -> Test:
    if value.lstrip("-").isdigit():
        bound = int(value)

        def number(rows: Rows) -> Flags:
            own = rows.number(name)
            kept: Flags = {
                "<=": own <= bound, ">=": own >= bound, "<": own < bound, ">": own > bound, "=": own == bound, "==": own == bound,
                "!=": own != bound,
            }[sign]  # fmt: skip
            return kept

        return number
    word = {"true": True, "false": False}.get(value, value)
    if sign not in ("=", "==", "!="):
        raise Wrong(f"`{name} {sign} {value}` compares words", f"write `{name} = {value}`")

    def same(rows: Rows) -> Flags:
        kept: Flags = rows.is_(name, word)
        return ~kept if sign == "!=" else kept

    return same


def unknown(rules: Sequence[Rule], rows: Rows) -> str | None:
    """A name of a restriction that no plan of the space has."""
    for rule in rules:
        for asked, _ in rule.tests:
            for name in asked:
                path = rows.names.get(name, name)
                if path not in {d.path for d in rows.domains} and name not in rows.fixed:
                    return name
    return None
