"""path: the chain of ops that the time of a layer, or of the layers of a cell, follows from."""

from __future__ import annotations

import numpy as np

from ...base.frozen import field, mutable
from ...ir.graph import Op
from ..records import Array
from .layer import RESOLUTION_S, Evaluation, Layers, Node, Rank, at_rank, ring_inputs

Trace = list[tuple[Evaluation, int]]
"""Layers of a cell with how often each is repeated."""
Departures = tuple[tuple[Array, Array], ...]
"""When each lane's result was ready to be sent, and the stream free to send it."""


@mutable
class Path:
    """A stretch of the critical path: (segment, op) -> (executions, seconds)."""

    visits: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

    def step(self, key: tuple[str, str], time_s: float, count: int = 1) -> None:
        before = self.visits.get(key, (0, 0.0))
        self.visits[key] = (before[0] + count, before[1] + time_s)

    def copy(self) -> Path:
        return Path(dict(self.visits))

    def since(self, before: Path) -> Path:
        """What came since it was a copy of `before`."""
        none = (0, 0.0)
        gained = {
            k: (n - before.visits.get(k, none)[0], t - before.visits.get(k, none)[1])
            for k, (n, t) in self.visits.items()
        }
        return Path({k: v for k, v in gained.items() if v[0]})

    def add(self, other: Path, times: int = 1) -> None:
        for key, (count, time_s) in other.visits.items():
            self.step(key, time_s * times, count * times)


@mutable
class Paths:
    """Paths through layers, from an exit on some rank back to an entry."""

    layers: Layers
    memo: dict[tuple[int, str, int, Rank], tuple[Path, Node, Rank]] = field(default_factory=dict)

    def through(
        self,
        trace: Trace,
        target: Node = ("ready", 0),
        rank: Rank | None = None,
    ) -> tuple[Path, Node, Rank]:
        """Path through the layers of one cell, from an exit (ready lane, or a stream) back to an entry."""
        total: Path = Path()
        if rank is None:
            lanes = trace[-1][0].exit.ready
            lane = max(range(len(lanes)), key=lambda k: float(lanes[k].max()))
            target = ("ready", lane)
            rank = tuple(int(x) for x in np.unravel_index(int(np.argmax(lanes[lane])), lanes[lane].shape))
        for evaluation, repeat in reversed(trace):
            left = repeat
            while left:
                key = (id(evaluation), *target, rank)
                if key not in self.memo:
                    self.memo[key] = self._trace(evaluation, target, rank)
                found, before, where = self.memo[key]
                times = left if (before, where) == (target, rank) else 1  # the layers before go the same way
                total.add(found, times)
                target, rank = before, where
                left -= times
        return total, target, rank

    def _trace(self, ev: Evaluation, target: Node, rank: Rank) -> tuple[Path, Node, Rank]:
        segment = self.layers.graph.segment(ev.segment)
        found = Path()
        kind, lane = target
        if kind == "ready":
            node = None if segment.output == segment.input else (segment.output, lane)
        else:
            node = ev.last[kind]
        counted = True
        lanes = self.layers.graph.lanes
        while node is not None:
            op = segment.by_name[node[0]]
            taken = node[1] >= lanes
            own_s = at_rank(self.layers.time(ev.segment, op.name), rank)
            if (
                op.ring
                and not taken
                and at_rank(ev.finishes[node], rank) > at_rank(ev.starts[node], rank) + own_s + RESOLUTION_S
            ):
                # The ring's last block came later than the attention was done with the others.
                node = max(ring_inputs(segment, op, node[1]), key=lambda n: at_rank(ev.finishes[n], rank))
                continue
            if counted:
                found.step((ev.segment, op.name), own_s)
            counted = True
            rank = rank if taken else self._slowest(ev, node, op, rank)
            moment = at_rank(ev.start(node) if taken else ev.arrivals[node], rank)
            options: list[tuple[float, Node, Node | None, bool]] = []
            ring = ring_inputs(segment, op, node[1]) if op.ring else []
            for name in () if taken else segment.sources(op):
                before = (name, node[1])
                if name == segment.input:
                    options.append((at_rank(ev.entry.ready[node[1]], rank), ("ready", node[1]), None, True))
                elif before in ring:  # attention begins with the ring, on its own block
                    options.append((at_rank(ev.starts[before], rank), ("", 0), before, False))
                else:
                    options.append((at_rank(ev.finishes[before], rank), ("", 0), before, True))
            previous = ev.before[node]
            if previous is None:
                stream = op.stream if taken else self.layers.graph.stream_of(segment, op)
                free = ev.entry.streams[self.layers.graph.streams.index(stream)]
                options.append((at_rank(free, rank), (stream, 0), None, True))
            else:
                options.append((at_rank(ev.finish(previous), rank), ("", 0), previous, True))
            usable = [o for o in options if o[0] <= moment + RESOLUTION_S]
            _, target, node, counted = max(usable, key=lambda o: o[0])
        return found, target, rank

    def _slowest(self, ev: Evaluation, node: Node, op: Op, rank: Rank) -> Rank:
        """The member of a collective's group that arrived last."""
        arrived = ev.arrivals[node]
        if not op.axes or arrived.size == 1:
            return rank
        axes = [self.layers.graph.the_mesh.index[a] for a in op.axes]
        index = tuple(slice(None) if k in axes else min(rank[k], arrived.shape[k] - 1) for k in range(arrived.ndim))
        part = arrived[index]
        best = np.unravel_index(int(np.argmax(part)), part.shape)
        out = list(rank)
        for k, b in zip(sorted(axes), best, strict=True):
            out[k] = int(b)
        return tuple(out)


def send_path(departures: Departures, lane: int, rank: Rank) -> tuple[int, Node]:
    """Sends in a row before this lane's message left, and what the first of them had waited for."""
    count = 0
    while True:
        count += 1
        ready, stream = departures[lane]
        if at_rank(ready, rank) >= at_rank(stream, rank) - RESOLUTION_S:
            return count, ("ready", lane)
        if lane == 0:
            return count, ("comm", 0)
        lane -= 1
