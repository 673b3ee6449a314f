"""What each stage executes, layer by layer: the steps that the picture is made of, and what they wait for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ....base.arrays import NDArray
from ....base.collectives import GATHER, REQUESTS, SCATTER, SEND
from ....base.frozen import record
from ....cost.schedule.records import Run
from ....ir.op import Op
from ....ir.requests import RequestMove, request_moves
from ....ir.segment import Segment
from ....ir.sharding import Axes
from ....plan.result import PhaseResult
from ..request_times import begin_s, took_s
from ..timeline import Index, layers, rank_of
from ..unroll import lane_letter

Mask = NDArray[np.bool_]
"""Of a part: shape (steps, ranks of the stage), true where a step is in the picture."""


@record
class Step:
    """An op of one lane, or (None) what is at an end of the layers: the send to the next stage, the scatter of ids, the gather of
    results (`end`). Times are seconds from the part's start, one per rank. `axes` of the group that exchanges something."""

    op: Op | None
    lane: int
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    end: str = ""
    axes: Axes = ()

    @property
    def name(self) -> str:
        return self.op.name if self.op is not None else self.end

    @property
    def kind(self) -> str:
        return self.op.runtime_kind if self.op is not None else self.end

    @property
    def block(self) -> str:
        return self.op.block if self.op is not None else self.end

    @property
    def is_exchange(self) -> bool:
        return self.op is None or self.op.is_collective


@record
class Part:
    """One layer of a micro-batch on a stage (`number` counts layers, -1 is the embedding), or what is at an `end` of its layers: its
    send, the scatter of its ids, the gather of its results."""

    stage: int
    microbatch: int
    place: int
    number: int | None
    run: Run | None = field(compare=False)
    start_s: float = field(compare=False)
    end: str = ""
    on: str = ""

    @property
    def alike(self) -> tuple[str, int, int, str]:
        """Equal for parts that do the same at the same moments from their start: they share what is made of them."""
        if self.run is None:
            return self.end, self.stage, self.microbatch if self.end in REQUESTS else 0, ""
        return self.run.segment, id(self.run.starts), id(self.run.finishes), self.on

    @property
    def segment(self) -> str:
        return self.end if self.run is None else self.run.segment


@record
class Need:
    """A step (a row of a part) and one of its inputs: a row of the same part, or of the part before it."""

    row: int
    source: int
    outside: bool


