"""layer_program: the ops of a layer in the order in which its streams take them, and when they run: by sums and maxima alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from ...base.frozen import record
from ...ir.graph import Graph
from ...ir.op import COPY, Op
from ...ir.ops.attributes.moves import RingTurnAttrs
from ...ir.segment import Segment
from .moments import Moment, Node, State, later

ENTRY = -1
"""Names the layer's input among what a step waits for."""


class Step(NamedTuple):
    """An op of a lane. `time`: where its time is in the list of all ops; `takes`: steps that it waits for; `rings`: those of whose ring
    it waits for the end alone; `sources`: all of these in order, `ENTRY` for the layer's input; `axes`: dimensions of the mesh whose ranks
    wait for each other; `ahead`: the stream of the copies that the layer before began for it (none: -1)."""

    time: int
    stream: int
    lane: int
    takes: tuple[int, ...]
    rings: tuple[int, ...]
    entry: bool
    axes: tuple[int, ...]
    sources: tuple[int, ...] = ()
    ahead: int = -1


@record
class Program:
    """A layer: its steps; which of them makes each lane's result (none: what enters); the one before each on its stream, and the
    last of each stream; the op of each, and its (segment, name); the place of each (op, lane)."""

    steps: tuple[Step, ...]
    results: tuple[int | None, ...]
    before: tuple[int | None, ...]
    last: tuple[int | None, ...]
    ops: tuple[Op, ...]
    keys: tuple[tuple[str, str], ...]
    places: Mapping[Node, int]


def program(graph: Graph, segment: Segment, places: Mapping[tuple[str, str], int]) -> Program:
    """`places`: where the time of each (segment, op) is in the list that a schedule is given. Graphs that differ in sizes alone share it."""
    key = graph.lanes, graph.streams, tuple([places[segment.name, op.name] for op in segment.ops])
    known = segment.programs.get(key)
    if known is None or known[0] is not graph.mesh:
        made = _program(graph, segment, dict(zip([op.name for op in segment.ops], key[2], strict=True)))
        known = segment.programs[key] = graph.mesh, made
    found: Program = known[1]
    return found


def _program(graph: Graph, segment: Segment, times: Mapping[str, int]) -> Program:
    """`times`: where the time of each op is. Behind the ops come those that ran between kernels of
    others, whose time follows on their streams."""
    lanes, streams, mesh = graph.lanes, graph.streams, graph.the_mesh
    at: dict[Node, int] = {}
    steps: list[Step] = []
    ops: list[Op] = []
    for op, lane in lane_program(segment, lanes):
        takes: list[int] = []
        rings: list[int] = []
        sources: list[int] = []
        names, copied = segment.waits(op)
        for name in names:
            source = ENTRY if name == segment.input else at[name, lane]
            sources.append(source)
            if source != ENTRY:
                turns = op.ring and isinstance(segment.by_name[name].attrs, RingTurnAttrs)
                (rings if turns else takes).append(source)
        at[op.name, lane] = len(steps)
        axes = mesh.dimensions(op.axes)
        stream = streams.index(graph.stream_of(segment, op))
        entry = ENTRY in sources
        ahead = streams.index(COPY) if copied else -1
        steps.append(Step(times[op.name], stream, lane, tuple(takes), tuple(rings), entry, axes, tuple(sources), ahead))
        ops.append(op)
    for op, lane in between(segment, lanes):
        steps.append(Step(times[op.name], streams.index(op.stream), lane, (), (), False, ()))
        ops.append(op)
    ends = tuple(None if segment.output == segment.input else at[segment.output, lane] for lane in range(lanes))
    last: list[int | None] = [None] * len(streams)
    before: list[int | None] = []
    for k, step in enumerate(steps):
        before.append(last[step.stream])
        last[step.stream] = k
    keys = tuple((segment.name, op.name) for op in ops)
    return Program(tuple(steps), ends, tuple(before), tuple(last), tuple(ops), keys, at)


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


class Ran(NamedTuple):
    """When each step of a layer arrived (before a collective waits for its group), started and ended, and the state behind it."""

    arrivals: list[Moment]
    starts: list[Moment]
    ends: list[Moment]
    exit: State


def run_even(program: Program, entry: State, times: Sequence[float]) -> Ran:
    """On numbers: where all ranks run alike nobody waits for others."""
    ready, streams = cast("tuple[tuple[float, ...], ...]", entry)
    free = list(streams)
    starts: list[float] = []
    ends: list[float] = []
    for time, stream, lane, takes, rings, enters, _, _, ahead in program.steps:
        at = free[stream]
        if enters and ready[lane] > at:
            at = ready[lane]
        for k in takes:
            if ends[k] > at:
                at = ends[k]
        for k in rings:
            if starts[k] > at:  # the first block is local: only the end waits
                at = starts[k]
        if ahead >= 0 and streams[ahead] > at:
            at = streams[ahead]
        end = at + times[time]
        for k in rings:
            if ends[k] > end:
                end = ends[k]
        starts.append(at)
        ends.append(end)
        free[stream] = end
    return _ran(program, entry, starts, starts, ends, free)


def run_uneven(program: Program, entry: State, times: Sequence[Moment]) -> Ran:
    """The same where ranks may differ."""
    ready, streams = entry
    free = list(streams)
    arrivals: list[Moment] = []
    starts: list[Moment] = []
    ends: list[Moment] = []
    for time, stream, lane, takes, rings, enters, axes, _, ahead in program.steps:
        at = free[stream]
        if enters:
            at = later(at, ready[lane])
        for k in takes:
            at = later(at, ends[k])
        for k in rings:
            at = later(at, starts[k])
        if ahead >= 0:
            at = later(at, streams[ahead])
        arrivals.append(at)
        if axes and not isinstance(at, float):
            at = at.max(axis=axes, keepdims=True)
            at = float(at.item()) if at.size == 1 else at
        end = at + times[time]
        for k in rings:
            end = later(end, ends[k])
        starts.append(at)
        ends.append(end)
        free[stream] = end
    return _ran(program, entry, arrivals, starts, ends, free)


def _ran(program: Program, entry: State, arrivals: Any, starts: Any, ends: Any, free: Sequence[Moment]) -> Ran:
    left = tuple([entry[0][lane] if k is None else ends[k] for lane, k in enumerate(program.results)])
    return Ran(arrivals, starts, ends, State(left, tuple(free)))
