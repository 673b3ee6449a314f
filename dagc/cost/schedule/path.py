"""path: the chain of ops that the time of a layer, or of the layers of a cell, follows from."""

from __future__ import annotations

from math import inf

import numpy as np

from ...base.frozen import field, mutable
from .layer import Evaluation, Layers
from .layer_program import ENTRY
from .moments import RESOLUTION_S, Moment, Node, Rank, at_rank, last_s

Steps = list[tuple[Evaluation, int]]
"""Layers in order with how often each is repeated."""
Trace = list[tuple[Steps, int]]
"""Layers of a cell, as steps with how often they are repeated."""
Departures = tuple[tuple[Moment, Moment], ...]
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
        visits = self.visits
        for key, (count, time_s) in other.visits.items():
            before = visits.get(key)
            if before is None:
                visits[key] = count * times, time_s * times
            else:
                visits[key] = before[0] + count * times, before[1] + time_s * times


@mutable
class Paths:
    """Paths through layers, from an exit on some rank back to an entry. A target is ("ready", lane), or (a stream, 0)."""

    layers: Layers
    memo: dict[tuple[int, str, int, Rank], tuple[Path, Node, Rank]] = field(default_factory=dict)

    def through(
        self,
        trace: Trace,
        target: Node | None = None,
        rank: Rank | None = None,
    ) -> tuple[Path, Node, Rank]:
        """Path through the layers of one cell, from an exit (ready lane, or a stream) back to an entry. Without a rank the one that is
        last; without a target the lane that is."""
        total: Path = Path()
        lanes, streams = trace[-1][0][-1][0].exit
        if target is None or (rank is None and target[0] == "ready"):
            lane = max(range(len(lanes)), key=lambda k: last_s(lanes[k]))
            target, rank = ("ready", lane), self._last(lanes[lane])
        elif rank is None:
            rank = self._last(streams[self.layers.graph.streams.index(target[0])])
        for steps, repeat in reversed(trace):
            left = repeat
            while left > 1:
                found: Path = Path()
                before, where = self._back(steps, target, rank, found)
                times = left if (before, where) == (target, rank) else 1  # the turns before go the same way
                total.add(found, times)
                target, rank = before, where
                left -= times
            if left:
                target, rank = self._back(steps, target, rank, total)
        return total, target, rank

    def _back(self, steps: Steps, target: Node, rank: Rank, total: Path) -> tuple[Node, Rank]:
        """Where the path through some layers comes from; `total` gets what it visits."""
        for evaluation, repeat in reversed(steps):
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
        return target, rank

    def _last(self, found: Moment) -> Rank:
        """The rank that is last."""
        if not isinstance(found, np.ndarray):
            return (0,) * self.layers.ndim
        return tuple(int(x) for x in np.unravel_index(int(np.argmax(found)), found.shape))

    def _trace(self, ev: Evaluation, target: Node, rank: Rank) -> tuple[Path, Node, Rank]:
        found, program, streams = Path(), ev.program, self.layers.graph.streams
        arrivals, starts, ends, _ = ev.ran
        times = self.layers.times
        kind, lane = target
        at = program.results[lane] if kind == "ready" else program.last[streams.index(kind)]
        counted = True
        while at is not None:
            step = program.steps[at]
            own_s = times[step.time]
            if not isinstance(own_s, float):
                own_s = at_rank(own_s, rank)
            if step.rings and at_rank(ends[at], rank) > at_rank(starts[at], rank) + own_s + RESOLUTION_S:
                # The ring's last block came later than the attention was done with the others.
                at = max(step.rings, key=lambda k: at_rank(ends[k], rank))
                continue
            if counted:
                found.step(program.keys[at], own_s)
            counted = True
            arrived = arrivals[at]
            if isinstance(arrived, float):
                latest_s = arrived + RESOLUTION_S
            else:
                rank = self._slowest(arrived, step.axes, rank)
                latest_s = at_rank(arrived, rank) + RESOLUTION_S
            # Of what it waited for, that which came last; of equal ones the first.
            previous, best_s = program.before[at], -inf
            at = None
            for source in step.sources:
                if source == ENTRY:
                    came = ev.entry.ready[step.lane]
                elif source in step.rings:  # attention begins with the ring, on its own block
                    came = starts[source]
                else:
                    came = ends[source]
                came_s = came if isinstance(came, float) else at_rank(came, rank)
                if best_s < came_s <= latest_s:
                    best_s, at = came_s, None if source == ENTRY else source
                    target, counted = ("ready", step.lane), source not in step.rings
            if step.ahead >= 0:
                came_s = at_rank(ev.entry.streams[step.ahead], rank)
                if best_s < came_s <= latest_s:
                    best_s, at = came_s, None
                    target, counted = (streams[step.ahead], 0), True
            came = ev.entry.streams[step.stream] if previous is None else ends[previous]
            came_s = came if isinstance(came, float) else at_rank(came, rank)
            if best_s < came_s <= latest_s:
                target, at, counted = (streams[step.stream], 0), previous, True
        return found, target, rank

    def _slowest(self, arrived: Moment, axes: tuple[int, ...], rank: Rank) -> Rank:
        """The member of a collective's group that arrived last."""
        if not axes or not isinstance(arrived, np.ndarray):
            return rank
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
