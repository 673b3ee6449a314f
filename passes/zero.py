"""zero: how the states of the optimizer, and gradients, are split over ranks that have the same weights."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import record, replace
from dagc.ir.graph import UPDATE, Graph, Op, Segment
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.ir.mesh import Mesh
from dagc.ir.ops.attributes import AccumulateAttrs, AdamAttrs, StoreAttrs, WeightAttrs
from dagc.ir.sharding import Axes


@record
class ZeroRedundancy(GraphPass):
    """`stage` 0: every data-parallel rank updates all of its weights; 1: a part of them, which are gathered; 2: gradients are split,
    too, as soon as a micro-batch has them (arXiv 1910.02054)."""

    name: ClassVar[str] = "zero"
    stage: int = 0

    def run(self, graph: Graph) -> Graph:
        if all(op.cell != UPDATE for segment in graph.segments for op in segment.ops):
            return graph
        for weight in graph.head.weights:
            if weight.tied and as_used(graph.head, weight.name[1:]) != as_used(graph.embedding, weight.tied[1:]):
                raise PassError(
                    "a table that is tied is split in one way in the first layer, and in another in the head",
                    at="shard",
                )
        segments = tuple(self.annotated(segment, graph.the_mesh) for segment in graph.segments)
        return replace(graph, segments=segments)

    def annotated(self, segment: Segment, mesh: Mesh) -> Segment:
        ops = tuple(self.split(segment, op, mesh) if isinstance(op.attrs, WeightAttrs) else op for op in segment.ops)
        return segment.with_ops(ops)

    def split(self, segment: Segment, op: Op, mesh: Mesh) -> Op:
        """The op with the layout of its weight; of what this stage splits, with the ranks that share it, too."""
        loops = as_used(segment, op.of(WeightAttrs).weight)
        whole = isinstance(op.attrs, StoreAttrs) or (isinstance(op.attrs, AccumulateAttrs) and self.stage < 2)
        for dim in op.dims:
            op = op.annotate(dim, loops.get(dim, ()))
        if whole and isinstance(op.attrs, AccumulateAttrs):
            return op
        if whole or self.stage < 1:
            return op
        assert isinstance(op.attrs, (AdamAttrs, AccumulateAttrs))
        return shared_out(segment, op, mesh)


def as_used(segment: Segment, weight: str) -> dict[str, Axes]:
    """Dim -> axes of a weight as its first reader splits it, which is how it is stored."""
    reader = next(op for op in segment.ops if f"@{weight}" in op.inputs)
    return {dim: reader.loop(dim) for dim in segment.weight[f"@{weight}"].dims}


def shared_out(segment: Segment, op: Op, mesh: Mesh) -> Op:
    """Each dim, in order, takes the longest part of what is left of the data-parallel axes that divides it."""
    used = {axis for _, axes in op.loops for axis in axes}
    left = tuple(a for a in (*mesh.batch_axes, *mesh.of("sp")) if a not in used)
    for dim in op.dims:
        own = op.loop(dim)
        size = segment.size(dim, op.scope) / mesh.size(own)
        taken = next(k for k in range(len(left), -1, -1) if size % mesh.size(left[:k]) == 0)
        op = op.annotate(dim, (*own, *left[:taken]))
        left = left[taken:]
    return op
