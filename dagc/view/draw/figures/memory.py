"""What a GPU of each class holds, as stacked bars against its capacity."""

from __future__ import annotations

from collections.abc import Sequence

from ....base.units import BYTES, show
from ....plan.result import PhaseResult
from ..dot import identifier
from ..overview import MAX_CARDS, PARTS, cards, held_parts, name_of, sizes
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
        body += bar(
            identifier(result.name, "memory", name_of(result, card)),
            y,
            name_of(result, card),
            _named(parts),
            scale,
            f"{sum(parts) / capacity:.1%}",
        )
        y += ROW
    if peak < SMALL * capacity:
        y += 18
        body += [words(LABEL, y - 6, f"the same bars, {capacity / peak:.0f} times as wide", "soft")]
        for card in rows:
            key = identifier(result.name, "memory", name_of(result, card), "wide")
            body += bar(key, y, name_of(result, card), _named(sizes(result.memory.stages[card[0]])), peak, "")
            y += ROW
    body.append(
        line(LABEL + BAR * capacity / scale, 16, LABEL + BAR * capacity / scale, 20 + ROW * len(rows) - 6, "limit")
    )
    return figure("memory", LABEL + BAR + RIGHT, y + 4, label, *body)


def keys(result: PhaseResult) -> Keys:
    """What the colours mean; of no part that no GPU holds."""
    return held_parts(result)


def _named(parts: Sequence[float]) -> list[tuple[str, str, float]]:
    return [(f"p{k}", name, size) for k, ((name, _), size) in enumerate(zip(PARTS, parts, strict=True))]


def bar(
    key: str, y: float, name: str, parts: Sequence[tuple[str, str, float]], scale: float, share: str
) -> list[Markup]:
    """A row. `parts`: (colour, words, bytes) from the left."""
    out = [words(0, y + 15, name, room=LABEL - 6, size=12), rect(LABEL, y, BAR, ROW - 8, "trough")]
    x = float(LABEL)
    for cls, part, size in parts:
        if size > 0:
            w = size / scale * BAR
            hint = title(f"{part}: {show(size, BYTES, 4)}")
            out.append(rect(x, y, max(w, 0.7), ROW - 8, cls, hint, id=f"{key}--{cls}"))
            x += w
    total = f"{show(sum(size for _, _, size in parts), BYTES, 3)}{f', {share}' if share else ''}"
    return [*out, words(LABEL + BAR + 8, y + 15, total, "strong")]
