"""A training step on one rank: its cells in the order of the schedule, each through the layers of its chunk, and new weights.

A cell begins when the one before it has ended, as in the plan; two that overlap take turns layer by layer. What a gradient reads of
the forward cell is a data dependency. Messages between stages follow one another, and hold up nothing but each other.

Gradients are reduced, and weights renewed, behind the last cell. Where both hide under cells, those of a layer are reduced as soon as
its last gradient is there, and a step begins by gathering the weights that the one before it left, ahead of each layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import ClassVar

from ...base.frozen import record, replace
from ...cost.records import Transfer
from ...cost.schedule.training.cell_orders import Cell, Part, cells_of
from ...cost.training.cell_costs import INPUT_BACKWARD, WHOLE_BACKWARD
from ...cost.training.weight_moves import weight_moves
from ...ir.op import FORWARD, UPDATE, WEIGHT, Op
from ...ir.ops.attributes.training import AccumulateAttrs, AdamAttrs, StoreAttrs
from ...ir.segment import Segment
from ...plan.step_totals import edge_between
from ...plan.trained import TrainingResult
from . import messages as schema
from .layer_nodes import Expansion
from .rank_program import FIRST_ID, RankProgram
from .ranks import stage_hole
from .trace_rows import Context, Pattern, Refs, TraceLayer, TraceNode, joined, message_size, tensor

CELLS: Mapping[Part, tuple[str, ...]] = {
    Part.FORWARD: (FORWARD,), Part.BACKWARD: WHOLE_BACKWARD, Part.INPUT: INPUT_BACKWARD, Part.WEIGHT: (WEIGHT,),
}  # fmt: skip
WHOLE, REDUCE, RENEW, GATHER = "update", "reduce", "renew", "gather"
"""An update, or its parts: gradients over ranks, the optimizer, and new weights to all who use them."""
Place = tuple[int, int]
"""A chunk, and a layer's place in it."""


@record(slots=False)
class Piece:
    """The ops of a layer that run in one go. `entry`: what the layer next to it hands over; `result`: what it hands on itself;
    `reads`: what else the ops read, which other pieces made."""

    name: str
    part: Segment
    entry: str
    result: str
    reads: tuple[str, ...]


def pieces_of(segment: Segment, *, apart: bool) -> Mapping[str, Piece]:
    """By the name of a `Part`, or of a part of the update. What gathers weights for a part is a piece of its own (`ahead`), and with `apart`
    so are what reduces gradients of each micro-batch and their sums."""
    moves, found = weight_moves(segment), {}
    for part, cells in CELLS.items():
        ops = [op for op in segment.ops if op.cell in cells]
        reduced = moves.scatters if apart else frozenset()
        sums = {op.name for op in ops if isinstance(op.attrs, AccumulateAttrs) and reduced}
        behind = later_than(ops, reduced) - reduced - sums
        found[part.name] = [op for op in ops if op.name not in moves.gathers | reduced | sums | behind]
        found[ahead(part)] = [op for op in ops if op.name in moves.gathers]
        found[behind_of(part)] = [op for op in ops if op.name in reduced]
        found[summed(part)] = [op for op in ops if op.name in sums | behind]
    update = [op for op in segment.ops if op.cell == UPDATE]
    renewed = {op.name for op in update if isinstance(op.attrs, AdamAttrs)}
    later = later_than(update, renewed)
    given = [op for op in update if op.name in later - renewed]
    found[WHOLE] = update
    found[REDUCE] = [op for op in update if op.name not in later]
    found[GATHER] = given if any(op.is_collective for op in given) else []
    found[RENEW] = [op for op in update if op.name in later and op not in found[GATHER]]
    return {name: _piece(segment, name, ops) for name, ops in found.items()}


def later_than(ops: Sequence[Op], names: Collection[str]) -> frozenset[str]:
    """These ops, and all that follow from what they make."""
    found: set[str] = set()
    for op in ops:
        if op.name in names or found & set(op.inputs):
            found |= {value.name for value in op.results}
    return frozenset(found)


def ahead(part: Part) -> str:
    return f"{part.name} ahead"


def behind_of(part: Part) -> str:
    return f"{part.name} behind"


def summed(part: Part) -> str:
    return f"{part.name} sums"


def _piece(segment: Segment, name: str, ops: list[Op]) -> Piece:
    upstream = "" if segment.upstream is None else segment.upstream.name
    forward, back = name == Part.FORWARD.name, name in (Part.BACKWARD.name, Part.INPUT.name)
    entry = segment.input if forward else upstream if back else ""
    result = segment.output if forward else segment.downstream if back else ""
    own = {op.name for op in ops}
    reads = dict.fromkeys(n for op in ops for n in segment.sources(op) if n not in own and n != entry)
    if result and result not in own and result != entry:
        reads[result] = None
    return Piece(name, replace(segment, ops=tuple(ops)), entry, result, tuple(reads))


