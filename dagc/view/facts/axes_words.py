"""The axes of a mesh in words."""

from __future__ import annotations

from ...base.axes import ATTENTION_SIDE, AXES, EXPERT_SIDE, REPLICA, STAGES, TENSOR
from ...ir.graph import Graph


def axes_text(graph: Graph) -> str:
    """`pp 4 x ep 4 x sp 2 x tp 2`, and the experts' own factors when folded."""
    mesh = graph.the_mesh
    degrees, inner = mesh.degrees, ATTENTION_SIDE if mesh.folded else (a for a in AXES if a != STAGES)
    dense = (STAGES, REPLICA, *inner)
    text = " x ".join(f"{a} {degrees[a]}" for a in dense if degrees.get(a, 1) > 1) or "one GPU"
    ops = (op for segment in graph.segments for op in segment.ops)
    shared = mesh.sort([*({a for op in ops for a in op.loop("context")} & set(mesh.of(TENSOR)))])
    text += f" (dcp {mesh.size(shared)})" if shared else ""
    if mesh.folded:
        text += ", experts " + " x ".join(f"{a} {degrees[a]}" for a in EXPERT_SIDE if degrees.get(a, 1) > 1)
    return text
