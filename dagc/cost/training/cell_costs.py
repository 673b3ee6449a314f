"""cell_costs: how long each cell of a layer takes: its ops on their streams, alone on the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ...base.frozen import record, replace
from ...ir.graph import BACKWARD, FORWARD, RECOMPUTE, UPDATE, WEIGHT, Graph, Op, Segment
from ...ir.ops.op_set import OPS, flops
from ..records import Costs
from ..schedule.layer import Layers
from ..schedule.moments import State, last_s

WHOLE_BACKWARD = (RECOMPUTE, BACKWARD, WEIGHT)
INPUT_BACKWARD = (RECOMPUTE, BACKWARD)
CELL_GROUPS = {
    "forward": (FORWARD,), "backward": WHOLE_BACKWARD, "input": INPUT_BACKWARD, "weight": (WEIGHT,), "update": (UPDATE,),
}  # fmt: skip
"""What a pipeline runs in one go, by name."""


@record
class CellCost:
    """Seconds of one cell of a layer: from its beginning to its end, the part in which a collective runs and nothing is computed
    (`exposed_s`), and collectives in all (`moved_s`). On the slowest rank."""

    time_s: float
    exposed_s: float
    moved_s: float


class OpTimes(NamedTuple):
    """When an op of a cell runs, from the begin of the cell in its layer on, on the slowest rank."""

    op: Op
    start_s: float
    end_s: float


def op_times(graph: Graph, costs: Costs, name: str) -> Mapping[str, tuple[OpTimes, ...]]:
    """Layer -> its ops in the cells of a name of CELL_GROUPS."""
    layers = _layers(graph, costs, name, floor=False)
    if layers is None:
        return {}
    found = {}
    for segment in layers.graph.segments:
        ran = layers.evaluate(segment.name, _idle(graph))
        moments = zip(ran.program.ops, ran.ran.starts, ran.ran.ends, strict=True)
        found[segment.name] = tuple([OpTimes(op, last_s(start), last_s(end)) for op, start, end in moments])
    return found


def cell_costs(graph: Graph, costs: Costs, *, floor: bool = False) -> Mapping[tuple[str, str], CellCost]:
    """(segment, name of CELL_GROUPS) -> cost; of cells that have no op nothing."""
    found: dict[tuple[str, str], CellCost] = {}
    for name in CELL_GROUPS:
        layers = _layers(graph, costs, name, floor)
        for segment in () if layers is None else layers.graph.segments:
            assert layers is not None
            ran = layers.evaluate(segment.name, _idle(graph))
            end = _latest(ran.exit.ready, ran.exit.streams)
            computed = graph.lanes * sum(
                _largest(costs, segment, op, floor) for op in segment.ops if not op.is_collective
            )
            moved = graph.lanes * sum(_largest(costs, segment, op, floor) for op in segment.ops if op.is_collective)
            found[segment.name, name] = CellCost(end, max(0.0, end - computed), moved)
    return found


def _layers(graph: Graph, costs: Costs, name: str, floor: bool) -> Layers | None:
    """With the ops of the cells of one name alone; None where no layer has any."""
    segments = tuple(own for s in graph.segments if (own := only(s, CELL_GROUPS[name])).ops)
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
