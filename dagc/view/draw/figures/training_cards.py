"""The stages of a training step as cards: layers, the time of each cell, where the step goes, collectives by cell, and memory."""

from __future__ import annotations

import itertools
from collections import Counter

from ....base.frozen import record
from ....base.units import BYTES, TIME, show, show_runs
from ....cost.records import Transfer
from ....ir.op import CELLS as GRAPH_CELLS
from ....plan.step_totals import CellCollectives, cell_name, largest_hop, layers_on, shares, step_collectives
from ....plan.trained import TrainingResult
from ...facts.gpu_map import Held, held_by_seat
from ..dot import COLORS, identifier
from .looks import SMALL
from .markup import BOLD, Markup, fit, join, tag, width, wrapped
from .svg import Figure, Keys, figure, rect, title, words

CARD, PAD, LINE, BAR, DOWN, ACROSS = 470.0, 12.0, 17.0, 9.0, 44.0, 150.0
MOST_CARDS = 16
CELLS = (("forward", "t-f0"), ("backward", "t-b0"), ("input", "t-i0"), ("weight", "t-w0"))
"""Names of what a pipeline runs in one go, and their colours in its chart."""


@record
class StageCard:
    """`heads`: bold lines, `top`: those below them; `cells`: (colour, words); `moved`: of each cell its collectives, (kind, words) in lines."""

    stage: int
    name: str
    heads: tuple[str, ...]
    top: tuple[str, ...]
    cells: tuple[tuple[str, str], ...]
    moved: tuple[tuple[tuple[str, str], ...], ...]
    held: Held

    @property
    def height(self) -> float:
        return (
            2 * PAD + LINE * (len(self.heads) + len(self.top) + 2 + len(self.moved)) + BAR + 6 + 13 * len(self.contents)
        )

    @property
    def contents(self) -> list[str]:
        """What the bar holds, in one or two lines."""
        said = ", ".join(f"{name} {show(size_B, BYTES, 3)}" for _, name, size_B in self.held.bands if size_B > 0)
        return wrapped(said, CARD - 2 * PAD, SMALL, 2)


def shown_stages(result: TrainingResult) -> list[int]:
    """Of a long pipeline the first ones and the last."""
    count = result.steps.schedule.gpus
    return list(range(count)) if count <= MOST_CARDS else [*range(MOST_CARDS - 1), count - 1]


def stage_card(result: TrainingResult, stage: int) -> StageCard:
    layers = ", ".join(name if count == 1 else f"{count} × {name}" for name, count in layers_on(result, stage).items())
    gpus = sorted(result.graph.stages[stage].gpus)
    pool = f" of {result.hardware}" if result.hardware else ""
    part, step_s = shares(result, stage), result.time_s
    goes = [f"{what} {time_s / step_s:.0%}" for what, time_s in (
        ("computes", part.compute_s), ("moves data alone", part.exposed_s), ("waits", part.bubble_s), ("new weights", part.update_s),
    )]  # fmt: skip
    chunks = sorted(virtual for (gpu, _), (_, virtual) in result.steps.schedule.stage_at.items() if gpu == stage)
    parts = f" (parts {', '.join(map(str, chunks))} of the model)" if len(chunks) > 1 else ""
    heads = tuple(wrapped(f"stage {stage}: {layers}", (CARD - 2 * PAD) / BOLD, 12, 3))
    top = (f"GPU {show_runs(gpus, most=6)}{pool}{parts}", f"of a step: {', '.join(goes)}")
    times = tuple(
        (look, f"{cell} {show(time_s, TIME, 3)}")
        for cell, look in CELLS
        if cell in ran(result)
        and (time_s := sum(result.staged[k, cell].time_s for k in chunks if (k, cell) in result.staged))
    )
    found = Counter[tuple[str, str, str]]()
    for one in (one for one in step_collectives(result, stage) if one.total.kind != "recv"):
        found[one.cell, one.total.kind, _group(one)] += one.total.count
    moved: list[tuple[tuple[str, str], ...]] = []
    for cell in (name for name in map(cell_name, GRAPH_CELLS) if any(name == c for c, _, _ in found)):
        chips = [(kind, f"{n:,} {kind}({over})") for (c, kind, over), n in found.items() if c == cell]
        moved += _lines(f"{cell}:", chips)
    held = list(held_by_seat(result))[stage]
    return StageCard(stage, f"stage {stage}", heads, top, times, tuple(moved), held)


def ran(result: TrainingResult) -> tuple[str, ...]:
    """What the pipeline runs in one go."""
    return ("forward", "input", "weight") if result.steps.times.backward_s is None else ("forward", "backward")


def _group(one: CellCollectives) -> str:
    return "+".join(one.total.axes)


def _lines(head: str, chips: list[tuple[str, str]]) -> list[tuple[tuple[str, str], ...]]:
    lines: list[list[tuple[str, str]]] = [[("", head)]]
    x = width(head, 12) + 8
    for chip in chips:
        need = width(chip[1], 12) + 28
        if x + need > CARD - 2 * PAD:
            lines.append([])
            x = 16.0
        lines[-1].append(chip)
        x += need
    return [tuple(line) for line in lines]


def draw(result: TrainingResult) -> Figure:
    """A few stages one below the other, many in rows."""
    shown = [stage_card(result, stage) for stage in shown_stages(result)]
    across = 1 if len(shown) <= 3 else 2 if len(shown) <= 8 else 4
    body: list[Markup] = []
    places: list[tuple[float, float, float]] = []
    y = 0.0
    for start in range(0, len(shown), across):
        row = shown[start : start + across]
        high = max(card.height for card in row)
        places += [(k * (CARD + ACROSS), y, high) for k in range(len(row))]
        y += high + DOWN
    body += [_card(result, card, place) for card, place in zip(shown, places, strict=True)]
    for (a, source), (b, target) in itertools.pairwise(zip(shown, places, strict=True)):
        body.append(_sends(result, a, b, largest_hop(result, a.stage, a.stage + 1), source, target))
    wide = CARD + (min(across, len(shown)) - 1) * (CARD + ACROSS)
    return figure("overview", wide + 2, y - DOWN + 2, f"{len(result.graph.stages)} stages of {result.name}", *body)


