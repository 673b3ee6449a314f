"""pp: give each pipeline stage its layers, in order."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.axes import ENDS
from dagc.base.frozen import record, replace
from dagc.ir.graph import UPDATE, Graph, Op, Segment, Stage, runs
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.ir.ops.attributes import AccumulateAttrs, WeightAttrs


@record
class PipelineParallel(GraphPass):
    """The stack of layers cut into the stages of the mesh. `layers`: how many transformer layers each has; none: equally many.
    `ends_meet`: the schedule of a training step has the first and the last layers on the same GPUs."""

    name: ClassVar[str] = "pp"
    layers: tuple[int, ...] = ()
    ends_meet: bool = False

    def run(self, graph: Graph) -> Graph:
        stages = graph.the_mesh.stages
        if len(graph.stages) != 1:
            raise PassError(f"the layers are on {len(graph.stages)} stages already", at="pp")
        (whole,) = graph.stages
        body = [name for name, count in whole.layers for _ in range(count)][1:-1]
        sizes = self.layers or (len(body) // stages,) * stages
        if sum(sizes) != len(body) or len(sizes) != stages:
            raise PassError(f"{len(body)} layers do not divide over {stages} stages", at="pp")
        cut = []
        start = 0
        for index, size in enumerate(sizes):
            names = body[start : start + size]
            if index == 0:
                names = [graph.embedding.name, *names]
            if index == stages - 1:
                names = [*names, graph.head.name]
            cut.append(Stage(index, runs(names)))
            start += size
        segments = graph.segments if stages == 1 or self.ends_meet else copied_tables(graph)
        return replace(graph, segments=segments, stages=tuple(cut), level="annotated")


def copied_tables(graph: Graph) -> tuple[Segment, ...]:
    """Of a table that the first and the last layer share each end has a copy, which gets the gradients of both ends and makes the
    same new one of them (as Megatron's `_allreduce_word_embedding_grads`)."""
    first, head = graph.embedding, graph.head
    shared = {w.name.removeprefix("@"): w.tied.removeprefix("@") for w in head.weights if w.tied}
    owned = {op.attrs.weight for op in first.ops if isinstance(op.attrs, AccumulateAttrs)} & {*shared.values()}
    if not owned:
        return graph.segments
    updated = [op for copy, table in shared.items() for op in update_of(head, copy, first, table)]
    ends = (
        replace(first, ops=tuple(over_ends(op, owned) for op in first.ops)),
        replace(head, ops=(*(over_ends(op, {*shared}) for op in head.ops), *updated)),
    )
    return (ends[0], *graph.body, ends[1])


def over_ends(op: Op, names: set[str]) -> Op:
    """The sum of a gradient as a part of that over both ends, where it is of one of these weights."""
    if not isinstance(op.attrs, AccumulateAttrs) or op.attrs.weight not in names:
        return op
    return replace(op, attrs=op.attrs.but(over=(ENDS,)))


def update_of(head: Segment, copy: str, first: Segment, table: str) -> list[Op]:
    """The ops that make a new table, for its copy."""
    (summed,) = (op for op in head.ops if isinstance(op.attrs, AccumulateAttrs) and op.attrs.weight == copy)
    (own,) = (op for op in first.ops if isinstance(op.attrs, AccumulateAttrs) and op.attrs.weight == table)
    named = {own.name: summed.name}
    made = []
    for op in first.ops:
        if op.cell == UPDATE and isinstance(op.attrs, WeightAttrs) and op.attrs.weight == table:
            named[op.name] = copy + op.name.removeprefix(table)
            inputs = tuple(named[name] for name in op.inputs)
            made.append(
                replace(op, name=named[op.name], inputs=inputs, block=summed.block, attrs=op.attrs.but(weight=copy))
            )
    return made
