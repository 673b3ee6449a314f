"""A stretch of the run, step by step: a lane for each worker, or each of its ranks."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

from .....base.units import TIME, show
from .....serving.records import Stretch
from .....serving.result import ServeResult
from ..looks import SMALL
from ..markup import Markup, width
from ..svg import Figure, Keys, figure, line, moment_text, rect, ticks, title, words

LABEL, BAR, ROW, HIGH, TOP = 120, 800, 40, 28, 26
MOST_LANES = 16
STRETCHES = 60
"""About as many of each lane are drawn, from the middle of those that were recorded."""
PROMPTS, MIXED, DECODE = ("s1", "prompts"), ("s3", "prompts and decode"), ("s0", "decode")


def draw(result: ServeResult) -> Figure:
    """Each box is a step, or equal decode steps one after the other; the lighter the background, the idler the worker."""
    lanes = _lanes(result.outcome.steps)
    if not lanes:
        return figure("step-lanes", LABEL + BAR + 30, 40, "no steps", words(0, 20, "no step was recorded", "soft"))
    shown = dict(list(lanes.items())[:MOST_LANES])
    start, end = window(result)
    moments = _moments(start, end)
    height = TOP + ROW * len(shown) + 8
    body: list[Markup] = []
    for moment in moments:
        x = LABEL + (moment - start) / (end - start) * BAR
        body += [
            line(x, TOP - 6, x, height - 8, "grid"),
            words(x, TOP - 11, moment_text(moment, moments[-1] - moments[-2]), "soft mid"),
        ]
    for k, (lane, steps) in enumerate(shown.items()):
        y = TOP + ROW * k
        body += [words(0, y + 18, _name(result, *lane), "strong", room=LABEL - 8), rect(LABEL, y, BAR, HIGH, "trough")]
        body += [box for s in steps if s.end_s > start and s.start_s < end for box in _box(s, y, start, end)]
    if len(lanes) > len(shown):
        body.append(words(0, height + 8, f"{len(shown)} of {len(lanes)} lanes are drawn", "soft"))
        height += 18
    label = f"steps of {result.name} from {show(start, TIME)} to {show(end, TIME)}"
    return figure("step-lanes", LABEL + BAR + 30, height + 4, label, *body)


def _moments(start_s: float, end_s: float) -> list[float]:
    """Round ones between, two at least."""
    step = ticks(end_s - start_s, 7)[1]
    return [k * step for k in range(ceil(start_s / step), floor(end_s / step) + 1)]


def keys(result: ServeResult) -> Keys:
    """Kinds of steps that are drawn."""
    start, end = window(result)
    kinds = {_kind(s) for s in result.outcome.steps if s.end_s > start and s.start_s < end}
    return [kind for kind in (PROMPTS, MIXED, DECODE) if kind in kinds]


def window(result: ServeResult) -> tuple[float, float]:
    """What is drawn: from the middle of the recorded stretches on."""
    steps = result.outcome.steps
    if not steps:
        return 0.0, 1.0
    count = STRETCHES * min(MOST_LANES, len(_lanes(steps)))
    first = max(0, min(len(steps) // 2, len(steps) - count))
    chosen = steps[first : first + count]
    return chosen[0].start_s, max(s.end_s for s in chosen)


def _lanes(steps: Sequence[Stretch]) -> dict[tuple[int, int], list[Stretch]]:
    found: dict[tuple[int, int], list[Stretch]] = {}
    for s in steps:
        found.setdefault((s.worker, s.rank), []).append(s)
    return dict(sorted(found.items()))


def _kind(s: Stretch) -> tuple[str, str]:
    return DECODE if not s.prompt else MIXED if s.sequences else PROMPTS


def _name(result: ServeResult, worker: int, rank: int) -> str:
    number = worker
    for workers in result.setup.workers:
        if number < workers.count:
            role = "worker" if workers.role == "both" else workers.role
            return f"{role} {number}" + (f", rank {rank}" if rank >= 0 else "")
        number -= workers.count
    return f"worker {worker}"


def _box(s: Stretch, y: float, start: float, end: float) -> list[Markup]:
    """A box with what is in the step, and a line where each of several equal steps ends."""
    a, b = max(s.start_s, start), min(s.end_s, end)
    x, w = LABEL + (a - start) / (end - start) * BAR, (b - a) / (end - start) * BAR
    cls, kind = _kind(s)
    parts = [f"{s.sequences:,} in decode"] if s.sequences else []
    parts += [f"{s.prompt:,} tok of prompts"] if s.prompt else []
    times = f"{s.steps:,} steps, " if s.steps > 1 else ""
    hint = f"{kind}: {', '.join(parts)}; {times}{show(s.start_s, TIME, 6)} to {show(s.end_s, TIME, 6)}"
    out = [rect(x, y, max(w, 0.6), HIGH, f"step {cls}", title(hint))]
    text = f"{s.sequences}" if not s.prompt else f"{s.prompt}" if not s.sequences else f"{s.sequences}+{s.prompt}"
    if width(text, SMALL) < w - 4:
        out.append(words(x + w / 2, y + HIGH / 2 + 4, text, "on-s mid"))
    return out
