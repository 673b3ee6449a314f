"""What one rank runs, layer by layer: a pattern of nodes for each kind of layer, and a row of numbers for each layer.

Scatter and gather of token ids are in no trace: hosts exchange them while other passes run, and no step waits. The simulator has
no place for that: as messages they would hold up the collectives of their rank, and it stops at nodes of the host.

Every rank of a group takes the group's collectives in one order: a communication node waits for the one before it. Compute
nodes are ordered by control dependencies, as their stream is in the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil

from ...base.collectives import COLLECTIVES
from ...base.frozen import record
from ...cost.schedule.layer_program import lane_program
from ...ir.graph import Op, Segment
from ...ir.ops.attributes import RingTurnAttrs
from ...ir.ops.sizes import local_bytes
from ...plan.result import PhaseResult
from . import messages as schema
from .ranks import Hole, Ranks

Refs = tuple[int, ...]
"""Nodes: 0 and up within the layer, below 0 what the layer is given from outside (-1 the first of it)."""

ID, LAYER, MICROBATCH, TAG, DURATION = range(-1, 4)
"""What a number of a row is."""


@record
class Words:
    """Text with numbers of the row between its parts: what each is, and for an id of which node."""

    parts: tuple[str, ...]
    numbers: tuple[tuple[int, int], ...] = ()


@record
class Tensor:
    """What a node reads or writes, and its bytes on this rank."""

    name: Words
    size_B: int


@record
class TraceNode:
    """`name`: as the placed graph's id. `attributes`: encoded, without what changes from row to row. `hole`: the attribute that
    is a rank's own. `tag`: of a message, counted from the first of its row. It takes `share` of the time of the op `timed`."""

    name: Words
    kind: int
    stream: str
    data: Refs
    control: Refs
    timed: tuple[str, str] | None
    lane: int
    attributes: bytes
    hole: Hole | None = None
    tag: int | None = None
    share: float = 1.0
    layered: bool = False
    reads: tuple[Tensor, ...] = ()
    writes: tuple[Tensor, ...] = ()


@record
class Context:
    """Nodes to wait for: those that bring each lane's value, and the last ones of each stream."""

    values: tuple[Refs, ...]
    compute: Refs
    comm: Refs

    @property
    def flat(self) -> Refs:
        return (*(r for refs in self.values for r in refs), *self.compute, *self.comm)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*(len(refs) for refs in self.values), len(self.compute), len(self.comm))

    def numbered(self) -> Context:
        """The same with -1, -2, .. in place of the nodes."""
        at = iter(range(-1, -1 - len(self.flat), -1))
        values = tuple(tuple(next(at) for _ in refs) for refs in self.values)
        return Context(values, tuple(next(at) for _ in self.compute), tuple(next(at) for _ in self.comm))


@record(slots=False)
class Pattern:
    """The nodes of a layer, and what the next one waits for. `tags`: how many its messages take."""

    nodes: tuple[TraceNode, ...]
    exit: Context
    tags: int = 0


@record
class TraceLayer:
    """One layer of a micro-batch: the id of its first node, and the ids of what it is given."""

    pattern: Pattern
    base: int
    outside: tuple[int, ...]
    layer: int
    microbatch: int
    tag: int

    def absolute(self, refs: Refs) -> Refs:
        return tuple(self.base + r if r >= 0 else self.outside[-1 - r] for r in refs)

    @property
    def exit(self) -> Context:
        e = self.pattern.exit
        return Context(tuple(map(self.absolute, e.values)), self.absolute(e.compute), self.absolute(e.comm))


FIRST_ID = 1
EDGE = ("", "send")
"""Names the time of a send to the next stage."""
HOST = ("", "host")
"""Names what the host takes before a pass."""


