"""What the collectives of a lowered graph take where its ranks are on other GPUs: what ranks the ways to place them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..base.frozen import replace
from ..ir.graph import Graph
from ..ir.mesh import Mesh
from ..ir.op import UPDATE, Op
from ..ir.routed_dims import routers, rows_of
from ..ir.segment import Segment
from ..ir.sharding import Axes
from ..spec.unit import Unit
from .expert_load import ExpertLoad
from .transfers import collective_cost, stage_edges

if TYPE_CHECKING:
    from .exchange import Exchanges


class OrderCosts:
    """Of one graph. Seconds are those of all calls of a pass, or of a training step, one after the other, along the pipeline."""

    def __init__(self, graph: Graph, unit: Unit) -> None:
        self.graph, self.unit = graph, unit
        layers: Counter[str] = Counter()
        for stage in graph.stages:
            for name, count in stage.layers:
                layers[name] += count
        passes = graph.microbatches * graph.lanes
        self.ops: dict[Axes, list[tuple[Segment, Op, int]]] = {}
        self.loads: dict[tuple[str, object], ExpertLoad] = {}
        self.exchanges: dict[str, Exchanges | None] = {}
        for segment in graph.segments:
            for op in segment.ops:
                if op.is_collective:
                    calls = layers[segment.name] * (1 if op.cell == UPDATE else passes)
                    self.ops.setdefault(op.axes, []).append((segment, op, calls))
            self.loads |= {(segment.name, rows): ExpertLoad.of(graph, segment, rows, unit) for rows in routers(segment)}
            self.exchanges[segment.name] = _exchanges(segment, unit)

    def over(self, axes: Axes, mesh: Mesh) -> float:
        """Of the collectives over some axes, on another mesh of the same atoms."""
        total = 0.0
        for segment, op, calls in self.ops.get(axes, ()):
            rows = rows_of(op.dims)
            busy = self.loads[segment.name, rows] if rows is not None else None
            cost = collective_cost(segment, op, mesh, self.unit.spec.hardware, busy, self.exchanges[segment.name])
            total += calls * float(cost.time_s.max())
        return total

    def sends(self, mesh: Mesh) -> float:
        """Of the sends between stages, in training of gradients as well."""
        edges, back = stage_edges(replace(self.graph, mesh=mesh), self.unit.spec.hardware)
        if self.unit.phase.training is not None:
            return 2 * self.graph.microbatches * self.graph.lanes * sum(edge.time_s for edge in edges)
        return self.graph.microbatches * self.graph.lanes * sum(edge.time_s for edge in edges) + back.time_s


def _exchanges(segment: Segment, unit: Unit) -> Exchanges | None:
    hardware = unit.spec.hardware
    if hardware.calibration is None:
        return None
    from ..calib import load
    from .exchange import Exchanges

    return Exchanges(segment, unit, hardware, load(hardware.calibration))
