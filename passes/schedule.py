"""schedule: start and finish of every op, from data edges and two streams a rank, folded.

A layer is evaluated once per distinct entry state (max-plus maps are homogeneous, so only differences matter);
alike layers repeat as soon as the state repeats; stages and micro-batches chain by the pipeline recurrence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dagc.cost.records import Array, Costs
from dagc.cost.schedule.microbatches import Column, Columns, walk
from dagc.cost.schedule.records import PathStep, Run, Schedule
from dagc.ir.graph import Graph, Op, Segment
from dagc.ir.ops.attributes import RingTurnAttrs
from dagc.spec.unit import Unit

ABOUT = "schedule two streams a rank over stages and micro-batches; find the critical path"

RESOLUTION_S = 1e-13
"""Entry states closer than this count as equal."""

HOST = ("", "host")
"""Names the host's time in a path."""

Rank = tuple[int, ...]


class State(NamedTuple):
    """When each lane's input is ready and each stream is free, per rank."""

    ready: tuple[Array, ...]
    compute: Array
    comm: Array

    @property
    def arrays(self) -> tuple[Array, ...]:
        return (*self.ready, self.compute, self.comm)


@dataclass
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


@dataclass(frozen=True)
class Evaluation:
    """One layer from one entry state, times relative to the entry's latest ready time."""

    segment: str
    arrivals: Mapping[tuple[str, int], Array]  # before a collective waits for its group
    starts: Mapping[tuple[str, int], Array]
    finishes: Mapping[tuple[str, int], Array]
    before: Mapping[tuple[str, int], tuple[str, int] | None]  # stream predecessor
    entry: State
    exit: State
    last: Mapping[str, tuple[str, int] | None]  # last node of each stream


Trace = list[tuple[Evaluation, int]]
Departures = tuple[tuple[Array, Array], ...]
"""When each lane's result was ready to be sent, and the stream free to send it."""


@dataclass(frozen=True)
class Cells:
    """What a micro-batch waited for in each stage."""

    traces: tuple[Trace, ...]
    departures: tuple[Departures, ...]


def run(graph: Graph, costs: Costs, unit: Unit, *, floor: bool = False) -> Schedule:
    return Scheduler(graph, costs, unit, floor).run()