@dataclass
class Program:
    """Rows of the ranks of a stage. `holes`: what is a rank's own, and how many bytes it takes. `first_B`: what a node moves at
    least that waits for nothing; without a nanosecond of its own the simulator's roofline stops at time 0."""

    ranks: Ranks
    stage: int
    holes: Mapping[Hole, int]
    first_B: int = 1
    patterns: dict[tuple[object, ...], Pattern] = field(default_factory=dict)

    @property
    def result(self) -> PhaseResult:
        return self.ranks.result

    def rows(self) -> Iterator[TraceLayer]:
        graph = self.result.graph
        lanes, stages = graph.lanes, len(graph.stages)
        base = FIRST_ID
        compute: Refs = ()
        comm: Refs = ()
        tag = stages * graph.microbatches * lanes  # above those of the edges between stages
        if self.stage == 0 and self.result.schedule.host_s:
            yield TraceLayer(self.host(lanes), base, (), -1, 0, tag)
            compute, base = (base,), base + 1
        for microbatch in range(graph.microbatches):
            state = Context(((),) * lanes, compute, comm)
            first = graph.first_layer(self.stage)
            layers = [name for name, count in graph.stages[self.stage].layers for _ in range(count)]
            plan: list[tuple[Segment | None, int]] = [(graph.segment(name), first + i) for i, name in enumerate(layers)]
            if self.stage > 0:
                plan.insert(0, (None, first))
            if self.stage < stages - 1:
                plan.append((None, first + len(layers)))
            for segment, layer in plan:
                entry = layer == first
                pattern = self.pattern(segment, state, entry)
                edge = (microbatch * stages + (self.stage - 1 if entry else self.stage)) * lanes
                row = TraceLayer(pattern, base, state.flat, layer, microbatch, edge if segment is None else tag)
                yield row
                base += len(pattern.nodes)
                tag += pattern.tags
                state = row.exit
            compute, comm = state.compute, state.comm

    def pattern(self, segment: Segment | None, state: Context, entry: bool) -> Pattern:
        key = (segment.name if segment else entry, state.shape)
        if key not in self.patterns:
            numbered = state.numbered()
            if segment is None:
                self.patterns[key] = self.received(numbered) if entry else self.sent(numbered)
            else:
                self.patterns[key] = Expansion(self, segment, numbered).run()
        return self.patterns[key]

    def host(self, lanes: int) -> Pattern:
        """The host's part of a pass, which the first thing that computes waits for."""
        work = schema.attribute("num_ops", "int64", 1) + schema.attribute("tensor_size", "uint64", self.first_B)
        work += schema.attribute("op_kind", "string", "host")
        node = TraceNode(Words(("host",)), schema.COMP, "compute", (), (), HOST, 0, work)
        return Pattern((node,), Context(((),) * lanes, (0,), ()))

    def cell(self, lane: int) -> Words:
        """The beginning of a placed id: `s0.m2.a`."""
        mark = "" if self.result.graph.lanes == 1 else f".{'ab'[lane]}"
        return Words((f"s{self.stage}.m", mark), ((MICROBATCH, 0),))

    # -- edges between stages --------------------------------------------------------------------

    def received(self, given: Context) -> Pattern:
        """Receives occupy no stream: they may be posted before anything else is done."""
        payload_B = self.result.costs.edges[self.stage - 1].payload_B
        size = schema.attribute("comm_size", "int64", message_size(payload_B))
        nodes = tuple(
            TraceNode(
                joined(self.cell(lane), "/recv"), schema.RECV, "", (), (), None, lane, size, ("previous",), lane,
                writes=(tensor(lane, payload_B),),
            )
            for lane in range(len(given.values))
        )  # fmt: skip
        values = tuple((lane,) for lane in range(len(nodes)))
        return Pattern(nodes, Context(values, given.compute, given.comm))

    def sent(self, given: Context) -> Pattern:
        edge = self.result.costs.edges[self.stage]
        size = schema.attribute("comm_size", "int64", message_size(edge.payload_B))
        nodes: list[TraceNode] = []
        comm = given.comm
        for lane, refs in enumerate(given.values):
            data = tuple(dict.fromkeys((*refs, *comm)))
            name, read = joined(self.cell(lane), "/send"), tuple(tensor(r, edge.payload_B) for r in refs[:1])
            nodes.append(TraceNode(name, schema.SEND, "comm", data, (), EDGE, lane, size, ("next",), lane, reads=read))
            comm = (lane,)
        return Pattern(tuple(nodes), Context(given.values, given.compute, comm))


def message_size(payload_B: float) -> int:
    return max(1, ceil(payload_B - 1e-6))


