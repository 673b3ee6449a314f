"""One layer of each kind in a training step: a column for each cell, its boxes as in a pass of inference."""

from __future__ import annotations

from ....base.units import TIME, show
from ....plan.trained import TrainingResult
from ..step_layers import COLUMNS, columns, shown_layers
from . import layers
from .markup import fit, tag, width
from .svg import Figure, Keys, figure, rect, words

HEAD, GAP = 26.0, 30.0


def draw(result: TrainingResult) -> Figure:
    """A row for each kind of layer."""
    parts, y, wide = [], 0.0, 0.0
    for segment in shown_layers(result):
        parts.append(words(0, y + 14, f"{segment.name} × {segment.repeat}", "strong"))
        x, high = 0.0, 0.0
        for d in columns(result, segment):
            drawn = layers.drawn_layer(d)
            look = next(look for name, _, look in COLUMNS if name == d.cell)
            said = f"{d.cell}: {show(d.seconds(d.segment.ops), TIME, 3)}"
            room = max(drawn.width, width(said, 12) + 24)
            head = [rect(8, y + 24, room - 16, 4, look), words(8, y + 42, fit(said, room - 16), "strong")]
            body = tag("g", drawn.body, transform=f"translate(0 {y + HEAD + 20:.0f})")
            parts.append(tag("g", *head, body, transform=f"translate({x:.0f} 0)"))
            x, high = x + room, max(high, drawn.height)
        wide, y = max(wide, x), y + HEAD + 20 + high + GAP
    names = ", ".join(s.name for s in shown_layers(result))
    return figure("layer", wide, y - GAP, f"cells of one layer of {result.name}: {names}", *parts)


def keys(result: TrainingResult) -> Keys:
    """What the colours mean, and what each kind of op does."""
    shown = [d for segment in shown_layers(result) for d in columns(result, segment)]
    cells = [(look, name) for name, _, look in COLUMNS if any(d.cell == name for d in shown)]
    return [*cells, *layers.heat_keys("cell"), *layers.kinds_of(shown)]
