"""weight_moves: collectives that bring a layer the weights that its ranks share out, and that take the gradients of weights away. They
depend on no other layer, so that they run beside what layers compute."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from ...base.frozen import record, replace
from ...ir.graph import Graph
from ...ir.op import WEIGHT, Op
from ...ir.ops.attributes.moves import SliceAttrs
from ...ir.ops.attributes.training import AccumulateAttrs, QuantiseAttrs
from ...ir.ops.sizes import local_bytes
from ...ir.segment import Segment
from ...spec.hardware import Hardware
from ..records import Costs, OpCost
from ..transfers import call_cost

if TYPE_CHECKING:
    from ..exchange import Exchanges


@record
class WeightMoves:
    """Names of ops of a layer. `gathers`: copies of stored weights, moved to where they are read; `scatters`: gradients reduced in the
    cells of a micro-batch, for their sums."""

    gathers: frozenset[str]
    scatters: frozenset[str]


def weight_moves(segment: Segment) -> WeightMoves:
    wanted = {n for op in segment.ops if isinstance(op.attrs, AccumulateAttrs) for n in op.inputs}
    scatters = set()
    for op in reversed(segment.ops):
        if op.name in wanted and op.cell == WEIGHT and op.is_collective:
            scatters.add(op.name)
        if op.name in wanted and op.inputs and segment.dims_of(op.inputs[0]) == op.dims and _moves(op):
            wanted.update(op.inputs)
    computed = {op.name for op in segment.ops if isinstance(op.attrs, QuantiseAttrs)}
    return WeightMoves(frozenset(segment.copies.keys() - computed), frozenset(scatters))


def _moves(op: Op) -> bool:
    """Whether an op only changes the layout of what it is given."""
    return op.is_collective or isinstance(op.attrs, SliceAttrs)


def without(segment: Segment, names: Collection[str]) -> Segment:
    """The layer as if what these ops make were there."""
    if not names:
        return segment
    kept = tuple(op for op in segment.ops if op.name not in names)
    ops = tuple(replace(op, inputs=tuple(n for n in op.inputs if n not in names)) for op in kept)
    output = segment.output if segment.output not in names else ""
    return replace(segment, ops=ops, output=output or (ops[-1].name if ops else segment.input))


def gathered_bytes(segment: Segment, graph: Graph) -> float:
    """Of the weights of a layer on one rank, as its ops read them, beside what is stored of them."""
    read = {
        n: (segment.copies[n], segment.dtype_of(n))
        for op in segment.ops
        if op.name not in segment.copies or isinstance(op.attrs, QuantiseAttrs)
        for n in op.inputs
        if n in segment.copies
    }
    sizes: dict[tuple[str, str], float] = {}
    for name, copy in read.items():
        layout = segment.sharding_of(name)
        assert layout is not None
        sizes[copy] = max(sizes.get(copy, 0.0), local_bytes(segment, name, layout.dims, graph.the_mesh))
    return sum(sizes.values())


def scattered_bytes(segment: Segment, graph: Graph) -> float:
    """Of the gradients of a layer on one rank that a micro-batch has before they are reduced."""
    moves, total = weight_moves(segment).scatters, 0.0
    for op in segment.ops:
        if op.name in moves and op.inputs[0] not in moves:
            layout = segment.sharding_of(op.inputs[0])
            assert layout is not None
            total += local_bytes(segment, op.inputs[0], layout.dims, graph.the_mesh)
    return total


def in_flat_calls(
    graph: Graph, costs: Costs, hardware: Hardware, exchanges: Callable[[Segment], Exchanges | None]
) -> Costs:
    """Costs with the moves of a layer's weights as one call of each kind among the same ranks, as engines make them of flat buffers; each
    op has its share of the call's time by its bytes."""
    ops: dict[tuple[str, str], OpCost] = dict(costs.ops)
    for segment in graph.segments:
        moves = weight_moves(segment)
        calls: dict[tuple[str, str, bool, tuple[str, ...]], list[Op]] = {}
        for op in segment.ops:
            if op.is_collective and op.name in moves.gathers | moves.scatters:
                calls.setdefault((op.cell, op.kind, op.name in moves.gathers, op.axes), []).append(op)
        for own in calls.values():
            each = {op.name: ops[segment.name, op.name] for op in own}
            payload_B = sum(cost.payload_B for cost in each.values())
            if len(own) > 1 and payload_B > 0:
                call = call_cost(own[0], payload_B, 1.0, graph.the_mesh, hardware, exchanges(segment))
                for name, cost in each.items():
                    share = cost.payload_B / payload_B
                    ops[segment.name, name] = replace(
                        cost,
                        time_s=call.time_s * share,
                        floor_s=call.floor_s * share,
                        bound=call.bound,
                        algorithm=call.algorithm,
                        family=call.family,
                    )
    return replace(costs, ops=ops)
