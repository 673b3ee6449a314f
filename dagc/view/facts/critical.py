"""The critical path of one pass, execution by execution: a walk backwards from what finishes last."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...base.frozen import record
from ...cost.records import Array, value_at
from ...cost.schedule.layer_program import lane_program
from ...ir.graph import Graph
from ...ir.op import COPY
from ...ir.ops.attributes.moves import RingTurnAttrs
from ...ir.segment import Segment
from ...plan.result import PhaseResult
from .timeline import Index, Layer, layers

SAME_S = 1e-12


class PathNode(NamedTuple):
    """An execution of a stage: `place` counts the layers of the cell, and is -1 for a send."""

    stage: int
    microbatch: int
    place: int
    op: str
    lane: int


@record
class Visit:
    """An execution on the critical path, on the rank that it waited for. Stages are numbered as `PhaseResult.seats`."""

    stage: int
    microbatch: int
    layer: int | None
    segment: str
    op: str
    lane: int
    index: Index
    start_s: float
    end_s: float

    @property
    def is_host(self) -> bool:
        """The host's time before the pass, which no GPU executes."""
        return not self.segment and self.op == "host"


_PATHS: dict[int, tuple[weakref.ref[PhaseResult], tuple[Visit, ...]]] = {}
"""Of the results there are, by identity: several pictures of one ask for the same."""


def critical(result: PhaseResult) -> tuple[Visit, ...]:
    """The path in order of time. Its times add up to the makespan of one pass of all micro-batches."""
    name = id(result)
    kept = _PATHS.get(name)
    if kept is None or kept[0]() is not result:
        path = tuple(_Walk(result).back())[::-1]
        kept = _PATHS[name] = weakref.ref(result, lambda gone: _PATHS.pop(name, None)), path
    return kept[1]


Since = tuple[float, Array]
"""A moment, and for each rank how long after it."""


@record
class _Inputs:
    """Of an op in one lane, what the layers of a segment share: where its inputs are made, which of these are the permutes that bring
    keys and values round to a ring attention (it starts along with them), whether it reads what the copies of the layer before brought,
    and what its stream does before."""

    sources: tuple[str, ...]
    ahead: bool
    turns: tuple[str, ...]
    stream: str
    before: tuple[str, int] | None


