"""The report of a plan as a file. `buys` gives what faster hardware would buy: nothing is costed here."""

from __future__ import annotations

from collections.abc import Callable

from ..base.picture_words import Theme
from ..plan.plan import CompiledPlan
from ..plan.result import Sensitivities
from ..view.report import markdown as markdown_
from ..view.report.terminal import report

Buys = Callable[[], Sensitivities]


def html(plan: CompiledPlan, *, buys: Buys, theme: Theme = "auto") -> dict[str, bytes]:
    from ..view.report.page.page import page

    return {"html": page(plan, buys(), theme).encode()}


def markdown(plan: CompiledPlan, *, buys: Buys) -> dict[str, bytes]:
    return {"md": markdown_.markdown(plan, buys()).encode()}


def text(plan: CompiledPlan, *, buys: Buys) -> dict[str, bytes]:
    return {"txt": report(plan, buys()).encode()}
