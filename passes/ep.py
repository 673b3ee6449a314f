"""ep: split routed experts, and say over which axes tokens are exchanged."""

from __future__ import annotations

from dataclasses import replace

from dagc.ir.graph import Graph, Op, Segment
from dagc.ir.sharding import Axes
from dagc.ir.unit import Unit

from . import dp

ABOUT = "annotate routed experts with the expert axis and dispatch/combine with their exchange group"


def run(graph: Graph, unit: Unit) -> Graph:
    mesh = graph.the_mesh
    experts = mesh.of("ep")
    batch = dp.batch_axes(mesh)

    def annotate(segment: Segment, op: Op) -> Op:
        if "slot" not in segment.sizes or (op.scope != "experts" and op.kind != "combine"):
            return op
        home = _token_axes(segment, batch)
        exchange = tuple(a for a in experts if a in home)
        # Experts that share their tokens' ranks first: the exchanged axes stay minor, one move brings them in.
        op = op.annotate("expert", (*(a for a in experts if a not in home), *exchange))
        op = op.annotate("slot", tuple(a for a in op.loop("slot") if a not in experts))
        if op.kind in ("dispatch", "combine"):
            op = replace(op, attrs=(*op.attrs, ("exchange", "+".join(exchange))))
        return op

    return graph.map_ops(annotate, "annotated")


def _token_axes(segment: Segment, batch: Axes) -> Axes:
    """Axes over which different ranks own different tokens when they reach dispatch."""
    seq = next((op.loop("seq") for op in segment.ops if op.kind == "dispatch"), ())
    return (*batch, *seq)
