"""What a notebook shows of a plan: its answer, requirements and a row per phase in the notebook's own colours, then pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ...plan.plan import CompiledPlan
from ..draw.figures.markup import Markup, join, tag
from ..draw.figures.standalone import svg
from ..facts.findings import binding
from ..facts.plan_answer import Answer, answer
from . import headline

LEFT = "text-align:left"
SCROLLS = "max-width:100%;overflow-x:auto"
PICTURES = ("overview", "map")
STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)
OPEN = 2
"""So many phases have their pictures unfolded."""


def fragment(plan: CompiledPlan) -> str:
    """An HTML fragment without a script; styles are on the elements, since a notebook keeps no others."""
    found = answer(plan)
    return tag(
        "div",
        tag("p", tag("b", plan.spec.model.name), ": ", tag("b", found.verdict)),
        join(tag("p", line) for line in found.limits),
        _figures(found),
        join(tag("p", line) for line in plan.overflow),
        _requirements(found),
        _phases(plan),
        _trainings(plan),
        _servings(plan),
        join(tag("p", tag("b", f"{name}: "), binding(result)) for name, result in plan.phases.items()),
        join(_pictures(plan)),
        cls="dagc-plan",
    )


def _pictures(plan: CompiledPlan) -> Iterator[Markup]:
    """Of each phase. They have paper of their own, so the light theme is read on a dark screen, too; a style of theirs would be the notebook's."""
    for number, phase in enumerate(plan.phases):
        drawn = [Markup(STYLE.sub("", svg(plan, phase, view, theme="light"))) for view in PICTURES]
        shown = join(tag("div", one, style=SCROLLS) for one in drawn)
        yield tag("details", tag("summary", f"{phase}: {' and '.join(PICTURES)}"), shown, open=number < OPEN)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    top = tag("tr", join(tag("th", h, style=LEFT) for h in head))
    return tag("table", top, join(tag("tr", join(tag("td", c, style=LEFT) for c in row)) for row in rows))


def _phases(plan: CompiledPlan) -> Markup:
    return _table(*headline.summary(plan)) if plan.phases else Markup("")


def _trainings(plan: CompiledPlan) -> Markup:
    """A row for each, and the step of each in a sentence."""
    if not plan.trainings:
        return Markup("")
    from ..facts.training_words import step_text
    from .training_tables import summary

    said = join(tag("p", tag("b", f"{name}: "), step_text(one)) for name, one in plan.trainings.items())
    return join([_table(*summary(plan)), said])


def _servings(plan: CompiledPlan) -> Markup:
    """Those that were simulated."""
    if not plan.servings:
        return Markup("")
    from .served_report import summary

    return _table(*summary(plan))


def _figures(found: Answer) -> Markup:
    if not found.figures:
        return Markup("")
    return _table([one.name for one in found.figures], [[tag("b", one.value) for one in found.figures]])


def _requirements(found: Answer) -> Markup:
    if not found.requirements:
        return Markup("")
    rows: list[list[object]] = [
        [
            "✓" if v.passed else tag("b", "✗ FAIL"),
            v.requirement.label,
            v.shown(v.value),
            f"{v.requirement.test.op} {v.shown(v.bound)}",
            v.by,
        ]
        for v in found.requirements
    ]
    body = _table(["", "requirement", "found", "required", "by"], rows)
    return tag("details", tag("summary", f"{len(rows)} requirements"), body, open=bool(found.failing))