@dataclass
class _Walk:
    result: PhaseResult
    cells: dict[tuple[int, int], list[Layer]] = field(default_factory=dict)
    sends: dict[tuple[int, int, int], Array] = field(default_factory=dict)
    orders: dict[str, dict[str, list[tuple[str, int]]]] = field(default_factory=dict)
    known: dict[tuple[str, str, int], _Inputs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.result.graph
        for stage in range(len(graph.stages)):
            for microbatch in range(graph.microbatches):
                self.cells[stage, microbatch] = layers(self.result, stage, microbatch)
            if stage < len(graph.stages) - 1:
                self.depart(stage)
        for segment in graph.segments:
            self.orders[segment.name] = _program(graph, segment)

    def depart(self, stage: int) -> None:
        """When each send of a stage starts, over its ranks."""
        graph = self.result.graph
        free = np.zeros((1,) * len(graph.the_mesh.atoms))
        for microbatch in range(graph.microbatches):
            cell = self.cells[stage, microbatch]
            for layer in cell:
                for op in graph.segment(layer.run.segment).ops:
                    for lane in range(graph.lanes if op.stream == "comm" else 0):
                        free = np.maximum(free, layer.start_s + layer.run.finishes[op.name, lane])
            final = cell[-1]
            output = graph.segment(final.run.segment).output
            for lane in range(graph.lanes):
                start = np.maximum(final.start_s + final.run.finishes[output, lane], free)
                self.sends[stage, microbatch, lane] = start
                free = start + self.result.costs.edges[stage].time_s

    # -- times of a node -------------------------------------------------------------------------

    def segment(self, node: PathNode) -> Segment:
        return self.result.graph.segment(self.layer(node).run.segment)

    def layer(self, node: PathNode) -> Layer:
        return self.cells[node.stage, node.microbatch][node.place]

    def starts(self, node: PathNode) -> Since:
        if node.place < 0:
            return 0.0, self.sends[node.stage, node.microbatch, node.lane]
        layer = self.layer(node)
        return layer.start_s, layer.run.starts[node.op, node.lane]

    def finishes(self, node: PathNode) -> Since:
        if node.place < 0:
            return self.result.costs.edges[node.stage].time_s, self.sends[node.stage, node.microbatch, node.lane]
        layer = self.layer(node)
        return layer.start_s, layer.run.finishes[node.op, node.lane]

    # -- the walk --------------------------------------------------------------------------------

    def back(self) -> Iterator[Visit]:
        node, index = self.end()
        counted = True
        while True:
            start, end = _when_s(self.starts(node), index), _when_s(self.finishes(node), index)
            ring = self.ring(node)
            if counted and ring:
                late = max(ring, key=lambda n: _when_s(self.finishes(n), index))
                own = value_at(self.result.costs.ops[self.segment(node).name, node.op].time_s, index)
                if end > start + own + SAME_S:  # the ring's last block came after the attention had done the others
                    node = late
                    continue
            if counted and end > start:
                layer = None if node.place < 0 else self.layer(node)
                name = "" if layer is None else layer.run.segment
                number = None if layer is None else layer.number
                yield Visit(self.seat(node), node.microbatch, number, name, node.op, node.lane, index, start, end)
            found = self.before(node, index)
            if found is None:
                host_s = self.result.schedule.host_s
                if host_s:
                    yield Visit(0, 0, None, "", "host", 0, index, 0.0, host_s)
                return
            node, index, counted = found

    def seat(self, node: PathNode) -> int:
        """Where a node runs, or what it takes across arrives."""
        away = node.place >= 0 and self.segment(node).by_name[node.op].on
        return node.stage + (len(self.result.graph.stages) if away else 0)

    def end(self) -> tuple[PathNode, Index]:
        """What finishes last: the output of the last layer of some cell of the last stage."""
        graph = self.result.graph
        stage = len(graph.stages) - 1
        ends = [
            PathNode(
                stage, m, len(self.cells[stage, m]) - 1, graph.segment(graph.stages[stage].layers[-1][0]).output, lane
            )
            for m in range(graph.microbatches)
            for lane in range(graph.lanes)
        ]
        node = max(ends, key=lambda n: _last_s(self.finishes(n)))
        moment, after = self.finishes(node)
        times = moment + after
        return node, tuple(int(i) for i in np.unravel_index(int(np.argmax(times)), times.shape))

    def before(self, node: PathNode, index: Index) -> tuple[PathNode, Index, bool] | None:
        """What a node waited for, on the rank of its group that came last; None at the very beginning."""
        options = self.options(node)
        if not options:
            return None
        ring = self.ring(node)
        times = [self.starts(n) if n in ring else self.finishes(n) for n in options]
        _, chosen, member = max(
            (
                (_when_s(t, member), n, member)
                for member in self.members(node, index, times)
                for n, t in zip(options, times, strict=True)
            ),
            key=lambda found: found[0],
        )
        return chosen, member, chosen not in ring

    def members(self, node: PathNode, index: Index, times: list[Since]) -> Iterator[Index]:
        """The ranks of a collective's group that can differ."""
        axes = () if node.place < 0 else self.segment(node).by_name[node.op].axes
        mesh = self.result.graph.the_mesh
        long = {k for k in mesh.dimensions(axes) if any(t.shape[k] > 1 for _, t in times)}
        choices = [range(mesh.shape[k]) if k in long else (i,) for k, i in enumerate(index)]
        return itertools.product(*choices)

    def options(self, node: PathNode) -> list[PathNode]:
        """Inputs, and what the stream did before."""
        stage, microbatch, place, _, lane = node
        if place < 0:
            return self.before_send(stage, microbatch, lane)
        needs, fed = self.inputs(node), self.segment(node).input
        nodes: list[PathNode] = []
        for source in needs.sources:
            if source == fed:
                nodes += self.entry(stage, microbatch, place, lane)
            else:
                nodes.append(PathNode(stage, microbatch, place, source, lane))
        if needs.ahead:
            nodes += self.stream_before(stage, microbatch, place, COPY)
        if needs.before is not None:
            nodes.append(PathNode(stage, microbatch, place, *needs.before))
        else:
            nodes += self.stream_before(stage, microbatch, place, needs.stream)
        return nodes

    def inputs(self, node: PathNode) -> _Inputs:
        segment = self.segment(node)
        key = segment.name, node.op, node.lane
        if key not in self.known:
            op = segment.by_name[node.op]
            sources, ahead = segment.waits(op)
            made = (segment.by_name[n] for n in sources if n in segment.by_name)
            turns = (source.name for source in made if isinstance(source.attrs, RingTurnAttrs))
            stream = self.result.graph.stream_of(segment, op)
            order = self.orders[segment.name][stream]
            k = order.index((node.op, node.lane))
            self.known[key] = _Inputs(
                sources, ahead, tuple(turns) if op.ring else (), stream, order[k - 1] if k else None
            )
        return self.known[key]

    def before_send(self, stage: int, microbatch: int, lane: int) -> list[PathNode]:
        place = len(self.cells[stage, microbatch])
        found = self.entry(stage, microbatch, place, lane)
        if lane:
            return [*found, PathNode(stage, microbatch, -1, "send", lane - 1)]
        return found + self.stream_before(stage, microbatch, place, "comm")

    def entry(self, stage: int, microbatch: int, place: int, lane: int) -> list[PathNode]:
        """Where a layer's input comes from: the layer before, or the stage before, or the host."""
        if place:
            segment = self.result.graph.segment(self.cells[stage, microbatch][place - 1].run.segment)
            return [PathNode(stage, microbatch, place - 1, segment.output, lane)]
        return [PathNode(stage - 1, microbatch, -1, "send", lane)] if stage else []

    def stream_before(self, stage: int, microbatch: int, place: int, stream: str) -> list[PathNode]:
        """The last thing that a stream did before a layer."""
        for earlier in range(place - 1, -1, -1):
            order = self.orders[self.cells[stage, microbatch][earlier].run.segment][stream]
            if order:
                return [PathNode(stage, microbatch, earlier, *order[-1])]
        if not microbatch:
            return []
        if stream == "comm" and stage < len(self.result.graph.stages) - 1:
            return [PathNode(stage, microbatch - 1, -1, "send", self.result.graph.lanes - 1)]
        return self.stream_before(stage, microbatch - 1, len(self.cells[stage, microbatch - 1]), stream)

    def ring(self, node: PathNode) -> list[PathNode]:
        """What turns keys and values round to it."""
        if node.place < 0:
            return []
        return [node._replace(op=name) for name in self.inputs(node).turns]


def _when_s(since: Since, index: Index) -> float:
    moment, after = since
    return moment + value_at(after, index)


def _last_s(since: Since) -> float:
    moment, after = since
    return moment + float(after.max())


def _program(graph: Graph, segment: Segment) -> dict[str, list[tuple[str, int]]]:
    """Order of each stream."""
    order: dict[str, list[tuple[str, int]]] = {stream: [] for stream in graph.streams}
    for op, lane in lane_program(segment, graph.lanes):
        order[graph.stream_of(segment, op)].append((op.name, lane))
    return order