def _card(result: TrainingResult, card: StageCard, place: tuple[float, float, float]) -> Markup:
    x, y, high = place
    room, held = CARD - 2 * PAD, card.held
    peak = f"{show(held.peak_B, BYTES, 3)} of {show(held.capacity_B, BYTES, 3)} per GPU ({held.peak_B / held.capacity_B:.1%})"
    parts: list[Markup] = [rect(x, y, CARD, high, "box", rx=8)]
    at = y + PAD
    lines = [*((text, "strong") for text in card.heads), *((fit(text, room, 12), "") for text in card.top)]
    for text, look in lines:
        parts.append(words(x + PAD, at + 11, text, look))
        at += LINE
    parts += _chips((("", "a micro-batch:"), *card.cells), x + PAD, at)
    at += LINE
    for line in card.moved:
        parts += _chips(tuple((f"k-{kind}" if kind else "", text) for kind, text in line), x + PAD, at)
        at += LINE
    parts += [words(x + PAD, at + 11, fit(peak, room, 12)), *_bar(held, x + PAD, at + LINE)]
    at += LINE + BAR + 6
    parts += [words(x + PAD, at + 11 + 13 * k, said, "small") for k, said in enumerate(card.contents)]
    hint = "; ".join([" ".join(card.heads), *card.top, peak, *card.contents])
    return tag("g", title(hint), join(parts), id=identifier(result.name, card.name), cls="node")


def _chips(line: tuple[tuple[str, str], ...], x: float, y: float) -> list[Markup]:
    out = []
    x += 0.0 if line and not line[0][0] else 16.0
    for look, text in line:
        if look:
            out.append(rect(x, y + 2, 10, 10, look))
            x += 14
        out.append(words(x, y + 11, text))
        x += width(text, 12) + (14 if look else 8)
    return out


def _bar(held: Held, x: float, y: float) -> list[Markup]:
    room = CARD - 2 * PAD
    out = [rect(x, y, room, BAR, "trough")]
    scale = room / max(held.capacity_B, held.peak_B)
    for hue, _, size_B in held.bands:
        if size_B > 0:
            out.append(rect(x, y, max(1.0, size_B * scale), BAR, f"p{hue}"))
            x += max(1.0, size_B * scale)
    return out


def _sends(
    result: TrainingResult, a: StageCard, b: StageCard, hop: tuple[Transfer, Transfer], source: tuple[float, float, float], target: tuple[float, float, float]
) -> Markup:  # fmt: skip
    """Between two cards: activations there, gradients back."""
    missing = b.stage - a.stage - 1
    edge, back = hop
    same = edge.payload_B == back.payload_B
    said = [f"{show(edge.payload_B, BYTES, 3)} {'each way' if same else 'there'}", show(edge.time_s, TIME, 3)]
    said += [] if same else [f"{show(back.payload_B, BYTES, 3)} back"]
    said += [f"{missing} more stages"] if missing else []
    key = identifier(result.name, a.name, "to", b.name)
    if source[1] == target[1]:
        left, right, m = source[0] + CARD, target[0], source[1] + source[2] / 2
        path = f"M{left + 7:.0f} {m:.0f}H{right - 7:.0f}"
        points = [
            f"M{right - 8:.0f} {m - 4:.0f}L{right:.0f} {m:.0f}L{right - 8:.0f} {m + 4:.0f}z",
            f"M{left + 8:.0f} {m - 4:.0f}L{left:.0f} {m:.0f}L{left + 8:.0f} {m + 4:.0f}z",
        ]
        texts = [
            words((left + right) / 2, m - 10 + 28 * min(k, 1) + 13 * max(0, k - 1), t, "soft small mid")
            for k, t in enumerate(said)
        ]
    else:
        left, right, low, v = source[0] + CARD / 2, target[0] + CARD / 2, source[1] + source[2], target[1]
        bend = "" if left == right else f"V{low + DOWN / 2:.0f}H{right:.0f}"
        path = f"M{left:.0f} {low + 7:.0f}{bend}V{v - 7:.0f}"
        points = [
            f"M{right - 4:.0f} {v - 8:.0f}L{right:.0f} {v:.0f}L{right + 4:.0f} {v - 8:.0f}z",
            f"M{left - 4:.0f} {low + 8:.0f}L{left:.0f} {low:.0f}L{left + 4:.0f} {low + 8:.0f}z",
        ]
        texts = [words(left + 10, low + (DOWN / 2 + 4 if left == right else 14), ", ".join(said), "soft small")]
    arrow = [tag("path", d=path, cls="edge sent"), *(tag("path", d=point, cls="k-send") for point in points)]
    return tag("g", title(", ".join(said)), join([*arrow, *texts]), id=key)


def keys(result: TrainingResult) -> Keys:
    """Cells, collectives, and parts of the memory that are held."""
    cells = [(look, name) for name, look in CELLS if name in ran(result)]
    kinds = {one.total.kind for stage in shown_stages(result) for one in step_collectives(result, stage)}
    columns = zip(*(held.bands for held in held_by_seat(result)), strict=True)
    held = [(f"p{same[0][0]}", same[0][1]) for same in columns if max(size_B for _, _, size_B in same) > 0]
    return [*cells, *((f"k-{k}", f"{k}, calls in a step") for k in COLORS if k in kinds), *held]
