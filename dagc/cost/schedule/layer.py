"""layer: when the ops of one layer run on their two streams, from when its inputs are ready and the streams free.

A layer is evaluated once per distinct entry state: max-plus maps are homogeneous, so only differences matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ...base.frozen import field, mutable, record
from ...ir.graph import Graph, Op, Segment
from ...ir.ops.attributes import RingTurnAttrs
from ..records import Array, Costs

RESOLUTION_S = 1e-13
"""Entry states closer than this count as equal."""

Rank = tuple[int, ...]
Node = tuple[str, int]
"""(op, lane)."""
Turn = tuple[Op, int, str]
"""An op of a lane, and its stream."""


class State(NamedTuple):
    """When each lane's input is ready and each stream of the graph is free, per rank."""

    ready: tuple[Array, ...]
    streams: tuple[Array, ...]


@record(slots=False)
class Evaluation:
    """One layer from one entry state, times relative to the entry's latest ready time."""

    segment: str
    arrivals: Mapping[Node, Array]  # before a collective waits for its group
    starts: Mapping[Node, Array]
    finishes: Mapping[Node, Array]
    before: Mapping[Node, Node | None]  # stream predecessor
    entry: State
    exit: State
    last: Mapping[str, Node | None]  # last node of each stream
    taken: Mapping[
        Node, tuple[Array, Array]
    ]  # start and end of the time that ops between kernels take others (`Segment.between`)

    def start(self, node: Node) -> Array:
        return self.taken[node][0] if node in self.taken else self.starts[node]

    def finish(self, node: Node) -> Array:
        return self.taken[node][1] if node in self.taken else self.finishes[node]


@mutable
class Layers:
    """Layers of a graph, by segment and entry state. `floor`: at datasheet peaks."""

    graph: Graph
    costs: Costs
    floor: bool
    memo: dict[tuple[str, bytes], Evaluation] = field(default_factory=dict)
    programs: dict[str, list[Turn]] = field(default_factory=dict)

    def time(self, segment: str, op: str) -> Array:
        cost = self.costs.ops[segment, op]
        return cost.floor_s if self.floor else cost.time_s

    def evaluate(self, segment: Segment, entry: State) -> Evaluation:
        key = (segment.name, entry_key(entry))
        if key not in self.memo:
            self.memo[key] = self._simulate(segment, entry)
        return self.memo[key]

    def _program(self, segment: Segment) -> list[Turn]:
        if segment.name not in self.programs:
            streams = {op.name: self.graph.stream_of(segment, op) for op in segment.ops}
            self.programs[segment.name] = [
                (op, lane, streams[op.name]) for op, lane in lane_program(segment, self.graph.lanes)
            ]
        return self.programs[segment.name]

    def _simulate(self, segment: Segment, entry: State) -> Evaluation:
        axis = self.graph.the_mesh.index
        streams = self.graph.streams
        free = dict(zip(streams, entry.streams, strict=True))
        last: dict[str, Node | None] = dict.fromkeys(streams)
        arrivals: dict[Node, Array] = {}
        starts: dict[Node, Array] = {}
        finishes: dict[Node, Array] = {}
        before: dict[Node, Node | None] = {}
        for op, lane, stream in self._program(segment):
            at = free[stream]
            end = None
            for name in segment.sources(op):
                if name == segment.input:
                    at = np.maximum(at, entry.ready[lane])
                elif op.ring and isinstance(segment.by_name[name].attrs, RingTurnAttrs):
                    at = np.maximum(at, starts[name, lane])  # the first block is local: only the end waits
                    end = finishes[name, lane] if end is None else np.maximum(end, finishes[name, lane])
                else:
                    at = np.maximum(at, finishes[name, lane])
            node = (op.name, lane)
            arrivals[node] = at
            start = at.max(axis=tuple(axis[a] for a in op.axes), keepdims=True) if op.axes else at
            finish = start + self.time(segment.name, op.name)
            if end is not None:
                finish = np.maximum(finish, end)
            starts[node], finishes[node] = start, finish
            before[node] = last[stream]
            last[stream] = node
            free[stream] = finish
        taken: dict[Node, tuple[Array, Array]] = {}
        for op, lane in between(segment, self.graph.lanes):
            node = (op.name, self.graph.lanes + lane)
            start = free[op.stream]
            free[op.stream] = start + self.time(segment.name, op.name)
            taken[node] = start, free[op.stream]
            before[node], last[op.stream] = last[op.stream], node
        ready = tuple(self._output_time(segment, entry, finishes, lane) for lane in range(self.graph.lanes))
        return Evaluation(
            segment.name,
            arrivals,
            starts,
            finishes,
            before,
            entry,
            State(ready, tuple(free.values())),
            last,
            taken,
        )

    def _output_time(self, segment: Segment, entry: State, finishes: Mapping[Node, Array], lane: int) -> Array:
        return entry.ready[lane] if segment.output == segment.input else finishes[segment.output, lane]


def ring_inputs(segment: Segment, op: Op, lane: int) -> list[Node]:
    """The ring turns that bring keys and values to a ring attention."""
    sources = (segment.by_name[n] for n in segment.sources(op) if n in segment.by_name)
    return [(source.name, lane) for source in sources if isinstance(source.attrs, RingTurnAttrs)]


def lane_program(segment: Segment, lanes: int) -> list[tuple[Op, int]]:
    """Program order; two lanes alternate at every change of stream, so that one computes while one talks. Lanes that take turns at
    attention and at experts elsewhere alternate where tokens go across."""
    across = segment.crosses
    chunks: list[list[Op]] = []
    turn: str | None = None
    for op in segment.ops:
        own = op.stream if op.is_across or not across else op.on
        if own != turn:
            chunks.append([])
        turn = own
        chunks[-1].append(op)
    return [(op, lane) for chunk in chunks for lane in range(lanes) for op in chunk]


def between(segment: Segment, lanes: int) -> list[tuple[Op, int]]:
    """Ops whose time follows on their streams, as they ran between kernels of other lanes."""
    return (
        [(op, lane) for lane in range(lanes) for op in segment.ops if op.name in segment.between] if lanes > 1 else []
    )


def shifted(state: State, by: float) -> State:
    """The same state, later."""
    if by == 0.0:
        return state
    return State(tuple(a + by for a in state.ready), tuple(a + by for a in state.streams))


def entry_key(state: State) -> bytes:
    """Entry states that differ by less than the resolution, or by how long a stream has been idle, are one."""
    floor = min(float(a.min()) for a in state.ready)
    parts = [*state.ready, *(np.maximum(stream, floor) for stream in state.streams)]
    # Adding zero makes -0.0 and 0.0 one.
    return b"".join((np.round(a / RESOLUTION_S) + 0.0).tobytes() + bytes(str(a.shape), "ascii") for a in parts)


def at_rank(array: Array, rank: Rank) -> float:
    if array.size == 1:
        return float(array.item())
    return float(array[tuple(min(r, n - 1) for r, n in zip(rank, array.shape, strict=True))])
