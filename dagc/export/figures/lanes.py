"""The grid of the placed graph as SVG: GPUs side by side, time down."""

from __future__ import annotations

from collections.abc import Iterable

from ...ir.result import PhaseResult
from ..dot import COLORS, identifier
from ..lanes.grid import BOX_H, Box, Grid, Hop, Label, Wire
from .markup import Markup, fit, join, tag
from .svg import Figure, Keys, figure, rect, title, words

BASE = {"start": 13.0, "what": 13.0, "node": 13.0, "gpu": 13.0, "head": 13.0, "stage": 15.0, "layer": 19.0}
"""From the top of a label to its base line."""
LOOK = {
    "start": "soft small end",
    "head": "soft end",
    "node": "mid",
    "gpu": "mid strong",
    "stage": "strong",
    "layer": "soft",
}


def draw(result: PhaseResult, grid: Grid) -> Figure:
    """Boxes with their tooltips and ids over the wires between them."""
    plain = (w for w in grid.wires if not w.critical)
    red = (w for w in grid.wires if w.critical)
    body = [
        join(_plate(label) for label in grid.labels if label.look in ("node", "gpu")),
        tag("path", d="".join(map(_wire, plain)), cls="edge thin"),
        tag("path", d="".join(map(_wire, red)), cls="edge critical"),
        *map(_hop, grid.hops),
        *map(_label, grid.labels),
        *map(_box, grid.boxes),
    ]
    return figure("lanes", grid.width + 4, grid.height + 4, f"{result.name}: {len(grid.boxes)} boxes", *body, zoom=True)


def keys(kinds: Iterable[str]) -> Keys:
    """What the colours mean."""
    drawn = set(kinds)
    return [
        ("box", "compute"),
        *((f"k-{k}", k) for k in COLORS if k in drawn),
        ("path", "on the critical path"),
    ]


def _plate(label: Label) -> Markup:
    return rect(label.x, label.y - 1, label.w, 18, "trough", rx=3)


def _label(label: Label) -> Markup:
    at = {"start": label.w, "head": label.w, "node": label.w / 2, "gpu": label.w / 2}.get(label.look, 0.0)
    size = 10.5 if label.look == "start" else 12
    what = fit(label.words, label.w, size)
    cut = (title(label.words),) if what != label.words else ()
    return tag("text", what, *cut, x=label.x + at, y=label.y + BASE[label.look], cls=LOOK.get(label.look))


def _box(box: Box) -> Markup:
    compute = box.kind == "compute"
    what = fit(box.words, box.w - 4, 11)
    return tag(
        "g",
        title(box.hint),
        rect(box.x, box.y, box.w, BOX_H, "box" if compute else f"k-{box.kind}", rx=3 if compute else 8),
        words(box.x + box.w / 2, box.y + 13.5, what, f"mid small{'' if compute else ' dark'}"),
        id=identifier(box.id),
        cls="node critical" if box.critical else "node",
    )


def _wire(wire: Wire) -> str:
    """Straight down, or round the boxes between on the right."""
    y1, y2 = wire.source.y + BOX_H, wire.target.y
    if wire.x != wire.to_x:
        bend = min(40.0, (y2 - y1) / 2)
        return f"M{wire.x:.0f} {y1:.0f}C{wire.x:.0f} {y1 + bend:.0f} {wire.to_x:.0f} {y2 - bend:.0f} {wire.to_x:.0f} {y2:.0f}"
    if not wire.aside:
        return f"M{wire.x:.0f} {y1:.0f}V{y2:.0f}"
    right = min(wire.source.x + wire.source.w, wire.target.x + wire.target.w)
    y1, y2 = y1 - BOX_H / 2, y2 + BOX_H / 2
    return f"M{right:.0f} {y1:.0f}C{right + 9:.0f} {y1 + 4:.0f} {right + 9:.0f} {y2 - 4:.0f} {right:.0f} {y2:.0f}"


def _hop(hop: Hop) -> Markup:
    x1, y1 = hop.source.x + hop.source.w, hop.source.y + BOX_H / 2
    x2, y2 = hop.x - 4, hop.target.y + BOX_H / 2
    return tag(
        "path", d=f"M{x1:.0f} {y1:.0f}C{x1 + 40:.0f} {y1:.0f} {x2 - 40:.0f} {y2:.0f} {x2:.0f} {y2:.0f}", cls="edge sent"
    )
