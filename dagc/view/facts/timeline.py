"""When each rank does what: the slices of one rank, and which ranks behave the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ...base.arrays import NDArray
from ...base.by_identity import ByIdentity
from ...base.frozen import record
from ...cost.records import Array, index_at, value_at
from ...cost.schedule.records import Run
from ...ir.op import COMM, COMPUTE, COPY, Op
from ...ir.requests import request_moves
from ...ir.segment import Segment
from ...plan.result import PhaseResult
from .request_times import begin_s, took_s

Index = tuple[int, ...]
"""Mesh coordinates of a rank within its stage."""


@record
class Member:
    """A rank that represents `alike` ranks of its stage, itself included; `group` numbers the class in the stage. Stages are
    numbered as `PhaseResult.seats`."""

    stage: int
    index: Index
    gpu: int
    group: int
    alike: int


@record
class Layer:
    """One layer of a cell (stage, micro-batch): `number` counts transformer layers from 0, the embedding is -1."""

    run: Run
    number: int
    start_s: float


@record
class Slice:
    """One execution on one stream of one rank. A send has no segment and layer None, nor has the host's time."""

    op: str
    kind: str
    stream: str
    segment: str
    layer: int | None
    microbatch: int
    lane: int
    start_s: float
    end_s: float

    @property
    def key(self) -> Key:
        return (self.microbatch, self.layer, self.op, self.lane)


@record
class Cell:
    """One micro-batch on one rank, without what it sends to the next stage; `compute_s` and `comm_s` that its streams are busy."""

    microbatch: int
    start_s: float
    end_s: float
    compute_s: float
    comm_s: float


Key = tuple[int, int | None, str, int]
"""(micro-batch, layer, op, lane): names an execution within a stage."""


def classes(result: PhaseResult, stage: int) -> list[Member]:
    """One member a class of ranks that do everything at the same moments, the slowest class first."""
    seat = result.seats[stage]
    shape, gpus = result.graph.the_mesh.side_shape(seat.on), seat.gpus
    found, busy = labels(result, stage)
    _, firsts, counts = np.unique(found, return_index=True, return_counts=True)
    order = sorted(range(len(firsts)), key=lambda k: (-busy[firsts[k]], int(firsts[k])))
    return [
        Member(
            stage,
            tuple(int(i) for i in np.unravel_index(int(firsts[k]), shape)),
            gpus[int(firsts[k])],
            k,
            int(counts[k]),
        )
        for k in order
    ]


def cell_of(result: PhaseResult, seat: int) -> int:
    """The stage of the graph whose cells ranks of a seat run."""
    return seat % len(result.graph.stages)


def rank_of(result: PhaseResult, seat: int, index: Index) -> int:
    """Number of a rank in its seat, from its place along all axes."""
    shape = result.graph.the_mesh.side_shape(result.seats[seat].on)
    return int(np.ravel_multi_index(index_at(index, shape), shape)) if index else 0


def track(op: Op) -> str:
    """Of the streams of one GPU that on which an op is: what goes across has tracks of its own."""
    return op.kind if op.is_across else COMM if op.is_collective else COPY if op.is_copy else COMPUTE


