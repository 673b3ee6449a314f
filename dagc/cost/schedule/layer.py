"""layer: when the ops of one layer run on their two streams, from when its inputs are ready and the streams free.

A layer is evaluated once per distinct entry state: max-plus maps are homogeneous, so only differences matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...base.frozen import record
from ...ir.graph import Graph, Op, Segment
from ...ir.ops.attributes import RingTurnAttrs
from ..records import Array, Costs

RESOLUTION_S = 1e-13
"""Entry states closer than this count as equal."""

Rank = tuple[int, ...]
Node = tuple[str, int]
"""(op, lane)."""


class State(NamedTuple):
    """When each lane's input is ready and each stream is free, per rank."""

    ready: tuple[Array, ...]
    compute: Array
    comm: Array

    @property
    def arrays(self) -> tuple[Array, ...]:
        return (*self.ready, self.compute, self.comm)


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


@dataclass
class Layers:
    """Layers of a graph, by segment and entry state. `floor`: at datasheet peaks."""

    graph: Graph
    costs: Costs
    floor: bool
    memo: dict[tuple[str, bytes], Evaluation] = field(default_factory=dict)
    programs: dict[str, list[tuple[Op, int]]] = field(default_factory=dict)

    def time(self, segment: str, op: str) -> Array:
        cost = self.costs.ops[segment, op]
        return cost.floor_s if self.floor else cost.time_s

    def evaluate(self, segment: Segment, entry: State) -> Evaluation:
        key = (segment.name, entry_key(entry))
        if key not in self.memo:
            self.memo[key] = self._simulate(segment, entry)
        return self.memo[key]

    def _program(self, segment: Segment) -> list[tuple[Op, int]]:
        if segment.name not in self.programs:
            self.programs[segment.name] = lane_program(segment, self.graph.lanes)
        return self.programs[segment.name]

    def _simulate(self, segment: Segment, entry: State) -> Evaluation:
        axis = self.graph.the_mesh.index
        free = {"compute": entry.compute, "comm": entry.comm}
        last: dict[str, Node | None] = {"compute": None, "comm": None}
        arrivals: dict[Node, Array] = {}
        starts: dict[Node, Array] = {}
        finishes: dict[Node, Array] = {}
        before: dict[Node, Node | None] = {}
        for op, lane in self._program(segment):
            at = free[op.stream]
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
            before[node] = last[op.stream]
            last[op.stream] = node
            free[op.stream] = finish
        ready = tuple(self._output_time(segment, entry, finishes, lane) for lane in range(self.graph.lanes))
        return Evaluation(
            segment.name,
            arrivals,
            starts,
            finishes,
            before,
            entry,
            State(ready, free["compute"], free["comm"]),
            last,
        )

    def _output_time(self, segment: Segment, entry: State, finishes: Mapping[Node, Array], lane: int) -> Array:
        return entry.ready[lane] if segment.output == segment.input else finishes[segment.output, lane]


def ring_inputs(segment: Segment, op: Op, lane: int) -> list[Node]:
    """The ring turns that bring keys and values to a ring attention."""
    sources = (segment.by_name[n] for n in segment.sources(op) if n in segment.by_name)
    return [(source.name, lane) for source in sources if isinstance(source.attrs, RingTurnAttrs)]


def lane_program(segment: Segment, lanes: int) -> list[tuple[Op, int]]:
    """Program order; two lanes alternate at every change of stream, so that one computes while one talks."""
    chunks: list[list[Op]] = []
    for op in segment.ops:
        if not chunks or chunks[-1][-1].stream != op.stream:
            chunks.append([])
        chunks[-1].append(op)
    return [(op, lane) for chunk in chunks for lane in range(lanes) for op in chunk]


def shifted(state: State, by: float) -> State:
    """The same state, later."""
    if by == 0.0:
        return state
    return State(tuple(a + by for a in state.ready), state.compute + by, state.comm + by)


def entry_key(state: State) -> bytes:
    """Entry states that differ by less than the resolution, or by how long a stream has been idle, are one."""
    floor = min(float(a.min()) for a in state.ready)
    parts = [*state.ready, np.maximum(state.compute, floor), np.maximum(state.comm, floor)]
    # Adding zero makes -0.0 and 0.0 one.
    return b"".join((np.round(a / RESOLUTION_S) + 0.0).tobytes() + bytes(str(a.shape), "ascii") for a in parts)


def at_rank(array: Array, rank: Rank) -> float:
    if array.size == 1:
        return float(array.item())
    return float(array[tuple(min(r, n - 1) for r, n in zip(rank, array.shape, strict=True))])