@dataclass
class Scheduler:
    graph: Graph
    costs: Costs
    unit: Unit
    floor: bool
    memo: dict[tuple[str, bytes], Evaluation] = field(default_factory=dict)
    programs: dict[str, list[tuple[Op, int]]] = field(default_factory=dict)
    paths: dict[tuple[int, str, int, Rank], tuple[Path, tuple[str, int], Rank]] = field(default_factory=dict)

    def run(self) -> Schedule:
        p, m = len(self.graph.stages), self.graph.microbatches
        zero = np.zeros((1,) * len(self.graph.the_mesh.atoms))
        host = zero if self.floor else zero + self.costs.host_s
        idle = State((zero,) * self.graph.lanes, zero, zero)
        columns = walk(lambda before: self.column(before, host), m)
        latency = max(c.ready_s for c in columns.columns)
        alone = [self.cell(i, idle) for i in range(p)]
        stage_s = tuple(max(float(a.max()) for a in out.ready) for _, _, out in alone)
        edge = self.edge_s()
        period, path = latency, self.pipeline_path(columns, p)
        if self.graph.kind == "decode":
            around = sum(stage_s) + (p - 1) * edge + self.return_s()
            period = max(around, m * max(stage_s)) + float(host.max())
            slowest = int(np.argmax(stage_s))
            chain = {i: 1 for i in range(p)} if around >= m * max(stage_s) else {slowest: m}
            path = Path()
            for i, times in chain.items():
                path.add(self.cell_path(alone[i][1])[0], times)
            if around >= m * max(stage_s) and p > 1:
                path.step(("", "send"), (p - 1) * edge, p - 1)
                path.step(("", "token_return"), self.return_s())
        if host.any():
            path.step(HOST, float(host.max()))
        return Schedule(
            columns.rows(), columns.all_sends(), latency, period, stage_s, self.steps(path), float(host.max())
        )

    def column(self, before: Column[Cells] | None, host: Array) -> Column[Cells]:
        """The micro-batch after another one, through all stages."""
        p, lanes = len(self.graph.stages), self.graph.lanes
        states = before.states if before is not None else (np.zeros_like(host),) * (2 * p)
        ready = (host,) * lanes  # the host is done with all of a pass before the GPUs begin
        cells, sends, after, traces, departures = [], [], [], [], []
        done = 0.0
        for i in range(p):
            runs, trace, out = self.cell(i, State(ready, states[2 * i], states[2 * i + 1]))
            if i < p - 1:
                out, ready, sent, left = self.send(out)
                sends.append(sent)
                departures.append(left)
            cells.append(tuple(runs))
            traces.append(trace)
            after += [out.compute, out.comm]
            done = max(done, max(float(a.max()) for a in out.ready))
        return Column(tuple(cells), tuple(sends), tuple(after), done, Cells(tuple(traces), tuple(departures)))

    # -- times -----------------------------------------------------------------------------------

    def time(self, segment: str, op: str) -> Array:
        cost = self.costs.ops[segment, op]
        return cost.floor_s if self.floor else cost.time_s

    def edge_s(self) -> float:
        return self.costs.transfer.floor_s if self.floor else self.costs.transfer.time_s

    def return_s(self) -> float:
        return self.costs.token_return.floor_s if self.floor else self.costs.token_return.time_s

    # -- one stage, one micro-batch --------------------------------------------------------------

    def cell(self, stage: int, state: State) -> tuple[list[Run], list[tuple[Evaluation, int]], State]:
        """Run a stage's layers from a state: its runs, its evaluations with repeat counts, the exit state."""
        runs: list[Run] = []
        trace: list[tuple[Evaluation, int]] = []
        for name, count in self.graph.stages[stage].layers:
            left = count
            while left:
                base = max(float(a.max()) for a in state.ready)
                found = self.evaluate(self.graph.segment(name), _shift(state, -base))
                after = _shift(found.exit, base)
                period = max(float(a.max()) for a in after.ready) - base
                repeat = left if _key(_shift(found.exit, -period)) == _key(found.entry) else 1
                runs.append(Run(name, repeat, base, period, found.starts, found.finishes))
                trace.append((found, repeat))
                state = _shift(after, period * (repeat - 1))
                left -= repeat
        return runs, trace, state

    def send(self, out: State) -> tuple[State, tuple[Array, ...], tuple[float, float], Departures]:
        """The communication stream sends each lane's result to the next stage."""
        comm = out.comm
        arrivals, departures = [], []
        begin = 0.0
        for ready in out.ready:
            start = np.maximum(ready, comm)
            departures.append((ready, comm))
            comm = start + self.edge_s()
            begin = float(start.max())
            arrivals.append(comm)
        return State(out.ready, out.compute, comm), tuple(arrivals), (begin, float(comm.max())), tuple(departures)

    def evaluate(self, segment: Segment, entry: State) -> Evaluation:
        key = (segment.name, _key(entry))
        if key not in self.memo:
            self.memo[key] = self.simulate(segment, entry)
        return self.memo[key]

    def program(self, segment: Segment) -> list[tuple[Op, int]]:
        if segment.name not in self.programs:
            self.programs[segment.name] = lane_program(segment, self.graph.lanes)
        return self.programs[segment.name]

    def simulate(self, segment: Segment, entry: State) -> Evaluation:
        axis = self.graph.the_mesh.index
        free = {"compute": entry.compute, "comm": entry.comm}
        last: dict[str, tuple[str, int] | None] = {"compute": None, "comm": None}
        arrivals: dict[tuple[str, int], Array] = {}
        starts: dict[tuple[str, int], Array] = {}
        finishes: dict[tuple[str, int], Array] = {}
        before: dict[tuple[str, int], tuple[str, int] | None] = {}
        for op, lane in self.program(segment):
            at = free[op.stream]
            end = None
            for name in op.inputs:
                if name.startswith("@"):
                    continue
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
        ready = tuple(self.output_time(segment, entry, finishes, lane) for lane in range(self.graph.lanes))
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

    def output_time(
        self, segment: Segment, entry: State, finishes: Mapping[tuple[str, int], Array], lane: int
    ) -> Array:
        return entry.ready[lane] if segment.output == segment.input else finishes[segment.output, lane]

    # -- critical path ---------------------------------------------------------------------------

    def pipeline_path(self, columns: Columns[Cells], p: int) -> Path:
        """Backwards from the last cell: a cell began when its input arrived or when its streams were free."""
        total: Path = Path()
        i, j = p - 1, columns.count - 1
        target: tuple[str, int] = ("ready", 0)
        rank: Rank | None = None
        seen: dict[tuple[object, ...], tuple[int, Path]] = {}
        while True:
            piece = columns.piece(j)
            first, period = piece.first, piece.period
            if period and rank is not None:
                # Micro-batches that repeat a period: once the way back repeats too, it is taken as often as it fits.
                key = (first, i, (j - first) % period, target, rank)
                if key in seen:
                    later, then = seen[key]
                    times = (j - first) // (later - j) - 1
                    if times > 0:
                        total.add(total.since(then), times)
                        j -= times * (later - j)
                    seen.clear()
                else:
                    seen[key] = j, total.copy()
            found, target, rank = self.cell_path(columns.own(j).traces[i], target, rank)
            total.add(found)
            if target[0] == "ready" and i > 0:
                i -= 1
                sends, target = send_path(columns.own(j).departures[i], target[1], rank)
                total.step(("", "send"), sends * self.edge_s(), sends)
            elif target[0] == "comm" and i < p - 1 and j > 0:
                j -= 1  # the stream was busy with the previous micro-batch's sends
                sends, target = send_path(columns.own(j).departures[i], self.graph.lanes - 1, rank)
                total.step(("", "send"), sends * self.edge_s(), sends)
            elif target[0] != "ready" and j > 0:
                j -= 1
            else:
                return total

    def cell_path(
        self,
        trace: list[tuple[Evaluation, int]],
        target: tuple[str, int] = ("ready", 0),
        rank: Rank | None = None,
    ) -> tuple[Path, tuple[str, int], Rank]:
        """Path through the layers of one cell, from an exit (ready lane, compute or comm) back to an entry."""
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
                if key not in self.paths:
                    self.paths[key] = self.trace(evaluation, target, rank)
                found, before, where = self.paths[key]
                times = left if (before, where) == (target, rank) else 1  # the layers before go the same way
                total.add(found, times)
                target, rank = before, where
                left -= times
        return total, target, rank

    def trace(self, ev: Evaluation, target: tuple[str, int], rank: Rank) -> tuple[Path, tuple[str, int], Rank]:
        segment = self.graph.segment(ev.segment)
        found = Path()
        kind, lane = target
        if kind == "ready":
            node = None if segment.output == segment.input else (segment.output, lane)
        else:
            node = ev.last[kind]
        counted = True
        while node is not None:
            op = segment.by_name[node[0]]
            own_s = _at(self.time(ev.segment, op.name), rank)
            if op.ring and _at(ev.finishes[node], rank) > _at(ev.starts[node], rank) + own_s + RESOLUTION_S:
                # The ring's last block came later than the attention was done with the others.
                node = max(self.ring_inputs(segment, op, node[1]), key=lambda n: _at(ev.finishes[n], rank))
                continue
            if counted:
                found.step((ev.segment, op.name), own_s)
            counted = True
            rank = self.slowest(ev, node, op, rank)
            moment = _at(ev.arrivals[node], rank)
            options: list[tuple[float, tuple[str, int], tuple[str, int] | None, bool]] = []
            ring = self.ring_inputs(segment, op, node[1]) if op.ring else []
            for name in op.inputs:
                before = (name, node[1])
                if name == segment.input:
                    options.append((_at(ev.entry.ready[node[1]], rank), ("ready", node[1]), None, True))
                elif before in ring:  # attention begins with the ring, on its own block
                    options.append((_at(ev.starts[before], rank), ("", 0), before, False))
                elif not name.startswith("@"):
                    options.append((_at(ev.finishes[before], rank), ("", 0), before, True))
            previous = ev.before[node]
            if previous is None:
                free = ev.entry.compute if op.stream == "compute" else ev.entry.comm
                options.append((_at(free, rank), (op.stream, 0), None, True))
            else:
                options.append((_at(ev.finishes[previous], rank), ("", 0), previous, True))
            usable = [o for o in options if o[0] <= moment + RESOLUTION_S]
            _, target, node, counted = max(usable, key=lambda o: o[0])
        return found, target, rank

    def ring_inputs(self, segment: Segment, op: Op, lane: int) -> list[tuple[str, int]]:
        """The permutes that bring keys and values round to a ring attention."""
        return [
            (n, lane) for n in op.inputs if n in segment.by_name and isinstance(segment.by_name[n].attrs, RingTurnAttrs)
        ]

    def slowest(self, ev: Evaluation, node: tuple[str, int], op: Op, rank: Rank) -> Rank:
        """The member of a collective's group that arrived last."""
        arrived = ev.arrivals[node]
        if not op.axes or arrived.size == 1:
            return rank
        axes = [self.graph.the_mesh.index[a] for a in op.axes]
        index = tuple(slice(None) if k in axes else min(rank[k], arrived.shape[k] - 1) for k in range(arrived.ndim))
        part = arrived[index]
        best = np.unravel_index(int(np.argmax(part)), part.shape)
        out = list(rank)
        for k, b in zip(sorted(axes), best, strict=True):
            out[k] = int(b)
        return tuple(out)

    def steps(self, path: Path) -> tuple[PathStep, ...]:
        """The path as a chain in program order, all executions of an op added up; launches apart from the kernels they precede."""
        order = {(s.name, op.name): k for k, (s, op) in enumerate((s, op) for s in self.graph.segments for op in s.ops)}
        steps = []
        launches, launching_s = 0, 0.0
        for key, (count, time_s) in sorted(path.visits.items(), key=lambda kv: order.get(kv[0], len(order))):
            segment, name = key
            if segment:
                op, cost = self.graph.segment(segment).by_name[name], self.costs.ops[key]
                launch_s = 0.0 if self.floor else min(time_s, count * cost.launch_s)
                if launch_s:
                    launches, launching_s = launches + count, launching_s + launch_s
                steps.append(PathStep(segment, name, op.kind, time_s - launch_s, count, cost.bound))
            elif key == HOST:
                steps.insert(0, PathStep("", "host", "host", time_s, count, "host"))
            else:
                edge = self.costs.transfer if name == "send" else self.costs.token_return
                steps.append(PathStep("", name, "send", time_s, count, edge.bound))
        if launches:
            steps.append(PathStep("", "launch", "launch", launching_s, launches, "launch"))
        return tuple(steps)


