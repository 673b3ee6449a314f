"""The grid of the placed graph as SVG: GPUs side by side, time down."""

from __future__ import annotations

from ...facts.lanes.grid import BOX_H, Box, Break, Grid, Label
from ...facts.lanes.wires import Wire, wires
from ..dot import COLORS, identifier
from .looks import SMALL, TEXT
from .markup import Markup, fit, join, tag, width
from .svg import Figure, Keys, figure, rect, title, words

BASE = {
    "start": 13.0,
    "what": 13.0,
    "node": 13.0,
    "gpu": 13.0,
    "head": 13.0,
    "break": 14.0,
    "stage": 15.0,
    "layer": 19.0,
}
"""From the top of a label to its base line."""
LOOK = {
    "start": "soft small end",
    "head": "soft end",
    "node": "mid",
    "gpu": "mid strong",
    "stage": "strong",
    "layer": "soft",
    "break": "soft",
}


def draw(grid: Grid) -> Figure:
    """Boxes with their tooltips and ids over the wires between them."""
    joined = wires(grid)
    name = grid.picture.program.result.name
    body = [
        join(_plate(label) for label in grid.labels if label.look in ("node", "gpu")),
        tag("path", d="".join(_path(w) for w in joined if w.kind == "data"), cls="edge thin"),
        *(_send(w) for w in joined if w.kind == "send"),
        tag("path", d="".join(_path(w) for w in joined if w.kind == "critical"), cls="edge critical"),
        *(_break(gap) for gap in grid.breaks),
        *map(_label, grid.labels),
        *map(_box, grid.boxes),
    ]
    return figure("lanes", grid.width + 4, grid.height + 4, f"{name}: {len(grid.boxes)} boxes", *body, zoom=True)


def keys(grid: Grid) -> Keys:
    """What the colours mean."""
    drawn = {kind for b in grid.boxes for kind in (b.kind, *b.inside)}
    compute = [("box", "compute")] if "compute" in drawn else []
    path = [("path", "on the critical path")] if any(b.critical for b in grid.boxes) else []
    return [*compute, *((f"k-{k}", k) for k in COLORS if k in drawn), *path]


def _break(gap: Break) -> Markup:
    """Two waves across the columns, on paper that hides the wires behind."""
    steps = max(2, round((gap.right - gap.left) / 12))
    wave = "".join(
        f"q{(gap.right - gap.left) / steps / 2:.2f} {-5 if k % 2 else 5} {(gap.right - gap.left) / steps:.2f} 0"
        for k in range(steps)
    )
    paper = rect(gap.left - 4, gap.y - 3, gap.right - gap.left + 8, 7, "paper")
    return join([paper, *(tag("path", d=f"M{gap.left:.1f} {y:.1f}{wave}", cls="torn") for y in (gap.y - 3, gap.y + 3))])


def _plate(label: Label) -> Markup:
    return rect(label.x, label.y - 1, label.w, 18, "trough", rx=3)


def _label(label: Label) -> Markup:
    at = {"start": label.w, "head": label.w, "node": label.w / 2, "gpu": label.w / 2}.get(label.look, 0.0)
    size = SMALL if label.look == "start" else TEXT
    what = fit(label.words, label.w, size)
    cut = (title(label.words),) if what != label.words else ()
    return tag("text", what, *cut, x=label.x + at, y=label.y + BASE[label.look], cls=LOOK.get(label.look))


def _box(box: Box) -> Markup:
    compute = box.kind == "compute"
    room = box.w - 4 - 6 * len(box.inside)
    what = next((words for words in (box.words, box.short) if width(words, SMALL) <= room), "")
    stripes = [
        rect(box.x + box.w - 6 * (k + 1), box.y + 1, 5, BOX_H - 2, f"stripe k-{i}") for k, i in enumerate(box.inside)
    ]
    marked = " critical" if box.critical else ""
    return tag(
        "g",
        title(box.hint),
        rect(box.x, box.y, box.w, BOX_H, ("box" if compute else f"chip k-{box.kind}") + marked, rx=3 if compute else 8),
        *stripes,
        words(box.x + (box.w - 6 * len(stripes)) / 2, box.y + 13.5, what, f"mid small{'' if compute else ' dark'}"),
        id=identifier(box.id),
        cls=f"node{marked}",
    )


def _path(wire: Wire) -> str:
    (x1, y1), (a, b), (c, d), (x2, y2) = wire.points
    if x1 == a == c == x2:
        return f"M{x1:.0f} {y1:.0f}V{y2:.0f}"
    return f"M{x1:.0f} {y1:.0f}C{a:.0f} {b:.0f} {c:.0f} {d:.0f} {x2:.0f} {y2:.0f}"


def _send(wire: Wire) -> Markup:
    key = identifier(wire.source.id, "to", wire.target.id)
    x, y = wire.points[-1]
    head = tag("path", d=f"M{x - 8:.0f} {y - 4:.0f}L{x:.0f} {y:.0f}L{x - 8:.0f} {y + 4:.0f}z", cls="k-send")
    return tag("g", title(f"send: {wire.source.hint}"), tag("path", d=_path(wire), cls="edge sent"), head, id=key)
