"""The critical path as a waterfall: each op where those before it on the path have ended, all executions of an op added up."""

from __future__ import annotations

from ....base.units import TIME, show
from ....cost.schedule.records import PathStep
from ....plan.result import PhaseResult
from ...facts.findings import WORDS, step_name
from ..dot import identifier
from .markup import Markup
from .svg import Figure, Keys, figure, line, moment_text, rect, ticks, title, words

LABEL, BAR, RIGHT, ROW = 290, 660, 140, 20
TINY = 0.004
"""Neighbours with less than this share each are one row."""
LARGE = 0.1
TOP = 24


def draw(result: PhaseResult) -> Figure:
    """One row per op of the path, coloured by what limits it."""
    total = sum(s.time_s for s in result.path) or 1.0
    rows = _rows([s for s in result.path if s.time_s], total)
    height = TOP + ROW * len(rows) + 6
    body = scale(total, height)
    done = 0.0
    for k, steps in enumerate(rows):
        y = TOP + ROW * k
        time = sum(s.time_s for s in steps)
        name = _name(steps)
        look = "soft" if len(steps) > 1 else "strong" if time >= LARGE * total else ""
        x, w = LABEL + done / total * BAR, max(0.8, time / total * BAR)
        key = identifier(result.name, "path", k, steps[0].segment, steps[0].op)
        colour = "mixed" if _mixed(steps) else steps[0].bound
        bar = rect(x, y + 2, w, ROW - 5, f"b-{colour}", title(_hint(steps, total)), id=key)
        body += [words(0, y + 13, name, look, room=LABEL - 10, size=12), bar]
        body.append(words(LABEL + BAR + 8, y + 13, f"{show(time, TIME, 3)}, {time / total:.1%}", look))
        done += time
    label = f"critical path of {result.name}: {len(result.path)} ops in {show(total, TIME)}"
    return figure("waterfall critical-path", LABEL + BAR + RIGHT, height, label, *body)


def scale(total: float, height: float) -> list[Markup]:
    """Moments over the bars, up to `total` seconds."""
    body: list[Markup] = []
    for moment in ticks(total):
        x = LABEL + moment / total * BAR
        body += [line(x, TOP - 6, x, height - 4, "grid"), words(x, TOP - 10, moment_text(moment), "soft mid")]
    return body


def keys(result: PhaseResult) -> Keys:
    """What the colours mean, with the share of each bound."""
    total = sum(s.time_s for s in result.path) or 1.0
    rows = _rows([s for s in result.path if s.time_s], total)
    shares = [(f"b-{b}", f"{WORDS[b]} {result.bound_by[b]:.0%}") for b in WORDS if b in result.bound_by]
    return [*shares, *([("b-mixed", "several small ops")] if any(_mixed(r) for r in rows) else [])]


def _mixed(steps: list[PathStep]) -> bool:
    return len({s.bound for s in steps}) > 1


def _rows(path: list[PathStep], total: float) -> list[list[PathStep]]:
    rows: list[list[PathStep]] = []
    for step in path:
        small = step.time_s < TINY * total
        if rows and small and all(s.time_s < TINY * total for s in rows[-1]):
            rows[-1].append(step)
        else:
            rows.append([step])
    return rows


def _name(steps: list[PathStep]) -> str:
    if len(steps) > 1:
        return f"{len(steps)} small ops, {step_name(steps[0])} ..."
    times = f"  × {steps[0].count}" if steps[0].count > 1 else ""
    return f"{step_name(steps[0])}{times}"


def _hint(steps: list[PathStep], total: float) -> str:
    return "; ".join(
        f"{step_name(s)}: {s.kind}, {s.count} times, {show(s.time_s, TIME)} ({s.time_s / total:.1%}), bound by {s.bound}"
        for s in steps[:8]
    ) + (f"; and {len(steps) - 8} more" if len(steps) > 8 else "")
