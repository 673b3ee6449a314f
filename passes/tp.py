"""tp: split heads, feed-forward widths and the vocabulary over the tensor-parallel axis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from dagc.base.frozen import record
from dagc.ir.axes import is_tensor_dim, priority
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import Doubt, GraphPass
from dagc.ir.mesh import Mesh
from dagc.ir.op import Op
from dagc.ir.ops.op_set import OPS, whole_dims
from dagc.ir.ops.sizes import loop_axes, loop_dims
from dagc.ir.segment import Segment
from dagc.ir.sharding import Axes


@record
class TensorParallel(GraphPass):
    """Tensor dimensions over the tensor-parallel axis. `rules`: further dimensions that take it, and take it first."""

    name: ClassVar[str] = "tp"
    rules: tuple[str, ...] = ()

    def run(self, graph: Graph) -> Graph:
        mesh = graph.the_mesh
        dense = mesh.of("tp")
        experts = mesh.of("etp") if mesh.folded else dense

        def annotate(segment: Segment, op: Op) -> Op:
            return split(segment, op, mesh, experts if op.scope == "experts" else dense, self.rules)

        return graph.map_ops(annotate, "annotated")

    def doubts(self, graph: Graph) -> Iterator[Doubt]:
        """Attention that no rank of the axis is spared."""
        dense = graph.the_mesh.of("tp")
        ranks = graph.the_mesh.size(dense)
        for segment in graph.segments if ranks > 1 else ():
            for op in segment.ops:
                if OPS[op.kind].over_heads and not set(loop_axes(op)) & set(dense):
                    yield repetition(segment, op, ranks)


def repetition(segment: Segment, op: Op, ranks: int) -> Doubt:
    """Attention that every rank of the axis does over again."""
    heads = [d for d in op.dims[:-1] if d not in ("batch", "seq")]
    unknown = [d for d in heads if not is_tensor_dim(d)]
    sizes = ", ".join(f"{d} {segment.size(d):g}" for d in heads)
    why = (
        f"`{unknown[0]}` is not a name of heads"
        if unknown
        else f"{sizes}: no part of tp divides them"
        if heads
        else "it has no heads"
    )
    return Doubt(
        segment.name, op.name, f"tp does not split this attention: it repeats on {ranks} ranks", (why,),
        (f"name it heads or kv_heads, or write `shard {{ {unknown[0]} = tp }}` in the phase",) if unknown else (),
    )  # fmt: skip


def split(segment: Segment, op: Op, mesh: Mesh, axes: Axes, extra: tuple[str, ...]) -> Op:
    """Give the axis to the op's tensor dims in order: each takes the longest part that divides it."""
    left = axes
    dims = [d for d in loop_dims(segment, op) if d in extra]
    dims += sorted((d for d in loop_dims(segment, op) if is_tensor_dim(d) and d not in dims), key=priority)
    dims = [d for d in dims if d not in whole_dims(segment, op)]
    for dim in dims:
        taken = next(k for k in range(len(left), -1, -1) if segment.size(dim, op.scope) % mesh.size(left[:k]) == 0)
        if taken:
            op = op.annotate(dim, left[:taken])
            left = left[taken:]
    return op
