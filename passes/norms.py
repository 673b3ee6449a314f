"""norms: over a split width each rank sums its part of a row, and the sums are reduced instead of the rows gathered."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import record, replace
from dagc.ir.graph import Graph, Op, Segment
from dagc.ir.graph_pass import GraphPass
from dagc.ir.ops.attributes import NONE
from dagc.ir.ops.op_set import OPS


@record
class SplitNorms(GraphPass):
    """The row sums of every norm whose width is split, as ops of their own."""

    name: ClassVar[str] = "norms"

    def run(self, graph: Graph) -> Graph:
        segments = tuple(split_norms(s) for s in graph.segments)
        same = all(a is b for a, b in zip(segments, graph.segments, strict=True))
        return graph if same else replace(graph, segments=segments)


def split_norms(segment: Segment) -> Segment:
    """The segment with the row sums of every norm whose width is split as separate ops: partial sums like any other."""
    ops: list[Op] = []
    for op in segment.ops:
        kinds = OPS[op.kind].row_sums
        if kinds and op.loop(op.dims[-1]) and not is_split(op):
            sums = [row_sum(op, kind) for kind in kinds]
            ops += sums
            op = replace(op, inputs=(*op.inputs, *(s.name for s in sums)))
        ops.append(op)
    return segment if len(ops) == len(segment.ops) else replace(segment, ops=tuple(ops))


def row_sum(norm: Op, kind: str) -> Op:
    """One number per row, in fp32 as kernels keep their accumulators."""
    name, rows = f"{norm.name}.{kind}", norm.dims[:-1]
    return replace(norm, name=name, kind=kind, inputs=norm.inputs[:1], dims=rows, dtype="fp32", attrs=NONE)


def is_split(norm: Op) -> bool:
    return f"{norm.name}.{OPS[norm.kind].row_sums[0]}" in norm.inputs
