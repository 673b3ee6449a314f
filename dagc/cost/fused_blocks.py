"""fused_blocks: blocks whose ops run as one kernel between exchanges: what stays on the chip, and how many kernels a pass launches."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.frozen import record
from ..ir.graph import Graph
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.op_set import OPS, kernels_of, read_bytes, result_bytes
from ..ir.segment import Segment
from .records import OpCost

Runs = dict[str, tuple[str, ...]]
"""Op -> the ops of its kernel in program order."""


def runs_of(segment: Segment) -> Runs:
    """Ops of one block that follow each other; exchanges, copies and other kernels come between."""
    known: Runs | None = segment.asked.get(runs_of)
    if known is not None:
        return known
    runs: list[list[Op]] = []
    for op in segment.ops:
        if op.is_collective or op.is_copy or not op.kernel:
            runs.append([])
        elif runs and runs[-1] and (runs[-1][-1].kernel, runs[-1][-1].on) == (op.kernel, op.on):
            runs[-1].append(op)
        else:
            runs.append([op])
    found: Runs = {}
    for run in runs:
        names = tuple(op.name for op in run)
        found |= dict.fromkeys(names, names)
    segment.asked[runs_of] = found
    return found


def leads(segment: Segment, op: Op) -> bool:
    """Whether the launch of its kernel is this op's: the first that has one. Ops that ride anyhow have none."""
    run = runs_of(segment).get(op.name, (op.name,))
    own = (name for name in run if not OPS[segment.by_name[name].kind].fused)
    return op.name == next(own, "")


@record
class Within:
    """What an op's cost asks of the kernel it is in. `leads`: whether its launch is this op's; `reads`: inputs that do not leave the kernel;
    `result`: whether its result does not."""

    leads: bool
    reads: tuple[str, ...] = ()
    result: bool = False


def within(segment: Segment, op: Op) -> Within:
    """What does not leave a kernel is made in it, and read in it alone. What a cache has is in memory anyhow."""
    known: Within | None = segment.asked.get((within, op.name))
    if known is None:
        known = segment.asked[within, op.name] = _within(segment, op)
    return known


def _within(segment: Segment, op: Op) -> Within:
    run = runs_of(segment).get(op.name, ())
    if len(run) < 2:
        return Within(leads(segment, op))
    reads = []
    for name in dict.fromkeys(op.inputs):
        made = segment.by_name.get(name)
        while made is not None and OPS[made.kind].view and made.inputs:  # who looks through a view reads what it is of
            made = segment.by_name.get(made.inputs[0])
        if (
            made is not None
            and made.name in run
            and (made.name == name or OPS[segment.by_name[name].kind].view)
            and not OPS[made.kind].appends
        ):
            reads.append(name)
    kept = {segment.output, segment.downstream, *(value for _, value in (*segment.handed, *segment.gives))}
    readers = [user.name for user in segment.users(op.name)]
    result = (
        bool(readers)
        and set(readers) <= set(run)
        and op.name not in kept
        and not OPS[op.kind].appends
        and not OPS[op.kind].local
    )
    return Within(leads(segment, op), tuple(reads), result)


def inner_bytes(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Of what an op reads and writes, bytes of one rank that do not leave its kernel."""
    place, found = within(segment, op), 0.0
    for name in place.reads:
        found += read_bytes(segment, op, name, mesh)
    if place.result:
        found += result_bytes(segment, op, mesh)
    return found


def launches(graph: Graph, costs: Mapping[tuple[str, str], OpCost], apart: bool) -> float:
    """Kernels that a GPU of the stage with most of them launches in a pass. `apart`: no op rides in another's. Products that a measured
    kernel does together are one."""
    of_layer = {s.name: _of_layer(graph, s, costs, apart) for s in graph.segments}
    return float(graph.in_fullest_stage(of_layer) * graph.microbatches * graph.lanes)


def _of_layer(graph: Graph, segment: Segment, costs: Mapping[tuple[str, str], OpCost], apart: bool) -> int:
    count, together = 0, set[tuple[str, ...]]()
    for op in segment.ops:
        if op.is_collective or op.is_copy or OPS[op.kind].local:
            continue
        cost = costs[segment.name, op.name]
        if op.kernel:
            count += leads(segment, op)
        elif cost.family == "fused" or (OPS[op.kind].fused and not apart):
            continue
        elif cost.family and OPS[op.kind].product:
            together.add((cost.family, op.scope if op.scope == "experts" else op.inputs[0]))
        else:
            count += max(1, len(kernels_of(segment, op, graph.the_mesh)))
    return count + len(together)
