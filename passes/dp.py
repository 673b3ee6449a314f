"""dp: split the batch over replicas, data parallelism and (flat strategies) the expert axis."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import record
from dagc.ir.axes import Dispatch
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass
from dagc.ir.op import Op
from dagc.ir.ops.kind import Tokens
from dagc.ir.ops.leaving import EVERY
from dagc.ir.ops.op_set import OPS
from dagc.ir.ops.sizes import loop_axes, loop_dims
from dagc.ir.routed_dims import routed
from dagc.ir.segment import Segment


@record
class DataParallel(GraphPass):
    """The batch over the data-parallel axes. `dispatch`: how tokens reach experts, as for `ep`."""

    name: ClassVar[str] = "dp"
    dispatch: Dispatch = "all_to_all"

    def run(self, graph: Graph) -> Graph:
        mesh = graph.the_mesh
        batch = mesh.batch_axes
        gathered = mesh.of("ep") if self.dispatch == "allgather" else ()

        def annotate(segment: Segment, op: Op) -> Op:
            if op.on:
                return op
            at_home = OPS[op.kind].tokens is Tokens.AT_HOME
            rows_of = EVERY if EVERY in op.dims else "batch"
            if rows_of in loop_dims(segment, op):
                seen = tuple(a for a in batch if a not in gathered) if at_home else batch
                op = op.annotate(rows_of, seen)
            rows = routed(segment, op)
            if rows is not None:
                taken = {*op.loop(rows.expert), *op.loop(rows.slot)} if at_home else set(loop_axes(op))
                op = op.annotate(rows.slot, (*(a for a in batch if a not in taken), *op.loop(rows.slot)))
            return op

        return graph.map_ops(annotate, "annotated")