@record
class Message:
    """What passes a virtual stage's end: forward to the next, or back to the one before."""

    route: int
    sender: int
    receiver: int
    microbatch: int

    @property
    def forward(self) -> bool:
        return self.receiver > self.sender

    @property
    def words(self) -> str:
        return "forward" if self.forward else "backward"


@dataclass
class StepProgram(RankProgram):
    """Rows are made in order: what the next one waits for is kept here."""

    trains: ClassVar[bool] = True
    base: int = FIRST_ID
    tag: int = 0
    compute: Refs = ()
    comm: Refs = ()
    sent: Refs = ()
    live: dict[tuple[Place, int], dict[str, Refs]] = field(default_factory=lambda: defaultdict(dict))
    sums: dict[Place, dict[str, Refs]] = field(default_factory=lambda: defaultdict(dict))
    weights: dict[Place, dict[str, Refs]] = field(default_factory=lambda: defaultdict(dict))
    passed: dict[Message, tuple[Refs, ...]] = field(default_factory=dict)

    @property
    def result(self) -> TrainingResult:
        assert isinstance(self.ranks.result, TrainingResult)
        return self.ranks.result

    def other_times(self) -> Mapping[tuple[str, str], float]:
        found = {}
        for number, route in enumerate(self.result.steps.schedule.routes):
            for k in range(len(route.seats) - 1):
                for ends in ((k, k + 1), (k + 1, k)):
                    message = Message(number, *ends, 0)
                    if self.seat(number, ends[0]) == self.stage:
                        found[self.send_key(message)] = self.edge(message).time_s
        return found

    def edge(self, message: Message) -> Transfer:
        """What sends it."""
        k = min(message.sender, message.receiver)
        seats = self.result.steps.schedule.routes[message.route].seats
        return edge_between(self.result.costs, seats[k], seats[k + 1], k, back=not message.forward)

    def send_key(self, message: Message) -> tuple[str, str]:
        """Names the time of a send to another stage."""
        there = self.seat(message.route, message.receiver)
        own = f" {message.words} {message.sender}" if self.result.costs.hops else ""
        return ("", f"send {there}{own}")

    @cached_property
    def pieces(self) -> Mapping[str, Mapping[str, Piece]]:
        return {segment.name: pieces_of(segment, apart=self.hides) for segment in self.result.graph.segments}

    @cached_property
    def layers(self) -> Mapping[int, list[tuple[str, int]]]:
        """Chunk -> its layers, each with its number in the model."""
        found = {}
        ends = [0]
        for stage in self.result.stages:
            ends.append(ends[-1] + sum(count for _, count in stage.layers))
        for (gpu, chunk), (_, virtual) in self.result.steps.schedule.stage_at.items():
            if gpu == self.stage:
                names = [name for name, count in self.result.stages[virtual].layers for _ in range(count)]
                found[chunk] = [(name, ends[virtual] - 1 + i) for i, name in enumerate(names)]
        return found

    @property
    def hides(self) -> bool:
        """Whether collectives of updates hide under cells."""
        return self.result.training.overlap == "full"

    def rows(self) -> Iterator[TraceLayer]:
        self.restart()
        schedule = self.result.steps.schedule
        self.tag = 2 * schedule.stages * schedule.microbatches  # above those of messages between stages
        left = {chunk: schedule.routes[schedule.stage_at[self.stage, chunk][0]].count for chunk in self.layers}
        begun: set[int] = set()
        for entry in schedule.written(self.stage):
            self.barrier()
            runs = []
            for cell in cells_of(entry):
                ends = cell.part in (Part.BACKWARD, Part.WEIGHT)
                left[cell.chunk] -= ends
                gathers = self.hides and cell.part is Part.FORWARD and cell.chunk not in begun
                begun |= {cell.chunk} if cell.part is Part.FORWARD else set()
                runs.append(self.cell_rows(cell, gathers=gathers, reduces=self.hides and ends and not left[cell.chunk]))
            yield from in_turns(runs)
        self.barrier()
        for place, name, number in self.every_layer():
            yield from self.update(RENEW if self.hides else WHOLE, place, name, number)

    def restart(self) -> None:
        """Ranks that differ in widths of numbers are written by the same program."""
        self.base, self.compute, self.comm, self.sent = FIRST_ID, (), (), ()
        for known in (self.live, self.sums, self.weights, self.passed):
            known.clear()

    def every_layer(self) -> Iterator[tuple[Place, str, int]]:
        for chunk, layers in self.layers.items():
            for i, (name, number) in enumerate(layers):
                yield (chunk, i), name, number

    def barrier(self) -> None:
        """What follows waits for all that computes or exchanges so far."""
        self.compute = self.comm = tuple(dict.fromkeys((*self.compute, *self.comm)))

    # -- cells -----------------------------------------------------------------------------------

    def cell_rows(self, cell: Cell, *, gathers: bool, reduces: bool) -> Iterator[TraceLayer]:
        """`gathers`: weights are not there yet; `reduces`: no more gradients of these weights come."""
        route, virtual = self.result.steps.schedule.stage_at[self.stage, cell.chunk]
        forward, last = cell.part is Part.FORWARD, self.result.steps.schedule.stages - 1
        before, behind = (virtual - 1, virtual + 1) if forward else (virtual + 1, virtual - 1)
        values: tuple[Refs, ...] = ((),)
        if cell.part is not Part.WEIGHT and 0 <= before <= last:
            message = Message(route, before, virtual, cell.microbatch)
            if message in self.passed:
                values = self.passed.pop(message)
            else:
                row = self.received(message)
                values = row.exit.values
                yield row
        layers = [((cell.chunk, i), *layer) for i, layer in enumerate(self.layers[cell.chunk])]
        taken = layers if forward else layers[::-1]
        part, batch, frees = cell.part, cell.microbatch, cell.part in (Part.BACKWARD, Part.WEIGHT)

        def fetched(k: int) -> Iterator[TraceLayer]:
            """Weights of a layer, where it has not all of them."""
            if k < len(taken):
                if gathers:
                    yield from self.update(GATHER, *taken[k])
                if not self.hides and self.pieces[taken[k][1]][ahead(part)].part.ops:
                    self.barrier()  # nothing runs beside it
                yield from self.run(ahead(part), *taken[k], batch)

        def finished(k: int) -> Iterator[TraceLayer]:
            """Sums of a layer's gradients; behind the last of them they are reduced."""
            if k >= 0:
                yield from self.run(summed(part), *taken[k], batch)
                if frees:
                    self.live.pop((taken[k][0], batch), None)
                if reduces:
                    yield from self.update(REDUCE, *taken[k])

        yield from fetched(0)
        for k, (place, name, number) in enumerate(taken):
            if self.hides:
                yield from fetched(k + 1)  # under this layer
            if entry := self.pieces[name][part.name].entry:
                self.live[place, batch][entry] = values[0]
            for row in self.run(part.name, place, name, number, batch, values):
                yield row
                values = row.exit.values
            yield from finished(k - 1) if self.hides else finished(k)
            yield from self.run(behind_of(part), place, name, number, batch)
            if not self.hides:
                yield from fetched(k + 1)
        if self.hides:
            yield from finished(len(taken) - 1)
        if cell.part is not Part.WEIGHT and 0 <= behind <= last:
            message = Message(route, virtual, behind, cell.microbatch)
            if self.seat(route, behind) == self.stage:
                self.passed[message] = values
            else:
                yield self.sent_row(message, values)

    def run(
        self, name: str, place: Place, layer: str, number: int, batch: int, values: tuple[Refs, ...] = ((),)
    ) -> Iterator[TraceLayer]:
        """A piece of a layer, if that has it. What others read of it is kept."""
        piece = self.pieces[layer][name]
        if not piece.part.ops:
            return
        known = self.live[place, batch]
        row = self.row(piece, layer, number, batch, values, {**known, **self.before(piece, place)})
        yield row
        made = {value: row.absolute(refs) for value, refs in row.pattern.made.items() if value in self.kept[layer]}
        known |= made
        self.sums[place] |= {op.name: made[op.name] for op in accumulates(piece)}

    @cached_property
    def kept(self) -> Mapping[str, frozenset[str]]:
        """Layer -> values that another piece of it reads, and sums of gradients."""
        return {
            name: frozenset(read for piece in own.values() for read in piece.reads)
            | {op.name for piece in own.values() for op in accumulates(piece)}
            for name, own in self.pieces.items()
        }

    def before(self, piece: Piece, place: Place) -> dict[str, Refs]:
        """Sums that go on, and weights that were just gathered."""
        sums = {op.name: self.sums[place][op.name] for op in accumulates(piece) if op.name in self.sums[place]}
        return sums | (self.weights.pop(place, {}) if piece.name == Part.FORWARD.name else {})

    def row(
        self, piece: Piece, name: str, number: int, microbatch: int, values: tuple[Refs, ...], known: Mapping[str, Refs]
    ) -> TraceLayer:
        """The next row: what it waits for is what came before it."""
        read = (*piece.reads, *(n for n in known if n.startswith("@") or n in {op.name for op in accumulates(piece)}))
        state = Context(values, self.compute, self.comm, tuple((n, known[n]) for n in read))
        key = (name, piece.name, state.shape)
        if key not in self.patterns:
            segment = self.result.graph.segment(name)
            self.patterns[key] = Expansion(self, segment, state.numbered(), piece.part, piece.entry, piece.result).run()
        return self.placed_row(self.patterns[key], state, number, microbatch, self.tag)

    def placed_row(self, pattern: Pattern, state: Context, number: int, microbatch: int, tag: int) -> TraceLayer:
        row = TraceLayer(pattern, self.base, state.flat, number, microbatch, tag)
        self.base += len(pattern.nodes)
        self.tag += pattern.tags
        self.compute, self.comm = row.exit.compute, row.exit.comm
        return row

    def update(self, part: str, place: Place, name: str, number: int) -> Iterator[TraceLayer]:
        """An update of a layer, or a part of it. Weights that are gathered first are those of the step before."""
        piece = self.pieces[name][part]
        if not piece.part.ops:
            return
        known = {read: self.sums[place].get(read, ()) for read in piece.reads}
        row = self.row(piece, name, number, 0, ((),), known)
        yield row
        if part == GATHER:
            stored = {f"@{op.attrs.weight}": op.name for op in piece.part.ops if isinstance(op.attrs, StoreAttrs)}
            self.weights[place] = {weight: row.absolute(row.pattern.made[op]) for weight, op in stored.items()}
        self.sums[place] |= {value: row.absolute(refs) for value, refs in row.pattern.made.items()}

    # -- messages between stages -----------------------------------------------------------------

    def seat(self, route: int, virtual: int) -> int:
        return self.result.steps.schedule.routes[route].seats[virtual].gpu

    def number(self, message: Message) -> int:
        """A tag: both ends name the same one."""
        stages = self.result.steps.schedule.stages
        return 2 * (message.microbatch * stages + message.sender) + (not message.forward)

    def received(self, message: Message) -> TraceLayer:
        """Receives occupy no stream: they may be posted before anything else is done."""
        there = self.seat(message.route, message.sender)
        key = ("received", message.words, message.receiver)
        if key not in self.patterns:
            payload_B = self.edge(message).payload_B
            size = self.size(payload_B, message)
            name = joined(self.cell(0), f"/{message.words}.v{message.receiver}.recv")
            node = TraceNode(
                name, schema.RECV, "", (), (), None, 0, size, stage_hole(there), 0, writes=(tensor(0, payload_B),)
            )
            self.patterns[key] = Pattern((node,), Context(((0,),), (), ()))
        return self.message_row(self.patterns[key], (), message)

    def sent_row(self, message: Message, values: tuple[Refs, ...]) -> TraceLayer:
        """When its cell has ended, and the message before it is out."""
        there = self.seat(message.route, message.receiver)
        state = Context(values, self.compute, self.comm, (("sent", self.sent),))
        key = ("sent", message.words, message.sender, state.shape)
        if key not in self.patterns:
            given, edge = state.numbered(), self.edge(message)
            data = (*given.values[0], *given.kept[0][1])
            control = tuple(r for r in dict.fromkeys((*given.compute, *given.comm)) if r not in data)
            name = joined(self.cell(0), f"/{message.words}.v{message.sender}.send")
            read = tuple(tensor(r, edge.payload_B) for r in given.values[0][:1])
            size = self.size(edge.payload_B, message)
            node = TraceNode(
                name,
                schema.SEND,
                "comm",
                data,
                control,
                self.send_key(message),
                0,
                size,
                stage_hole(there),
                0,
                reads=read,
            )
            self.patterns[key] = Pattern((node,), given)
        self.sent = (self.base,)
        return self.message_row(self.patterns[key], state.flat, message)

    def size(self, payload_B: float, message: Message) -> bytes:
        cell = schema.attribute("cell", "string", message.words)
        return schema.attribute("comm_size", "int64", message_size(payload_B)) + cell

    def message_row(self, pattern: Pattern, outside: Refs, message: Message) -> TraceLayer:
        row = TraceLayer(pattern, self.base, outside, -1, message.microbatch, self.number(message))
        self.base += 1
        return row


def accumulates(piece: Piece) -> tuple[Op, ...]:
    return tuple(op for op in piece.part.ops if isinstance(op.attrs, AccumulateAttrs))


def in_turns(runs: Iterable[Iterator[TraceLayer]]) -> Iterator[TraceLayer]:
    """A row of each in turn."""
    for rows in zip_longest(*runs):
        yield from (row for row in rows if row is not None)
