"""tp: split heads, feed-forward widths and the vocabulary over the tensor-parallel axis."""

from __future__ import annotations

from dagc.ir.experts import stem
from dagc.ir.graph import Graph, Op, Segment
from dagc.ir.mesh import Mesh
from dagc.ir.ops import loop_dims
from dagc.ir.sharding import Axes
from dagc.ir.unit import Unit

ABOUT = "annotate heads, feed-forward and vocabulary dimensions with the tensor-parallel axis"

TENSOR_DIMS = ("heads", "kv_heads", "key_heads", "group", "value_group", "ffn", "shared_ffn", "vocab")
"""Dimensions that tensor parallelism splits, in the order in which they take the axis."""


NEEDS_WHOLE_WIDTH = ("rope", "attend", "route")
"""Ops that need more of their inputs' last dimension than sums over it: it stays whole on a rank."""


def is_tensor_dim(dim: str) -> bool:
    return stem(dim) in TENSOR_DIMS


def run(graph: Graph, unit: Unit) -> Graph:
    mesh = graph.the_mesh
    dense = mesh.of("tp")
    experts = mesh.of("etp") if "etp" in mesh.axes else dense
    rules = dict(unit.phase.strategy.shard)
    extra = tuple(d for d, axis in rules.items() if axis == "tp")

    def annotate(segment: Segment, op: Op) -> Op:
        return split(segment, op, mesh, experts if op.scope == "experts" else dense, extra)

    return graph.map_ops(annotate, "annotated")


def split(segment: Segment, op: Op, mesh: Mesh, axes: Axes, extra: tuple[str, ...]) -> Op:
    """Give the axis to the op's tensor dims in order: each takes the longest part that divides it."""
    left = axes
    dims = [d for d in loop_dims(segment, op) if d in extra]
    dims += sorted((d for d in loop_dims(segment, op) if is_tensor_dim(d) and d not in dims), key=_priority)
    dims = [d for d in dims if d not in whole_dims(segment, op)]
    for dim in dims:
        taken = next(k for k in range(len(left), -1, -1) if segment.size(dim, op.scope) % mesh.size(left[:k]) == 0)
        if taken:
            op = op.annotate(dim, left[:taken])
            left = left[taken:]
    return op


def whole_dims(segment: Segment, op: Op) -> set[str]:
    """Dimensions that no axis may split."""
    if op.kind in NEEDS_WHOLE_WIDTH:
        return {segment.dims_of(name)[-1] for name in op.inputs if not name.startswith("@")}
    if op.kind == "delta":
        return {segment.dims_of(name)[-1] for name in op.inputs[:3]}
    if op.kind == "conv":
        return {segment.dims_of(op.inputs[1])[-1]}
    return set(loop_dims(segment, op)) - {"batch", "seq"} if op.kind == "select" else set()


def _priority(dim: str) -> int:
    return TENSOR_DIMS.index(stem(dim))
