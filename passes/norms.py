"""norms: over a split width each rank sums its part of a row, and the sums are reduced instead of the rows gathered."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import record, replace
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass
from dagc.ir.op import Op
from dagc.ir.ops.attributes.attrs import NONE
from dagc.ir.ops.kind import RowSum
from dagc.ir.ops.op_set import OPS
from dagc.ir.segment import Segment


@record
class SplitNorms(GraphPass):
    """The row sums of every norm whose width is split, as ops of their own."""

    name: ClassVar[str] = "norms"

    def run(self, graph: Graph) -> Graph:
        return graph.map_segments(split_norms)


def split_norms(segment: Segment) -> Segment:
    """The segment with the row sums of every norm whose width is split as separate ops: partial sums like any other."""
    ops: list[Op] = []
    for op in segment.ops:
        wanted = OPS[op.kind].row_sums
        if wanted and op.loop(op.dims[-1]) and not is_split(op):
            rows = segment.dims_of(op.inputs[0])[:-1] if OPS[op.kind].gradient_of else op.dims[:-1]
            sums = [row_sum(op, one, rows, k) for k, one in enumerate(wanted)]
            ops += sums
            op = replace(op, inputs=(*op.inputs, *(s.name for s in sums)))
        ops.append(op)
    return segment if len(ops) == len(segment.ops) else replace(segment, ops=tuple(ops))


def row_sum(norm: Op, wanted: RowSum, rows: tuple[str, ...], place: int) -> Op:
    """One number per row, in fp32 as kernels keep their accumulators. `place`: among the sums of the norm."""
    read = tuple(norm.inputs[k] for k in wanted.operands if k < len(norm.inputs))
    return replace(norm, name=_name(norm, place), kind=wanted.kind, inputs=read, dims=rows, dtype="fp32", attrs=NONE)


def _name(norm: Op, place: int) -> str:
    """A kind that is summed twice has its place in the name."""
    sums = OPS[norm.kind].row_sums
    earlier = sum(one.kind == sums[place].kind for one in sums[:place])
    return f"{norm.name}.{sums[place].kind}" + (f"{earlier + 1}" if earlier else "")


def is_split(norm: Op) -> bool:
    return _name(norm, 0) in norm.inputs
