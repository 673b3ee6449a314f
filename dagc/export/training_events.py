"""A training step as trace events: the cells of each stage of the pipeline, the ops of one cell of each kind inside it, and memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from ..base.diagnostics import Diagnostic, SpecError
from ..base.frozen import record
from ..cost.schedule.training.cell_orders import Cell, Part, cells_of
from ..cost.training.cell_costs import OpTimes, move_times, op_times
from ..cost.training.layers_in_turn import cells_in_order, in_turn
from ..ir.op import COMM, COMPUTE
from ..plan.trained import TrainingResult
from ..view.facts.held_over_step import check_cells, held_over_step
from ..view.facts.training_words import stage_names
from .events import PATH_FLOW, Count, Event, EventSpan, Process, Track, Value, nanoseconds

NAMES: Mapping[Part, str] = {
    Part.FORWARD: "forward",
    Part.BACKWARD: "backward",
    Part.INPUT: "input",
    Part.WEIGHT: "weight",
}
"""Part -> its name in CELL_GROUPS."""
TRACKS = 5
"""Of a stage: cells with the ops that compute, cells that run at the same time, collectives, those that move weights, memory."""
WEIGHTS = "weights"
"""Names the stream of the last of these."""


def check_trace(result: TrainingResult, ranks: str) -> None:
    """Raises SpecError where a step cannot be written so."""
    if ranks == "all":
        message = f"`{result.name}` trains: its trace is of stages, whose ranks are alike but for the experts' load"
        raise SpecError([Diagnostic("E05", message, help=("leave `--ranks all` out",))])
    check_cells(result, "the trace")


def events(result: TrainingResult) -> Iterator[Event]:
    """Every event of a step, stage by stage."""
    writer = _Writer(result)
    for stage in range(result.steps.schedule.gpus):
        yield from writer.stage(stage)


@record(slots=False)
class _Writer:
    result: TrainingResult

    @cached_property
    def ops(self) -> Mapping[str, Mapping[str, tuple[OpTimes, ...]]]:
        """Name of a cell -> layer -> its ops, but for those that move weights."""
        graph, costs = self.result.graph, self.result.costs
        return {name: op_times(graph, costs, name, overlap=self.overlap) for name in NAMES.values()}

    @cached_property
    def moves(self) -> Mapping[str, Mapping[str, tuple[tuple[OpTimes, ...], ...]]]:
        """The same, of what gathers weights, and of what reduces their gradients."""
        graph, costs = self.result.graph, self.result.costs
        return {name: move_times(graph, costs, name, overlap=self.overlap) for name in NAMES.values()}

    @property
    def overlap(self) -> bool:
        return self.result.training.overlap == "full"

    @cached_property
    def names(self) -> list[tuple[str, str]]:
        return stage_names(self.result)

    def stage(self, stage: int) -> Iterator[Event]:
        result, pid = self.result, stage + 1
        name, about = self.names[stage]
        yield Process(pid, f"{name} ({about}), pid")
        first = TRACKS * stage
        cells = Track(first, pid, first, f"{name} cells, and ops that compute")
        beside = Track(first + 1, pid, first + 1, f"{name} cells that run at the same time")
        moved = Track(first + 2, pid, first + 2, f"{name} communication")
        weights = Track(first + 3, pid, first + 3, f"{name} gathers of weights and their gradients")
        held = Track(first + 4, pid, first + 4, f"{name} memory", "B")
        overlaps = any(len(cells_of(e)) > 1 for loop in result.steps.schedule.orders[stage] for e in loop.body)
        moves = any(ops for layers in self.moves.values() for found in layers.values() for ops in found)
        yield from (cells, *((beside,) if overlaps else ()), moved, *((weights,) if moves else ()), held)
        unfolded: set[tuple[int, Part]] = set()
        for entry, start_s, end_s in result.steps.written(stage):
            several = cells_of(entry)
            for track, cell in zip((cells, beside), several, strict=False):
                yield self.cell(track, stage, cell, start_s, end_s)
            for cell in several if len(several) == 1 else ():
                if cell.kind not in unfolded:
                    unfolded.add(cell.kind)
                    yield from self.inside({COMPUTE: cells, COMM: moved, WEIGHTS: weights}, stage, cell, start_s, end_s)
        end_s = result.steps.makespan_s
        if result.update_s:
            args: dict[str, Value] = {"optimizer": result.training.optimizer, "zero": result.training.zero}
            yield EventSpan(cells, "update", "update", nanoseconds(end_s), nanoseconds(result.time_s), args)
        base_B = result.memory[stage].peak_B - result.memory[stage].activations_B
        for moment_s, size_B in held_over_step(result, stage).points:
            yield Count(held, nanoseconds(moment_s), base_B + size_B)

    def cell(self, track: Track, stage: int, cell: Cell, start_s: float, end_s: float) -> EventSpan:
        route, virtual = self.result.steps.schedule.stage_at[stage, cell.chunk]
        args: dict[str, Value] = {"microbatch": cell.microbatch, "chunk": cell.chunk, "virtual_stage": virtual}
        args["layers"] = ", ".join(f"{n} {layer}" for layer, n in self.result.stages[virtual].layers)
        name = NAMES[cell.part]
        sends, receives = self.flows(route, virtual, cell)
        start, end = nanoseconds(start_s), nanoseconds(end_s)
        return EventSpan(track, f"{name} {cell.microbatch}", name, start, end, args, sends, receives)

    def flows(self, route: int, virtual: int, cell: Cell) -> tuple[int, tuple[int, ...]]:
        """The message that a cell sends to another GPU, and the one that it waits for."""
        if cell.part is Part.WEIGHT:
            return 0, ()
        seats = self.result.steps.schedule.routes[route].seats
        forward = cell.part is Part.FORWARD
        there, back = (virtual + 1, virtual - 1) if forward else (virtual - 1, virtual + 1)

        def message(sender: int, receiver: int) -> int:
            if (
                not 0 <= receiver < len(seats)
                or not 0 <= sender < len(seats)
                or seats[sender].gpu == seats[receiver].gpu
            ):
                return 0
            number = (route * len(seats) + sender) * self.result.graph.microbatches + cell.microbatch
            return PATH_FLOW + 1 + 2 * number + forward

        taken = message(back, virtual)
        return message(virtual, there), (taken,) if taken else ()

    def inside(
        self, tracks: Mapping[str, Track], stage: int, cell: Cell, start_s: float, end_s: float
    ) -> Iterator[EventSpan]:
        """The ops of a cell, layer by layer, gradients from the last layer to the first."""
        _, virtual = self.result.steps.schedule.stage_at[stage, cell.chunk]
        own, name = self.result.stages[virtual], NAMES[cell.part]
        layers = [layer for layer, count in own.layers for _ in range(count)]
        most, ends = nanoseconds(end_s), dict.fromkeys(tracks, nanoseconds(start_s))

        def drawn(ops: Iterable[OpTimes], stream: str, begin_s: float, layer: str, number: int) -> Iterator[EventSpan]:
            for op, from_s, to_s in ops:
                on = stream or (op.stream if op.stream in tracks else COMPUTE)
                start = min(most, max(ends[on], nanoseconds(start_s + begin_s + from_s)))
                end = ends[on] = min(most, max(start, nanoseconds(start_s + begin_s + to_s)))
                yield EventSpan(tracks[on], op.name, op.runtime_kind, start, end, self.args(layer, number, op.name))

        cells = self.result.cells
        numbered = [
            pair for pair in _numbered(layers, backward=cell.part is not Part.FORWARD) if (pair[1], name) in cells
        ]
        times = in_turn(cells_in_order(own, cells, name), overlap=self.overlap)
        moved: list[tuple[float, Iterator[EventSpan]]] = []
        for (number, layer), at in zip(numbered, times, strict=True):
            gathers, scatters = self.moves[name][layer]
            moved.append((at.gather_s, drawn(gathers, WEIGHTS, at.gather_s, layer, number)))
            moved.append((at.scatter_s, drawn(scatters, WEIGHTS, at.scatter_s, layer, number)))
            yield from drawn(self.ops[name].get(layer, ()), "", at.start_s, layer, number)
        for _, spans in sorted(moved, key=lambda one: one[0]):
            yield from spans

    def args(self, layer: str, number: int, op: str) -> dict[str, Value]:
        cost, own = self.result.costs.ops[layer, op], self.result.graph.segment(layer).by_name[op]
        found: dict[str, Value] = {"layer": f"{layer} {number}", "bound": cost.bound}
        if own.is_collective:
            mesh = self.result.graph.the_mesh
            found |= {
                "group": "+".join(mesh.label(own.axes, own.scope)),
                "group_size": mesh.ranks_of(own.kind, own.axes),
            }
            return found | {"payload_B": cost.payload_B, "wire_B": cost.wire_B}
        return found | {"flops": cost.flops, "bytes": cost.bytes}


def _numbered(layers: list[str], *, backward: bool) -> Iterable[tuple[int, str]]:
    """Places in the stage and kinds of layers, in the order in which a cell takes them."""
    found = list(enumerate(layers))
    return reversed(found) if backward else found