def joined(words: Words, text: str) -> Words:
    """Words with more text behind them."""
    return Words((*words.parts[:-1], words.parts[-1] + text), words.numbers)


def tensor(ref: int, size_B: float) -> Tensor:
    """What a node makes, called by its id: a name must be written once in a file."""
    return Tensor(Words(("%", ""), ((ID, ref),)), ceil(size_B - 1e-6))


@dataclass
class Expansion:
    """One layer of one kind, as nodes."""

    program: Program
    segment: Segment
    given: Context
    nodes: list[TraceNode] = field(default_factory=list)
    done: dict[tuple[str, int], Refs] = field(default_factory=dict)
    begun: dict[tuple[str, int], Refs] = field(default_factory=dict)
    compute: Refs = ()
    comm: Refs = ()
    tags: int = 0

    def run(self) -> Pattern:
        self.compute, self.comm = self.given.compute, self.given.comm
        lanes = len(self.given.values)
        for op, lane in lane_program(self.segment, lanes):
            self.op(op, lane)
        passed = self.segment.output == self.segment.input
        values = self.given.values if passed else tuple(self.done[self.segment.output, n] for n in range(lanes))
        return Pattern(tuple(self.nodes), Context(values, self.compute, self.comm), self.tags)

    def op(self, op: Op, lane: int) -> None:
        data: list[int] = []
        blocks: list[int] = []
        for name in self.segment.sources(op):
            data += self.source(op, name, lane)
            if self.turns(op, name):
                blocks += self.done[name, lane]
        waits = tuple(dict.fromkeys(data))
        if op.runtime_kind == "permute":
            self.permute(op, lane, waits)
        elif op.is_collective:
            self.done[op.name, lane] = self.comm = self.add(self.collective(op, lane, waits))
        else:
            node = self.add(self.work(op, lane, waits))
            self.done[op.name, lane] = self.compute = (*node, *dict.fromkeys(blocks))

    def turns(self, op: Op, name: str) -> bool:
        """Whether a source is a block that travels around the ring of an attention."""
        return (
            bool(op.ring)
            and name in self.segment.by_name
            and isinstance(self.segment.by_name[name].attrs, RingTurnAttrs)
        )

    def source(self, op: Op, name: str, lane: int) -> Refs:
        """The nodes that make what an op begins with."""
        if name == self.segment.input:
            return self.given.values[lane]
        return (self.begun if self.turns(op, name) else self.done)[name, lane]  # attention begins on its own block

    def add(self, node: TraceNode) -> Refs:
        self.nodes.append(node)
        return (len(self.nodes) - 1,)

    def work(self, op: Op, lane: int, data: Refs) -> TraceNode:
        cost = self.program.result.costs.ops[self.segment.name, op.name]
        control = tuple(r for r in self.compute if r not in data)
        # No FLOPs at all would be 0/0 to the simulator's roofline. A node without bytes it skips, and with it all that waits.
        least_B = 1 if data or control else self.program.first_B
        attributes = schema.attribute("num_ops", "int64", max(1, round(cost.flops)))
        attributes += schema.attribute("tensor_size", "uint64", max(least_B, ceil(cost.bytes - 1e-6)))
        attributes += schema.attribute("op_kind", "string", op.runtime_kind)
        return TraceNode(
            self.name(op, lane), schema.COMP, "compute", data, control, (self.segment.name, op.name), lane, attributes,
            layered=self.layered, reads=self.reads(op, lane), writes=(self.made(op),),
        )  # fmt: skip

    @property
    def layered(self) -> bool:
        return not self.program.result.graph.is_end(self.segment.name)

    def of_layer(self) -> Words:
        """`sparse.3`, or the name of an end."""
        name = self.segment.name
        return Words((f"{name}.", ""), ((LAYER, 0),)) if self.layered else Words((name,))

    def name(self, op: Op, lane: int) -> Words:
        cell, layer = self.program.cell(lane), self.of_layer()
        parts = (*cell.parts[:-1], f"{cell.parts[-1]}.{layer.parts[0]}", *layer.parts[1:])
        return joined(Words(parts, cell.numbers + layer.numbers), f"/{op.name}")

    # -- tensors ---------------------------------------------------------------------------------

    def local_B(self, name: str) -> float:
        layout = self.segment.sharding_of(name)
        assert layout is not None, f"%{name} has no layout"
        return local_bytes(self.segment, name, layout.dims, self.program.result.graph.the_mesh)

    def made(self, op: Op) -> Tensor:
        return tensor(len(self.nodes), self.local_B(op.name))

    def reads(self, op: Op, lane: int) -> tuple[Tensor, ...]:
        """Values by the nodes that made them, and weights, which all micro-batches share."""
        found: dict[Words, Tensor] = {}
        for name in op.inputs:
            if name.startswith("@"):
                one = Tensor(joined(self.of_layer(), f"/{name}"), ceil(self.local_B(name) - 1e-6))
            else:
                source = name if name == self.segment.input else self.segment.by_name[name].name
                refs = self.source(op, source, lane)
                if not refs:
                    continue  # the tokens come from the host
                one = tensor(refs[0], self.local_B(source))
            found.setdefault(one.name, one)
        return tuple(found.values())

    def collective(self, op: Op, lane: int, data: Refs) -> TraceNode:
        result = self.program.result
        hole: Hole = ("group", *self.program.ranks.group(op))
        size = comm_size(result, self.segment, op)
        attributes = schema.attribute("comm_type", "int64", schema.COLLECTIVE_TYPE[op.runtime_kind])
        attributes += schema.attribute("comm_size", "int64", size)
        attributes += schema.attribute("op_kind", "string", op.runtime_kind)
        waits = tuple(dict.fromkeys((*data, *self.comm)))
        known = hole if hole in self.program.holes else None
        return TraceNode(
            self.name(op, lane), schema.COLL, "comm", waits, (), (self.segment.name, op.name), lane, attributes, known,
            layered=self.layered, reads=self.reads(op, lane), writes=(self.made(op),),
        )  # fmt: skip

    def permute(self, op: Op, lane: int, data: Refs) -> None:
        """Messages to and from the peers; the steps of a ring are so many in a row, each passing on what came."""
        cost = self.program.result.costs.ops[self.segment.name, op.name]
        size = schema.attribute("comm_size", "int64", message_size(cost.payload_B))
        size += schema.attribute("op_kind", "string", op.runtime_kind)
        steps = op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1
        key = (self.segment.name, op.name)
        holes = self.program.holes
        came, last = data, self.comm
        name, layered, reads = self.name(op, lane), self.layered, self.reads(op, lane)
        for step in range(steps):
            mark = f".{step}" if steps > 1 else ""
            waits = tuple(dict.fromkeys((*came, *last)))
            out: list[int] = []
            index = 0
            while ("to", *key, str(index)) in holes:
                to = f".to{index}" if index else ""
                hole: Hole = ("to", *key, str(index))
                out += self.add(
                    TraceNode(
                        joined(name, f".send{mark}{to}"), schema.SEND, "comm", waits, (), key, lane, size, hole, self.tags,
                        1 / steps, layered, reads=reads,
                    )
                )  # fmt: skip
                index += 1
            if ("from", *key) in holes:
                hole, made = ("from", *key), self.made(op)
                came = self.add(
                    TraceNode(
                        joined(name, f".recv{mark}"), schema.RECV, "", waits, (), None, lane, size, hole, self.tags,
                        layered=layered, writes=(made,),
                    )
                )  # fmt: skip
                out += came
                reads = (made,)
            last = tuple(out) or last
            self.tags += 1  # on every rank, whether it takes part or not: both ends name the same one
        self.begun[op.name, lane] = data
        self.done[op.name, lane] = came
        self.comm = last


def comm_size(result: PhaseResult, segment: Segment, op: Op) -> int:
    """Bytes of a collective's local buffer. Routed tokens: as many as the busiest rank has, on every rank, since there
    are no sizes for each peer, and as many copies in as many bits as are priced. What is cut into one part per rank divides by their number: nothing is lost, no part is empty."""
    cost = result.costs.ops[segment.name, op.name]
    size = message_size(cost.buffer_B or cost.payload_B * (result.costs.imbalance if op.is_token_exchange else 1.0))
    parts = result.graph.the_mesh.size(op.axes) if COLLECTIVES[op.runtime_kind].scatters else 1
    return -(-size // parts) * parts