@dataclass
class Program:
    """The parts of a phase in order of stage, micro-batch and layer."""

    result: PhaseResult
    _steps: dict[object, tuple[Step, ...]] = field(default_factory=dict)
    _needs: dict[object, tuple[Need, ...]] = field(default_factory=dict)
    _rows: dict[object, dict[tuple[str, int], int]] = field(default_factory=dict)

    def ranks(self, seat: int) -> int:
        """Of a stage; where experts have GPUs of their own, these are a stage behind the others (`PhaseResult.seats`)."""
        return len(self.result.seats[seat].gpus)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        return tuple(self._all())

    def _all(self) -> Iterator[Part]:
        graph, schedule = self.result.graph, self.result.schedule
        for stage in range(len(self.result.seats)):
            for m in range(graph.microbatches):
                cell = layers(self.result, stage, m)
                yield from self._ends(SCATTER.name, stage, m, -1)
                for place, layer in enumerate(cell):
                    if not self.does_anything(stage, layer.run):
                        continue
                    yield Part(stage, m, place, layer.number, layer.run, layer.start_s, on=self.result.seats[stage].on)
                if (stage, m) in schedule.sends:
                    begin = schedule.sends[stage, m][1] - self.result.costs.edges[stage].time_s * graph.lanes
                    yield Part(stage, m, len(cell), None, None, begin, SEND.name)
                yield from self._ends(GATHER.name, stage, m, len(cell))

    def _ends(self, kind: str, stage: int, microbatch: int, place: int) -> Iterator[Part]:
        """The scatter or gather of a micro-batch, where its stage has one."""
        move = self.moves.get(kind)
        if move is not None and move.stage == stage:
            yield Part(stage, microbatch, place, None, None, begin_s(self.result, move, microbatch, 0), kind)

    @cached_property
    def moves(self) -> dict[str, RequestMove]:
        return {move.kind: move for move in request_moves(self.result.graph)}

    def does_anything(self, stage: int, run: Run) -> bool:
        """Experts on GPUs of their own have nothing of layers without experts."""
        on = self.result.seats[stage].on
        return not on or any(op.is_at(on) for op in self.result.graph.segment(run.segment).ops)

    @cached_property
    def at(self) -> dict[tuple[int, int, int | None], Part]:
        """(stage, micro-batch, layer; None for the send) -> the part."""
        return {(p.stage, p.microbatch, p.number): p for p in self.parts if p.end not in REQUESTS}

    @property
    def ends(self) -> tuple[str, str]:
        """The embedding and the head."""
        segments = self.result.graph.segments
        return segments[0].name, segments[-1].name

    @cached_property
    def before(self) -> dict[Part, Part]:
        """Where a part's input comes from: the layer before, or the stage before."""
        known = {(p.stage, p.microbatch, p.place): p for p in self.parts}
        found = {}
        for p in self.parts:
            if self.result.seats[p.stage].on:  # what its first step takes comes from the same layer elsewhere
                continue
            source = known.get((p.stage, p.microbatch, p.place - 1)) or self.at.get((p.stage - 1, p.microbatch, None))
            if source is not None:
                found[p] = source
        return found

    def segment(self, part: Part) -> Segment:
        return self.result.graph.segment(part.segment)

    def flat(self, array: NDArray[np.float64], stage: int) -> NDArray[np.float64]:
        """One value per rank of a stage, in rank order."""
        return np.broadcast_to(array, self.result.graph.the_mesh.side_shape(self.result.seats[stage].on)).ravel()

    def steps(self, part: Part) -> tuple[Step, ...]:
        """In order of their start."""
        key = part.alike
        if key not in self._steps:
            self._steps[key] = self._made(part)
        return self._steps[key]

    def _made(self, part: Part) -> tuple[Step, ...]:
        if part.run is not None:
            return self._ordered(self.segment(part), part.run, part.stage)
        return self._send(part.stage) if part.end == SEND.name else self._requests(part, self.moves[part.end])

    def _requests(self, part: Part, move: RequestMove) -> tuple[Step, ...]:
        """Of each lane; from the part's start, which is that of the first."""
        found = []
        for lane in range(self.result.graph.lanes):
            start = np.full(self.ranks(part.stage), begin_s(self.result, move, part.microbatch, lane) - part.start_s)
            found.append(Step(None, lane, start, start + took_s(self.result, move), part.end, move.axes))
        return tuple(found)

    def _send(self, stage: int) -> tuple[Step, ...]:
        time = self.result.costs.edges[stage].time_s
        starts = [np.full(self.ranks(stage), lane * time) for lane in range(self.result.graph.lanes)]
        return tuple(Step(None, lane, start, start + time, SEND.name) for lane, start in enumerate(starts))

    def _ordered(self, segment: Segment, run: Run, stage: int) -> tuple[Step, ...]:
        on = self.result.seats[stage].on
        found = [
            Step(op, lane, self.flat(start, stage), self.flat(run.finishes[op.name, lane], stage), axes=op.axes)
            for op in segment.ops
            if op.is_at(on)
            for lane in range(self.result.graph.lanes)
            for start in (run.starts[op.name, lane],)
        ]
        return tuple(sorted(found, key=lambda s: (float(s.start_s.min()), s.lane)))

    def row(self, part: Part, name: str, lane: int) -> int:
        """Index of a step among those of its part."""
        return self._named(part)[name, lane]

    def _named(self, part: Part) -> dict[tuple[str, int], int]:
        key = part.alike
        if key not in self._rows:
            self._rows[key] = {(s.name, s.lane): k for k, s in enumerate(self.steps(part))}
        return self._rows[key]

    def output(self, part: Part, lane: int) -> int:
        """The row of what a part hands on."""
        return lane if part.run is None else self.row(part, self.segment(part).output, lane)

    def needs(self, part: Part) -> tuple[Need, ...]:
        """The data edges into a part's steps; `outside`: the source is a row of the part before."""
        before = self.before.get(part)
        if before is None:
            return self._inside(part)
        entry = "" if part.run is None else self.segment(part).input
        lanes = [self.output(before, lane) for lane in range(self.result.graph.lanes)]
        steps = enumerate(self.steps(part))
        outer = [Need(k, lanes[s.lane], True) for k, s in steps if s.op is None or entry in s.op.inputs]
        return (*self._inside(part), *outer)

    def _inside(self, part: Part) -> tuple[Need, ...]:
        key = part.alike
        if key not in self._needs:
            rows = self._named(part)
            self._needs[key] = tuple(
                Need(k, rows[name, s.lane], False)
                for k, s in enumerate(self.steps(part))
                for name in (self.segment(part).sources(s.op) if s.op is not None else ())
                if (name, s.lane) in rows
            )
        return self._needs[key]

    def rank(self, stage: int, index: Index) -> int:
        """Number of a rank in its stage, from its mesh coordinates."""
        return rank_of(self.result, stage, index)

    def size(self, over: Axes) -> int:
        """Ranks in a group over some axes; over all of two sets of ranks the ranks of both."""
        mesh = self.result.graph.the_mesh
        across = mesh.apart is not None and set(over) == set(mesh.sizes)
        return sum(mesh.size(mesh.on(on)) for on in self.result.graph.sides) if across else mesh.size(over)

    def groups(self, over: Axes, stage: int) -> NDArray[np.intp]:
        """The group of every rank of a stage in a collective over some axes: equal numbers exchange with each other."""
        mesh = self.result.graph.the_mesh
        own = mesh.side_shape(self.result.seats[stage].on)
        axes = mesh.dimensions(over)
        shape = tuple(1 if k in axes else n for k, n in enumerate(own))
        numbers = np.arange(int(np.prod(shape))).reshape(shape)
        return np.broadcast_to(numbers, own).ravel()

    def id(self, part: Part, step: Step, rank: int) -> str:
        """As in a placed graph, and the GPU: `s0.m0.sparse.3/gqa.q@5`."""
        graph = self.result.graph
        lane = "" if graph.lanes == 1 else f".{lane_letter(step.lane)}"
        layer = "" if part.number is None else f".{graph.layer_name(part.segment, part.number)}"
        return f"s{part.stage}.m{part.microbatch}{lane}{layer}/{step.name}@{self.result.seats[part.stage].gpus[rank]}"