def labels(result: PhaseResult, stage: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Class and busy seconds of every rank of a stage, in rank order."""
    seat = result.seats[stage]
    shape, ranks = result.graph.the_mesh.side_shape(seat.on), len(seat.gpus)
    rows: list[NDArray[np.float64]] = []
    busy: NDArray[np.float64] = np.zeros(ranks)
    for run in result.schedule.cells[cell_of(result, stage)][0]:
        ops = [op for op in result.graph.segment(run.segment).ops if op.is_at(seat.on)]
        here = {op.name for op in ops}
        for arrays in (run.starts, run.finishes):
            rows += [_over(a, shape) for (name, _), a in arrays.items() if a.size > 1 and name in here]
        for op in ops:
            if not op.is_collective and not op.is_copy:
                busy = busy + run.count * _over(result.costs.ops[run.segment, op.name].time_s, shape)
    if not rows:
        return np.zeros(ranks, np.intp), busy
    table = np.round(np.stack(rows, axis=1) / 1e-12)
    _, found = np.unique(table, axis=0, return_inverse=True)
    return found.ravel(), busy


def _over(array: Array, shape: Index) -> NDArray[np.float64]:
    return np.broadcast_to(array, shape).ravel()


def representatives(result: PhaseResult, most: int = 3) -> list[Member]:
    """Of each stage a rank a class; where classes are many, the slowest, the fastest and evenly between."""
    found: list[Member] = []
    for stage in result.seats:
        members = classes(result, stage.index)
        if len(members) > most:
            picks = {round(k * (len(members) - 1) / (most - 1)) for k in range(most)} if most > 1 else {0}
            members = [members[k] for k in sorted(picks)]
        found += members
    return found


def everyone(result: PhaseResult) -> Iterator[Member]:
    """Every rank, stage by stage."""
    for stage in result.seats:
        shape = result.graph.the_mesh.side_shape(stage.on)
        found, _ = labels(result, stage.index)
        for rank, gpu in enumerate(stage.gpus):
            index = tuple(int(i) for i in np.unravel_index(rank, shape))
            yield Member(stage.index, index, gpu, int(found[rank]), 1)


def layers(result: PhaseResult, stage: int, microbatch: int) -> list[Layer]:
    """The layers of a cell in order, repeats unfolded."""
    stage = cell_of(result, stage)
    number = result.graph.first_layer(stage)
    found = []
    for run in result.schedule.cells[stage][microbatch]:
        for repeat in range(run.count):
            found.append(Layer(run, number, run.start_s + repeat * run.period_s))
            number += 1
    return found


def slices(result: PhaseResult, member: Member) -> Iterator[Slice]:
    """What a rank executes, in order of start on each stream; ops that take no time are left out."""
    graph, schedule = result.graph, result.schedule
    on = result.seats[member.stage].on
    last = bool(on) or member.stage == len(graph.stages) - 1

    def of_run(run: Run) -> list[tuple[float, float, str, str, str, int]]:
        return _steps(result, graph.segment(run.segment), run, member.index, on)

    steps = ByIdentity(of_run)
    comm_free = 0.0
    if member.stage == 0 and schedule.host_s:
        yield Slice("host", "host", "compute", "", None, 0, 0, 0.0, schedule.host_s)
    for microbatch in range(graph.microbatches):
        cell = layers(result, member.stage, microbatch)
        for layer in cell:
            for start, end, op, kind, stream, lane in steps(layer.run):
                begin = layer.start_s + start
                found = Slice(
                    op, kind, stream, layer.run.segment, layer.number, microbatch, lane, begin, layer.start_s + end
                )
                comm_free = found.end_s if stream == "comm" else comm_free
                yield found
        if not last:
            final = cell[-1]
            output = graph.segment(final.run.segment).output
            for lane in range(graph.lanes):
                ready = final.start_s + value_at(final.run.finishes[output, lane], member.index)
                begin = max(ready, comm_free)
                comm_free = begin + result.costs.edges[member.stage].time_s
                yield Slice("send", "send", "comm", "", None, microbatch, lane, begin, comm_free)
    assert comm_free <= schedule.latency_s * (1 + 1e-9) + result.costs.transfer.time_s * graph.lanes


def cells(pieces: Iterable[Slice]) -> list[Cell]:
    """The micro-batches of a rank, in order."""
    batches: dict[int, list[Slice]] = {}
    for piece in pieces:
        if piece.kind != "host":
            batches.setdefault(piece.microbatch, []).append(piece)
    found = []
    for number, mine in batches.items():
        work = [s for s in mine if s.kind != "send"] or mine
        busy = {
            computes: sum(s.end_s - s.start_s for s in mine if (s.stream == COMPUTE) is computes and s.stream != COPY)
            for computes in (True, False)
        }
        found.append(Cell(number, min(s.start_s for s in work), max(s.end_s for s in work), busy[True], busy[False]))
    return found


def bubbles(found: Sequence[Cell], begin_s: float, end_s: float) -> list[tuple[float, float]]:
    """When a rank has no micro-batch between two moments: while the pipeline fills, drains or waits for a slower stage."""
    gaps = []
    free_s = begin_s
    for cell in sorted(found, key=lambda c: c.start_s):
        if cell.start_s - free_s > LEAST_GAP * (end_s - begin_s):
            gaps.append((free_s, cell.start_s))
        free_s = max(free_s, cell.end_s)
    return [*gaps, (free_s, end_s)] if end_s - free_s > LEAST_GAP * (end_s - begin_s) else gaps


LEAST_GAP = 1e-6
"""Shorter ones, as a share of the whole, are rounding."""


def _steps(
    result: PhaseResult, segment: Segment, run: Run, index: Index, on: str
) -> list[tuple[float, float, str, str, str, int]]:
    """(start, end, op, kind, stream, lane) of a layer on one rank, relative to the layer's start."""
    found = []
    for op in segment.ops:
        for lane in range(result.graph.lanes if op.is_at(on) else 0):
            start, end = value_at(run.starts[op.name, lane], index), value_at(run.finishes[op.name, lane], index)
            if end > start:
                found.append((start, end, op.name, op.runtime_kind, track(op), lane))
    return sorted(found)


def requests(result: PhaseResult, stage: int) -> Iterator[Slice]:
    """Scatters and gathers of a stage, in order of each; what is before the pass as of its first moment. GPUs take no part in it."""
    graph = result.graph
    for move in (m for m in request_moves(graph) if m.stage == stage):
        for microbatch in range(graph.microbatches):
            for lane in range(graph.lanes):
                begin = begin_s(result, move, microbatch, lane)
                end = begin + took_s(result, move)
                yield Slice(move.kind, move.kind, "host", "", None, microbatch, lane, max(0.0, begin), max(0.0, end))
