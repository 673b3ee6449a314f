"""The answer of a plan on a terminal: the lines that a report begins with, and its requirements."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

from ...plan.plan import CompiledPlan
from ...plan.require import Verdict
from ..facts.plan_answer import PASSED, Answer, Figure
from .terminal_text import TIED, Paint


def verdict_line(found: Answer, paint: Paint) -> str:
    """The first line and the last."""
    return paint(found.verdict, "32" if found.state == PASSED else "31;1")


def opening(plan: CompiledPlan, found: Answer, paint: Paint) -> list[str]:
    """The verdict, what limits the plan, its three figures; then what does not fit, and what would fix it."""
    limits, more = ([f"  {line}" for line in lines] for lines in (found.limits, plan.overflow))
    return [verdict_line(found, paint), *limits, *figures_line(found, paint), *more]


def figures_line(found: Answer, paint: Paint) -> list[str]:
    """`TTFT 107.6 ms (<= 10 s)   TPOT 4.649 ms   ...`, no figure apart from its name."""
    said = (f"{one.name} {paint.bold(one.value)}{_asked(one, paint)}".replace(" ", TIED) for one in found.figures)
    return [f"  {'   '.join(said)}"] if found.figures else []


def _asked(one: Figure, paint: Paint) -> str:
    if not one.required:
        return ""
    return f" ({one.required if one.holds else paint(f'not {one.required}', '31;1')})"


def requirement_lines(judged: Sequence[Verdict], paint: Paint) -> list[str]:
    """Aligned: whether it holds, what is asked for, what was found and is required, by how much."""
    rows = [(v, f"{v.shown(v.value)} {v.requirement.test.op} {v.shown(v.bound)}") for v in judged]
    sides = max((len(words) for _, words in rows), default=0)
    by = max((len(v.by) for v in judged), default=0)
    longest = max((len(v.requirement.label) for v in judged), default=0)
    beside = paint.width >= MARK + min(longest, LABEL) + 2 + sides + 2 + by
    room = paint.width - MARK - 2 - sides - (2 + by if beside else 0)
    room = min(longest, max(SHORTEST, room))
    lines = []
    for v, words in rows:
        label = shorten(v.requirement.label, room, placeholder="...")
        line = f"  {paint.verdict(v.passed)}  {label:<{room}}  {words}"
        lines.append(f"{line:<{len(line) + sides - len(words)}}  {v.by}" if beside else line)
        if not beside and not v.passed and v.by:
            lines.append(f"{'':{MARK}}{v.by}")
    return lines


MARK = 8
"""Columns before the label of a requirement."""
LABEL, SHORTEST = 44, 24
"""Columns that a label gets before what follows it, and at least."""
