"""Collectives of a phase added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..base.axes import STAGES
from ..base.collectives import COLLECTIVES
from ..base.frozen import replace
from ..cost.records import Costs, OpCost
from ..ir.graph import Graph
from ..ir.ops.attributes.moves import RingTurnAttrs
from ..ir.requests import request_moves
from .result import CollectiveTotal


def collective_totals(
    graph: Graph, costs: Costs, stage: int | None = None, on: str | None = None
) -> tuple[CollectiveTotal, ...]:
    """Collectives by (kind, group, payload): calls of one device of a stage, or along one pipeline path, in one pass of
    all micro-batches. `on`: of the ranks of one side alone (see Sharding)."""
    mesh = graph.the_mesh
    stages = graph.stages if stage is None else (graph.stages[stage],)
    layers: Counter[str] = Counter()
    for one in stages:
        for name, count in one.layers:
            layers[name] += count
    passes = graph.microbatches * graph.lanes
    totals: dict[tuple[str, tuple[str, ...], float], CollectiveTotal] = {}

    def add(
        kind: str,
        axes: tuple[str, ...],
        size: int,
        count: int,
        payload: float,
        wire: float,
        time: float,
        levels: Mapping[str, float],
    ) -> None:
        key = (kind, axes, payload)
        old = totals.get(key, CollectiveTotal(kind, axes, size, 0, payload, 0.0, 0.0))
        level_B = {n: old.level_B.get(n, 0.0) + levels.get(n, 0.0) for n in (*old.level_B, *levels)}
        count, wire, time = old.count + count, old.wire_B + wire, old.time_s + time
        totals[key] = replace(old, count=count, wire_B=wire, time_s=time, level_B=level_B)

    for segment in (s for s in graph.segments if layers[s.name]):
        for op in segment.ops:
            if op.runtime_kind not in COLLECTIVES or (on is not None and not op.is_at(on)):
                continue
            cost = costs.ops[segment.name, op.name]
            calls = layers[segment.name] * passes
            steps = op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1
            gets = op.is_across and op.on == on  # of two sets of ranks the other one sends
            add(
                op.runtime_kind,
                mesh.label(op.axes, op.scope),
                mesh.ranks_of(op.kind, op.axes),
                calls * steps,
                cost.payload_B,
                0.0 if gets else cost.wire_B * calls,
                float(cost.time_s.max()) * calls,
                {} if gets else {name: size * calls for name, size in cost.level_B.items()},
            )
    if mesh.stages > 1:
        for one in stages:
            for edge in costs.edges[one.index : one.index + 1]:
                sent_B = edge.payload_B * passes
                add("send", (STAGES,), 2, passes, edge.payload_B, sent_B, edge.time_s * passes, {edge.level: sent_B})
            for edge in costs.edges[max(0, one.index - 1) : one.index]:
                add("recv", (STAGES,), 2, passes, edge.payload_B, 0.0, edge.time_s * passes, {})
    return tuple(totals.values())


def request_totals(
    graph: Graph, requests: Mapping[str, OpCost], stage: int | None = None
) -> tuple[CollectiveTotal, ...]:
    """The scatter and the gather, of a stage or along the pipeline, in one pass of all micro-batches; of the root."""
    mesh, calls = graph.the_mesh, graph.microbatches * graph.lanes
    found = []
    for move in request_moves(graph):
        if stage in (None, move.stage):
            cost, over = requests[move.kind], mesh.label(move.axes)
            level_B = {name: size * calls for name, size in cost.level_B.items()}
            total = cost.payload_B, cost.wire_B * calls, float(cost.time_s.max()) * calls
            found.append(CollectiveTotal(move.kind, over, mesh.size(move.axes), calls, *total, level_B))
    return tuple(found)
