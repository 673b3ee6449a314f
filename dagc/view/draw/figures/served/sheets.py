"""Pictures of a serving as SVG files of their own."""

from __future__ import annotations

from collections.abc import Callable

from .....base.picture_words import Theme
from .....plan.plan import CompiledPlan
from .....serving.knee import Knee, load_kind
from .....serving.result import ServeResult
from ....facts import served_words as said
from ..sheet import Sheet
from ..standalone import document
from ..svg import moment_text
from . import latencies, load_curve, over_time, step_lanes


def _latencies(result: ServeResult) -> Sheet:
    heading = f"{result.name}: how the times of {result.finished:,} requests are spread"
    return Sheet([heading, said.verdict_text(result)], latencies.draw(result), latencies.keys(result))


def _over_time(result: ServeResult) -> Sheet:
    heading = f"{result.name}: queue, batch and cache over time"
    return Sheet([heading, said.verdict_text(result)], over_time.draw(result), over_time.keys(result))


def _steps(result: ServeResult) -> Sheet:
    start, end = step_lanes.window(result)
    heading = [
        f"{result.name}: steps from {moment_text(start)} to {moment_text(end)}",
        "numbers: sequences in decode + tokens of prompts",
    ]
    return Sheet(heading, step_lanes.draw(result), step_lanes.keys(result))


VIEWS: dict[str, Callable[[ServeResult], Sheet]] = {"latencies": _latencies, "series": _over_time, "steps": _steps}
"""View -> what is on it."""
LOAD = "load"
"""The view that needs runs at several loads."""


def svg(plan: CompiledPlan, result: ServeResult, view: str, theme: Theme = "auto") -> str:
    """An SVG document. ValueError when there is no such view."""
    if view not in VIEWS:
        raise ValueError(f"no view {view!r} of a serving: {', '.join((*VIEWS, LOAD))}")
    return _document(plan, VIEWS[view](result), theme)


def load_svg(plan: CompiledPlan, knee: Knee, theme: Theme = "auto") -> str:
    """Times and throughput against the load."""
    name = knee.points[0].result.name
    at = knee.at
    kind, _ = load_kind(knee.points[0].result.arrivals)
    held = f"the knee is at {said.load_text(kind, at.load)}" if at is not None else "no load keeps every requirement"
    after = (
        f"; what breaks first is {knee.above.broken[0]}, at {said.load_text(kind, knee.above.load)}"
        if knee.above is not None
        else ""
    )
    heading = [f"{name}: times against the load", held + after]
    return _document(plan, Sheet(heading, load_curve.draw(knee), load_curve.keys(knee)), theme)


def _document(plan: CompiledPlan, sheet: Sheet, theme: Theme) -> str:
    return document(sheet, (*plan.titles, f"{plan.spec.model.name}, {sheet.heading[0]}"), theme)
