"""What a notebook shows of a plan: verdicts and a row per phase, in the notebook's own colours."""

from __future__ import annotations

from collections.abc import Sequence

from ...plan.plan import CompiledPlan
from ..draw.figures.markup import Markup, join, tag
from ..facts.findings import binding
from . import headline

LEFT = "text-align:left"


def fragment(plan: CompiledPlan) -> str:
    """An HTML fragment without a script; styles are on the elements, since a notebook keeps no others."""
    return tag(
        "div",
        join(tag("p", tag("b", line) if line in plan.titles else line) for line in plan.overflow),
        tag("p", tag("b", plan.spec.model.name), f": {plan.verdict}"),
        _phases(plan),
        _servings(plan),
        join(tag("p", tag("b", f"{name}: "), binding(result)) for name, result in plan.phases.items()),
        _requirements(plan),
        cls="dagc-plan",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    top = tag("tr", join(tag("th", h, style=LEFT) for h in head))
    return tag("table", top, join(tag("tr", join(tag("td", c, style=LEFT) for c in row)) for row in rows))


def _phases(plan: CompiledPlan) -> Markup:
    return _table(*headline.summary(plan))


def _servings(plan: CompiledPlan) -> Markup:
    """Those that were simulated."""
    if not plan.servings:
        return Markup("")
    from .served_report import summary

    return _table(*summary(plan))


def _requirements(plan: CompiledPlan) -> Markup:
    if not plan.requirements:
        return Markup("")
    rows: list[list[object]] = [
        [
            "✓" if v.passed else tag("b", "✗ FAIL"),
            v.requirement.label,
            v.shown(v.value),
            f"{v.requirement.test.op} {v.shown(v.bound)}",
        ]
        for v in plan.requirements
    ]
    body = _table(["", "requirement", "found", "required"], rows)
    return tag("details", tag("summary", f"{len(rows)} requirements"), body, open=not plan.passed)
