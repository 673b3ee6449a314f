"""What a GPU of each class holds, as stacked bars against its capacity."""

from __future__ import annotations

from ....base.units import BYTES, show
from ....plan.result import PhaseResult
from ..dot import identifier
from ..overview import MAX_CARDS, PARTS, cards, name_of, sizes
from .markup import Markup
from .svg import Figure, Keys, figure, line, rect, title, words

LABEL, BAR, RIGHT, ROW = 96, 840, 150, 30
SMALL = 0.25
"""Below this share of the capacity a second scale shows the parts."""


def draw(result: PhaseResult) -> Figure:
    """One row per class of GPUs."""
    rows = cards(result)[:MAX_CARDS]
    capacity = result.memory.capacity_B
    peak = max(result.memory.stages[card[0]].peak_B for card in rows)
    scale = capacity if peak <= capacity else peak
    label = f"memory per GPU of {result.name}, by stage: {show(peak, BYTES, 3)} of {show(capacity, BYTES, 3)} at most"
    body = [
        words(LABEL, 12, "0", "soft"),
        words(LABEL + BAR * capacity / scale, 12, f"capacity {show(capacity, BYTES, 3)}", "soft end"),
    ]
    y = 20.0
    for card in rows:
        parts = sizes(result.memory.stages[card[0]])
        body += _bar(
            identifier(result.name, "memory", name_of(result, card)),
            y,
            name_of(result, card),
            parts,
            scale,
            f"{sum(parts) / capacity:.1%}",
        )
        y += ROW
    if peak < SMALL * capacity:
        y += 18
        body += [words(LABEL, y - 6, f"the same bars, {capacity / peak:.0f} times as wide", "soft")]
        for card in rows:
            key = identifier(result.name, "memory", name_of(result, card), "wide")
            body += _bar(key, y, name_of(result, card), sizes(result.memory.stages[card[0]]), peak, "")
            y += ROW
    body.append(
        line(LABEL + BAR * capacity / scale, 16, LABEL + BAR * capacity / scale, 20 + ROW * len(rows) - 6, "limit")
    )
    return figure("memory", LABEL + BAR + RIGHT, y + 4, label, *body)


def keys(result: PhaseResult) -> Keys:
    """What the colours mean; of no part that no GPU holds."""
    largest = [max(column) for column in zip(*(sizes(s) for s in result.memory.stages), strict=True)]
    return [(f"p{k}", name) for k, ((name, _), size) in enumerate(zip(PARTS, largest, strict=True)) if size > 0]


def _bar(key: str, y: float, name: str, parts: tuple[float, ...], scale: float, share: str) -> list[Markup]:
    out = [words(0, y + 15, name, room=LABEL - 6, size=12), rect(LABEL, y, BAR, ROW - 8, "trough")]
    x = float(LABEL)
    for k, (part, size) in enumerate(zip(PARTS, parts, strict=True)):
        if size > 0:
            w = size / scale * BAR
            out.append(
                rect(
                    x, y, max(w, 0.7), ROW - 8, f"p{k}", title(f"{part[0]}: {show(size, BYTES, 4)}"), id=f"{key}--p{k}"
                )
            )
            x += w
    total = f"{show(sum(parts), BYTES, 3)}{f', {share}' if share else ''}"
    return [*out, words(LABEL + BAR + 8, y + 15, total, "strong")]
