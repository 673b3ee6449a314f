"""Requirements on a terminal: what was asked for, what was found, by how much."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from ...base.frozen import record

if TYPE_CHECKING:
    from ...plan.require import Verdict
    from .terminal_text import Paint

MARK = 8
"""Columns before the label of a requirement."""
LABEL, SHORTEST = 44, 24
"""Columns that a label gets before what follows it, and at least."""

CUT = "..."
"""Behind a label that is cut."""


@record
class Judged:
    """A judged requirement in words. `sides`: `107.6 ms <= 10 s`."""

    label: str
    sides: str
    by: str
    passed: bool

    @classmethod
    def of(cls, one: Verdict) -> Judged:
        sides = f"{one.shown(one.value)} {one.requirement.test.op} {one.shown(one.bound)}"
        return cls(one.requirement.label, sides, one.by, one.passed)


def requirement_lines(judged: Sequence[Judged], paint: Paint) -> list[str]:
    """Aligned: whether it holds, what is asked for, what was found and is required, by how much."""
    sides = max((len(one.sides) for one in judged), default=0)
    by = max((len(one.by) for one in judged), default=0)
    longest = max((len(one.label) for one in judged), default=0)
    beside = paint.width >= MARK + min(longest, LABEL) + 2 + sides + 2 + by
    room = paint.width - MARK - 2 - sides - (2 + by if beside else 0)
    room = min(longest, max(SHORTEST, room))
    lines = []
    for one in judged:
        label = shorten(one.label, max(room, len(CUT)), placeholder=CUT)
        line = f"  {paint.verdict(one.passed)}  {label:<{room}}  {one.sides}"
        lines.append(f"{line:<{len(line) + sides - len(one.sides)}}  {one.by}" if beside else line)
        if not beside and not one.passed and one.by:
            lines.append(f"{'':{MARK}}{one.by}")
    return lines
