"""cell_costs: how long each cell of a layer takes: its ops on their streams, alone on the GPU."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...base.frozen import record, replace
from ...ir.graph import Graph
from ...ir.op import BACKWARD, FORWARD, RECOMPUTE, UPDATE, WEIGHT, Op
from ...ir.ops.op_set import OPS, flops
from ...ir.segment import Segment
from ..records import Costs
from ..schedule.layer import Layers
from ..schedule.moments import State, last_s
from .weight_moves import weight_moves, without

WHOLE_BACKWARD = (RECOMPUTE, BACKWARD, WEIGHT)
INPUT_BACKWARD = (RECOMPUTE, BACKWARD)
CELL_GROUPS = {
    "forward": (FORWARD,), "backward": WHOLE_BACKWARD, "input": INPUT_BACKWARD, "weight": (WEIGHT,), "update": (UPDATE,),
}  # fmt: skip
"""What a pipeline runs in one go, by name."""


@record
class CellCost:
    """Seconds of one cell of a layer among layers like it: of the cell itself (`time_s`), the part of that in which a collective runs and
    nothing is computed (`exposed_s`), and collectives in all (`moved_s`). On the slowest rank.

    `own_s`: without what moves its weights, from its beginning to its end, of which `computed_s` it computes; `gather_s`: before that its
    weights are gathered, `scatter_s`: after it their gradients are reduced. `shared_s`: of `own_s`, collectives on the links that these
    need, too; `exchange_s`: tokens travel to experts and back."""

    time_s: float
    exposed_s: float
    moved_s: float
    own_s: float
    computed_s: float
    gather_s: float = 0.0
    scatter_s: float = 0.0
    shared_s: float = 0.0
    exchange_s: float = 0.0


class OpTimes(NamedTuple):
    """When an op of a cell runs, from the begin of the cell in its layer on, on the slowest rank."""

    op: Op
    start_s: float
    end_s: float


def op_times(graph: Graph, costs: Costs, name: str, *, overlap: bool) -> Mapping[str, tuple[OpTimes, ...]]:
    """Layer -> its ops in the cells of a name of CELL_GROUPS, but for those that move its weights."""
    layers = _layers(graph, costs, name, floor=False, overlap=overlap)
    if layers is None:
        return {}
    found = {}
    for segment in layers.graph.segments:
        ran = layers.evaluate(segment.name, _idle(graph))
        moments = zip(ran.program.ops, ran.ran.starts, ran.ran.ends, strict=True)
        found[segment.name] = tuple([OpTimes(op, last_s(start), last_s(end)) for op, start, end in moments])
    return found


def move_times(
    graph: Graph, costs: Costs, name: str, *, overlap: bool
) -> Mapping[str, tuple[tuple[OpTimes, ...], ...]]:
    """Layer -> the collectives that gather its weights in such a cell, and those that reduce their gradients, each one after the
    other from the first on."""
    found = {}
    for segment in graph.segments:
        own = only(segment, CELL_GROUPS[name])
        found[segment.name] = tuple(
            tuple(one_by_one([op for op in own.ops if op.name in names and op.is_collective], segment, costs))
            for names in _apart(segment, overlap=overlap)
        )
    return found


def one_by_one(ops: Sequence[Op], segment: Segment, costs: Costs) -> Iterator[OpTimes]:
    at_s = 0.0
    for op in ops:
        end_s = at_s + _largest(costs, segment, op, floor=False)
        yield OpTimes(op, at_s, end_s)
        at_s = end_s


def cell_costs(
    graph: Graph, costs: Costs, *, floor: bool = False, overlap: bool = False
) -> Mapping[tuple[str, str], CellCost]:
    """(segment, name of CELL_GROUPS) -> cost; of cells that have no op nothing. `overlap`: what moves weights runs beside what layers
    compute; else weights are gathered before, and gradients are reduced as the program has them."""
    found: dict[tuple[str, str], CellCost] = {}
    for name, cells in CELL_GROUPS.items():
        layers = _layers(graph, costs, name, floor, overlap=overlap)
        for segment in graph.segments:
            gathers, scatters = _apart(segment, overlap=overlap)
            ops = [op for op in segment.ops if op.cell in cells]
            if not ops:
                continue
            own_s = 0.0
            if layers is not None and layers.graph.find(segment.name) is not None:
                ran = layers.evaluate(segment.name, _idle(graph))
                own_s = _latest(ran.exit.ready, ran.exit.streams)

            def total(chosen: Iterable[Op], segment: Segment = segment) -> float:
                return graph.lanes * sum(_largest(costs, segment, op, floor) for op in chosen)

            moving = [op for op in ops if op.is_collective]
            computed_s = total(op for op in ops if not op.is_collective)
            gather_s = total(op for op in moving if op.name in gathers)
            scatter_s = total(op for op in moving if op.name in scatters)
            shared_s = min(own_s, total(on_their_links(segment, moving, gathers | scatters, costs)))
            time_s = max(own_s, shared_s + gather_s + scatter_s) if overlap else gather_s + own_s + scatter_s
            found[segment.name, name] = CellCost(
                time_s, max(0.0, time_s - computed_s), total(moving), own_s, min(own_s, computed_s), gather_s, scatter_s,
                shared_s,
                total(op for op in moving if op.is_token_exchange),
            )  # fmt: skip
    return found


def on_their_links(segment: Segment, moving: Sequence[Op], apart: Collection[str], costs: Costs) -> list[Op]:
    """Of a cell's collectives those that cross the links which hold up the ones `apart`: the outermost level of their longest call."""
    each = {op.name: costs.ops[segment.name, op.name] for op in moving}
    calls = [cost for name, cost in each.items() if name in apart]
    if not calls:
        return []
    longest = max(calls, key=lambda cost: float(cost.time_s.max()))
    level = next((level for level, moved_B in [*longest.level_B.items()][::-1] if moved_B), "")
    return [op for op in moving if op.name not in apart and each[op.name].level_B.get(level)]


