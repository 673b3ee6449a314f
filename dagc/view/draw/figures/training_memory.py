"""What the GPUs of a pipeline hold in a training step: as bars at the fullest moment, and over the step."""

from __future__ import annotations

from ....base.units import BYTES, TIME, show
from ....cost.training.step_memory import TrainingMemory
from ....plan.trained import TrainingResult
from ...facts.held_over_step import HeldOverStep, check_cells, held_over_step
from ...facts.training_words import HELD_BANDS, part_B, stages_alike, stages_text
from ..dot import identifier
from .markup import Markup, tag
from .memory import BAR, LABEL, RIGHT, ROW, bar
from .plot import Axis, Panel, linear
from .svg import Figure, Keys, figure, line, moment_text, rect, ticks, title, words

BANDS = tuple((f"p{hue}", name, parts) for hue, name, parts in HELD_BANDS)
"""Colour, words and parts of each, from below."""
WIDTH, HEIGHT, GAP, LEFT, TOP = 860, 104, 34, 70, 26
MOST_STAGES = 8
LOW = 0.4
"""Below this share of the capacity the axis ends at the peak."""


def bars(result: TrainingResult) -> Figure:
    """At the fullest moment, a bar for neighbours that hold alike."""
    rows = list(stages_alike(result))
    capacity_B = result.worst.capacity_B
    scale = max(capacity_B, *(need.peak_B for need in result.memory))
    edge = LABEL + BAR * capacity_B / scale
    body = [words(LABEL, 12, "0", "soft"), words(edge, 12, f"capacity {show(capacity_B, BYTES, 3)}", "soft end")]
    for k, (stages, need) in enumerate(rows):
        name = f"stage {stages_text(stages)}" if len(result.memory) > 1 else "every GPU"
        parts = [(cls, words_, _band_B(need, own)) for cls, words_, own in BANDS]
        key = identifier(result.name, "memory", stages[0])
        body += bar(key, 20.0 + ROW * k, name, parts, scale, f"{need.peak_B / need.capacity_B:.1%}")
    bottom = 20 + ROW * len(rows)
    body.append(line(edge, 16, edge, bottom - 6, "limit"))
    label = f"memory per GPU of {result.name}, by stage: {show(result.worst.peak_B, BYTES, 3)} of {show(capacity_B, BYTES, 3)} at most"
    return figure("memory", LABEL + BAR + RIGHT, bottom + 4, label, *body)


def over_step(result: TrainingResult) -> Figure:
    """A panel per stage. Raises SpecError where the step has too many cells."""
    check_cells(result, "the memory over the step")
    count = len(result.memory)
    shown = list(range(count)) if count <= MOST_STAGES else [*range(MOST_STAGES - 1), count - 1]
    across = Axis(0.0, result.time_s, tuple(ticks(result.time_s, 9)), moment_text)
    capacity_B = result.worst.capacity_B
    peak_B = result.worst.peak_B
    high_B = max(peak_B, capacity_B) if shows_capacity(result) else peak_B
    up = linear(high_B * 1.02, lambda size_B: show(size_B, BYTES, 3) if size_B else "0", 4)
    body: list[Markup] = []
    y = float(TOP)
    for k, stage in enumerate(shown):
        last = k == len(shown) - 1
        panel = Panel(LEFT, y, WIDTH, HEIGHT, across, up)
        body += _panel(result, held_over_step(result, stage), panel, last=last)
        y += HEIGHT + GAP
    if len(shown) < count:
        body.append(
            words(
                LEFT,
                y + 22,
                f"{len(shown)} of {count} stages are drawn: the first {len(shown) - 1} and the last",
                "soft",
            )
        )
        y += 20
    label = f"memory of {result.name} over a step of {show(result.time_s, TIME)}: {show(peak_B, BYTES, 3)} of {show(capacity_B, BYTES, 3)} at most"
    return figure("memory-over-step", LEFT + WIDTH + 20, y + 14, label, *body)


def shows_capacity(result: TrainingResult) -> bool:
    """Whether the axis goes up to the capacity of a GPU."""
    return result.fraction >= LOW


def keys(result: TrainingResult) -> Keys:
    """What the colours mean; of no part that no GPU holds."""
    return [(cls, name) for cls, name, own in BANDS if any(_band_B(need, own) > 0 for need in result.memory)]


def _band_B(need: TrainingMemory, parts: tuple[str, ...]) -> float:
    return sum(part_B(need, part) for part in parts)


def _panel(result: TrainingResult, held: HeldOverStep, panel: Panel, *, last: bool) -> list[Markup]:
    need = result.memory[held.stage]
    share = f"{need.peak_B / need.capacity_B:.1%}"
    flying = f"{need.in_flight:.3g} micro-batch{'es' if need.in_flight > 1 else ''} in flight"
    name = f"stage {held.stage}: " if len(result.memory) > 1 else ""
    head = f"{name}{show(need.peak_B, BYTES, 3)} of {show(need.capacity_B, BYTES, 3)} ({share}), {flying}"
    out: list[Markup] = []
    left, right = panel.point(0.0, 0.0)[0], panel.point(result.time_s, 0.0)[0]
    below_B = 0.0
    for cls, words_, own in BANDS[:-1]:
        size_B = _band_B(need, own)
        if size_B > 0:
            top, bottom = panel.point(0.0, below_B + size_B)[1], panel.point(0.0, below_B)[1]
            hint = title(f"stage {held.stage}, {words_}: {show(size_B, BYTES, 4)}")
            out.append(rect(left, top, right - left, bottom - top, cls, hint))
            below_B += size_B
    out.append(_activations(held, panel, below_B))
    out += panel.frame(head, numbers=last, bottom="time in the step" if last else "")
    out += panel.upright(result.steps.makespan_s, "edge thin")
    if shows_capacity(result):
        out += panel.level(need.capacity_B, "limit")
    return out


def _activations(held: HeldOverStep, panel: Panel, below_B: float) -> Markup:
    """A staircase on what is always there."""
    (first_s, _), *_ = held.points
    x, floor = panel.point(first_s, below_B)
    path = [f"M{x:.1f} {floor:.1f}"]
    for moment_s, size_B in held.points:
        x, y = panel.point(moment_s, below_B + size_B)
        path.append(f"H{x:.1f}V{y:.1f}")
    hint = title(f"stage {held.stage}, activations: {show(held.most_B, BYTES, 4)} at most")
    return tag("path", hint, d="".join([*path, f"V{floor:.1f}Z"]), cls="p2")