def send_path(departures: Departures, lane: int, rank: Rank) -> tuple[int, tuple[str, int]]:
    """Sends in a row before this lane's message left, and what the first of them had waited for."""
    count = 0
    while True:
        count += 1
        ready, stream = departures[lane]
        if _at(ready, rank) >= _at(stream, rank) - RESOLUTION_S:
            return count, ("ready", lane)
        if lane == 0:
            return count, ("comm", 0)
        lane -= 1


def lane_program(segment: Segment, lanes: int) -> list[tuple[Op, int]]:
    """Program order; two lanes alternate at every change of stream, so that one computes while one talks."""
    chunks: list[list[Op]] = []
    for op in segment.ops:
        if not chunks or chunks[-1][-1].stream != op.stream:
            chunks.append([])
        chunks[-1].append(op)
    return [(op, lane) for chunk in chunks for lane in range(lanes) for op in chunk]


def _shift(state: State, by: float) -> State:
    if by == 0.0:
        return state
    return State(tuple(a + by for a in state.ready), state.compute + by, state.comm + by)


def _key(state: State) -> bytes:
    """Entry states that differ by less than the resolution, or by how long a stream has been idle, are one."""
    floor = min(float(a.min()) for a in state.ready)
    parts = [*state.ready, np.maximum(state.compute, floor), np.maximum(state.comm, floor)]
    # Adding zero makes -0.0 and 0.0 one.
    return b"".join((np.round(a / RESOLUTION_S) + 0.0).tobytes() + bytes(str(a.shape), "ascii") for a in parts)


def _at(array: Array, rank: Rank) -> float:
    return float(array[tuple(min(r, n - 1) for r, n in zip(rank, array.shape, strict=True))])