def _apart(segment: Segment, *, overlap: bool) -> tuple[frozenset[str], frozenset[str]]:
    """What gathers weights, and what reduces their gradients beside what is computed."""
    moves = weight_moves(segment)
    return moves.gathers, moves.scatters if overlap else frozenset()


def _layers(graph: Graph, costs: Costs, name: str, floor: bool, *, overlap: bool) -> Layers | None:
    """With the ops of the cells of one name alone; None where no layer has any."""
    own = (without(only(s, CELL_GROUPS[name]), frozenset().union(*_apart(s, overlap=overlap))) for s in graph.segments)
    segments = tuple(s for s in own if s.ops)
    return Layers(replace(graph, segments=segments), costs, floor, {}) if segments else None


def _idle(graph: Graph) -> State:
    return State((0.0,) * graph.lanes, (0.0,) * len(graph.streams))


def only(segment: Segment, cells: tuple[str, ...]) -> Segment:
    """The layer with the ops of these cells alone; what others made is there from the beginning."""
    kept = tuple(op for op in segment.ops if op.cell in cells)
    known = {value.name for op in kept for value in op.results}
    ops = tuple(replace(op, inputs=tuple(n for n in op.inputs if n in known or n.startswith("@"))) for op in kept)
    return replace(segment, ops=ops, output=ops[-1].name if ops else segment.output, upstream=None, downstream="")


def _latest(*moments: tuple[object, ...]) -> float:
    return max(float(np.max(np.asarray(moment))) for group in moments for moment in group)


def _largest(costs: Costs, segment: Segment, op: Op, floor: bool) -> float:
    cost = costs.ops[segment.name, op.name]
    return float(np.max(cost.floor_s if floor else cost.time_s))


def model_flops(graph: Graph) -> tuple[float, float]:
    """FLOPs of a step over all ranks, replicated work counted once: of products and attention, forward and backward, as MFU counts
    them; and those with what is done anew. Attention counts the pairs that its mask leaves."""
    counts = {False: 0.0, True: 0.0}
    for segment in graph.segments:
        for op in segment.ops:
            if OPS[op.kind].uses_tensor_cores:
                counts[op.cell == RECOMPUTE] += segment.repeat * flops(segment, op)
    passes = graph.microbatches * graph.lanes
    return passes * counts[False], passes * (counts[False] + counts[True])
