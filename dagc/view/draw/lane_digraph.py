"""The grid as DOT: a real graph of boxes and edges whose positions are given, so that Graphviz has nothing to lay out."""

from __future__ import annotations

from ...plan.plan import CompiledPlan
from ..facts.lanes.grid import BOX_H, Box, Grid, Label, drawn
from ..facts.lanes.shown_part import DEFAULT, Choice
from ..facts.lanes.wires import Wire, wires
from ..facts.lanes.words import heading
from .dot import COLORS, COMPUTE, CRITICAL, INK, SOFT, Html, digraph, edge, html, legend, node
from .figures.markup import fit, width, wrapped

INCH = 72.0
LINE, SIZE, LEAST = 20.0, 14, 640.0
"""Of the title."""
LOOKS = {
    "data": {"color": "#9ca3af", "arrowhead": "none"},
    "critical": {"color": CRITICAL, "penwidth": "2", "arrowhead": "none"},
    "send": {"color": COLORS["send"], "penwidth": "1.6"},
}


def draw(plan: CompiledPlan, phase: str, choice: Choice = DEFAULT) -> str:
    """DOT for the engine `nop2`, which keeps all positions. Raises SpecError where a choice selects nothing."""
    laid = drawn(plan.phases[phase], choice)
    first, *rest = heading(laid.picture, lettered=laid.lettered)
    room = max(laid.width, LEAST)
    title = [f"{plan.spec.model.name}, {first}", *(part for line in rest for part in wrapped(line, room, SIZE, 4))]
    title = [*(part for line in plan.titles_of(phase) for part in wrapped(line, room, SIZE, 4)), *title]
    labels = [Label(0, LINE * (k - len(title)), room, words, "title") for k, words in enumerate(title)]
    joined = wires(laid)
    body = [_label(k, label, laid) for k, label in enumerate([*labels, *laid.labels])]
    body += [_box(box, laid) for box in laid.boxes]
    body += [edge(w.source.id, w.target.id, pos=_curve(w, laid), **LOOKS[w.kind]) for w in joined]
    kinds = {kind for box in laid.boxes for kind in (box.kind, *box.inside)}
    key = legend([k for k in COLORS if k in kinds], across=True)
    below = _at(100.0 + 60 * len(kinds), laid.height + 24, laid)
    body.append(node("legend", label=key, shape="plaintext", width="0", height="0", pos=below, tooltip="legend"))
    return digraph(f"{phase} lanes", "", body, layout="nop2", outputorder="edgesfirst")


def _curve(wire: Wire, laid: Grid) -> str:
    """The wire's points, and where its arrow ends."""
    points = [_at(x, y, laid) for x, y in wire.points]
    return f"e,{points[-1]} {' '.join(points)}" if wire.kind == "send" else " ".join(points)


def _at(x: float, y: float, laid: Grid) -> str:
    """The middle of something, in points from the lower left."""
    return f"{x:.1f},{laid.height - y:.1f}"


def _box(box: Box, laid: Grid) -> str:
    frame = {"color": CRITICAL, "penwidth": "2.2"} if box.critical else {"color": SOFT}
    return node(
        box.id,
        label=next((w for w in (box.words, box.short) if width(w, 10) <= box.w - 4), ""),
        shape="box",
        style="filled" if box.kind != "compute" else "filled,rounded",
        fillcolor=COLORS.get(box.kind, COMPUTE),
        fontcolor=INK,
        fontsize="10",
        fixedsize="true",
        width=f"{box.w / INCH:.3f}",
        height=f"{BOX_H / INCH:.3f}",
        pos=_at(box.x + box.w / 2, box.y + BOX_H / 2, laid),
        tooltip=box.hint,
        **frame,
    )


def _label(number: int, label: Label, laid: Grid) -> str:
    """Words in a cell as wide as their room: to the left, to the right, or in the middle of a column."""
    size = SIZE if label.look == "title" else 10
    align = {"node": "center", "gpu": "center", "start": "right", "head": "right"}.get(label.look, "left")
    color = INK if label.look in ("what", "gpu", "stage", "title") else SOFT
    fill = ' bgcolor="#e5e7eb"' if label.look in ("node", "gpu") else ""
    cell = f'<td align="{align}" fixedsize="true" width="{label.w:.0f}" height="{BOX_H:.0f}"{fill}>'
    words = f'<font point-size="{size}" color="{color}">{html(fit(label.words, label.w, size))}</font>'
    return node(
        f"label {number}",
        label=Html(
            f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="0"><tr>{cell}{words}</td></tr></table>>'
        ),
        shape="plaintext",
        margin="0",
        width="0",
        height="0",
        pos=_at(label.x + label.w / 2, label.y + BOX_H / 2, laid),
        tooltip=label.words,
    )
