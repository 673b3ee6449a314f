"""tie: a table that the first and the last stage share has a copy on each, and one gradient."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.axes import ENDS
from dagc.base.frozen import record, replace
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass
from dagc.ir.op import UPDATE, Op
from dagc.ir.ops.attributes.training import AccumulateAttrs, WeightAttrs
from dagc.ir.segment import Segment


@record
class TieTables(GraphPass):
    """The copies get the gradients of both ends and make the same new table of them, as Megatron's `_allreduce_word_embedding_grads`
    has it. `ends_meet`: the schedule has both ends on the same GPUs, whose one table needs no copy."""

    name: ClassVar[str] = "tie"
    ends_meet: bool = False

    def run(self, graph: Graph) -> Graph:
        first, head = graph.embedding, graph.head
        summed = {f"@{op.attrs.weight}" for op in head.ops if isinstance(op.attrs, AccumulateAttrs)}
        shared = {w.name[1:]: w.tied[1:] for w in head.weights if w.tied and w.name in summed}
        if len(graph.stages) == 1 or self.ends_meet or not shared:
            return graph
        updated = [op for copy, table in shared.items() for op in update_of(head, copy, first, table)]
        of_first, of_head = (
            tuple(over_ends(op, {*names}) for op in segment.ops)
            for segment, names in ((first, shared.values()), (head, shared))
        )
        ends = replace(first, ops=of_first), replace(head, ops=(*of_head, *updated))
        return replace(graph, segments=(ends[0], *graph.body, ends[1]))


def over_ends(op: Op, names: set[str]) -> Op:
    """The sum of a gradient as a part of that over both ends, where it is of one of these weights."""
    if not isinstance(op.attrs, AccumulateAttrs) or op.attrs.weight not in names:
        return op
    return replace(op, attrs=op.attrs.but(over=(ENDS,)))


def update_of(head: Segment, copy: str, first: Segment, table: str) -> list[Op]:
    """The ops that make a new table, for its copy."""
    summed, own = (
        next(op for op in segment.ops if isinstance(op.attrs, AccumulateAttrs) and op.attrs.weight == name)
        for segment, name in ((head, copy), (first, table))
    )
    named = {own.name: summed.name}
    made = []
    for op in first.ops:
        if op.cell == UPDATE and isinstance(op.attrs, WeightAttrs) and op.attrs.weight == table:
            named[op.name] = copy + op.name.removeprefix(table)
            inputs = tuple(named[name] for name in op.inputs)
            attrs = op.attrs.but(weight=copy)
            made.append(replace(op, name=named[op.name], inputs=inputs, block=summed.block, attrs=attrs))
    return made
