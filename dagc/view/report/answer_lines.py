"""The answer of a plan on a terminal: the lines that a report begins with."""

from __future__ import annotations

from ...plan.plan import CompiledPlan
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
