"""The nodes of one layer: an op each, a permute as messages, with what each waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from ...base.collectives import COLLECTIVES
from ...cost.schedule.layer_program import lane_program
from ...ir.op import UPDATE, Op
from ...ir.ops.attributes.moves import RingTurnAttrs
from ...ir.ops.sizes import local_bytes
from ...ir.segment import Segment
from ...plan.step_totals import cell_name
from . import messages as schema
from .rank_program import RankProgram
from .ranks import Hole, Placed
from .trace_rows import LAYER, Context, Pattern, Refs, Tensor, TraceNode, Words, joined, message_size, tensor


@dataclass
class Expansion:
    """A layer of one kind, or those of its ops that run in one go (`part`), as nodes. `entry`, `result`: the value that it is given, and
    the one that it hands on."""

    program: RankProgram
    segment: Segment
    given: Context
    part: Segment | None = None
    entry: str | None = None
    result: str | None = None
    nodes: list[TraceNode] = field(default_factory=list)
    done: dict[tuple[str, int], Refs] = field(default_factory=dict)
    begun: dict[tuple[str, int], Refs] = field(default_factory=dict)
    compute: Refs = ()
    comm: Refs = ()
    tags: int = 0

    def run(self) -> Pattern:
        self.compute, self.comm = self.given.compute, self.given.comm
        lanes = len(self.given.values)
        for name, refs in self.given.kept:
            self.done[name, 0] = refs
        for op, lane in lane_program(self.part or self.segment, lanes):
            self.op(op, lane)
        result = self.segment.output if self.result is None else self.result
        values = tuple(self.value(result, lane) if result else () for lane in range(lanes))
        made = {name: refs for (name, lane), refs in self.done.items() if lane == 0}
        return Pattern(tuple(self.nodes), Context(values, self.compute, self.comm), self.tags, made)

    @property
    def given_name(self) -> str:
        return self.segment.input if self.entry is None else self.entry

    def value(self, name: str, lane: int) -> Refs:
        """The nodes that bring what is given, or that made a value."""
        return self.given.values[lane] if name == self.given_name else self.done[name, lane]

    def op(self, op: Op, lane: int) -> None:
        data: list[int] = []
        blocks: list[int] = []
        for name in self.segment.sources(op):
            data += self.source(op, name, lane)
            if self.turns(op, name):
                blocks += self.done[name, lane]
        for name in (n for n in (op.name, *op.inputs) if n == op.name or n.startswith("@")):
            data += self.done.get((name, lane), ())  # a sum goes on, a weight was just gathered
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
        if name != self.given_name and self.turns(op, name) and (name, lane) in self.begun:
            return self.begun[name, lane]  # attention begins on its own block
        return self.value(name, lane)

    def add(self, node: TraceNode) -> Refs:
        self.nodes.append(node)
        return (len(self.nodes) - 1,)

    def work(self, op: Op, lane: int, data: Refs) -> TraceNode:
        cost = self.program.placed.costs.ops[self.segment.name, op.name]
        control = tuple(r for r in self.compute if r not in data)
        # No FLOPs at all would be 0/0 to the simulator's roofline. A node without bytes it skips, and with it all that waits.
        least_B = 1 if data or control else self.program.first_B
        attributes = schema.attribute("num_ops", "int64", max(1, round(cost.flops)))
        attributes += schema.attribute("tensor_size", "uint64", max(least_B, ceil(cost.bytes - 1e-6)))
        attributes += self.kind_of(op)
        return TraceNode(
            self.name(op, lane), schema.COMP, "compute", data, control, (self.segment.name, op.name), lane, attributes,
            layered=self.layered, batched=self.batched(op), reads=self.reads(op, lane), writes=(self.made(op),),
        )  # fmt: skip

    def kind_of(self, op: Op) -> bytes:
        """What an op is, and the cell of a training step that it is in."""
        kind = schema.attribute("op_kind", "string", op.runtime_kind)
        return kind + schema.attribute("cell", "string", cell_name(op.cell)) if self.program.trains else kind

    def batched(self, op: Op) -> bool:
        return op.cell != UPDATE

    @property
    def layered(self) -> bool:
        return not self.program.placed.graph.is_end(self.segment.name)

    def of_layer(self) -> Words:
        """`sparse.3`, or the name of an end."""
        name = self.segment.name
        return Words((f"{name}.", ""), ((LAYER, 0),)) if self.layered else Words((name,))

    def name(self, op: Op, lane: int) -> Words:
        layer = self.of_layer()
        cell = self.program.cell(lane) if self.batched(op) else self.program.outside_batches()
        parts = (*cell.parts[:-1], f"{cell.parts[-1]}.{layer.parts[0]}", *layer.parts[1:])
        return joined(Words(parts, cell.numbers + layer.numbers), f"/{op.name}")

    # -- tensors ---------------------------------------------------------------------------------

    def local_B(self, name: str) -> float:
        layout = self.segment.sharding_of(name)
        assert layout is not None, f"%{name} has no layout"
        return local_bytes(self.segment, name, layout.dims, self.program.placed.graph.the_mesh)

    def made(self, op: Op) -> Tensor:
        return tensor(len(self.nodes), self.local_B(op.name))

    def reads(self, op: Op, lane: int) -> tuple[Tensor, ...]:
        """Values by the nodes that made them, and weights, which all micro-batches share."""
        found: dict[Words, Tensor] = {}
        for name in op.inputs:
            if name.startswith("@"):
                one = Tensor(joined(self.of_layer(), f"/{name}"), ceil(self.local_B(name) - 1e-6))
            else:
                source = name if self.segment.is_given(name) else self.segment.by_name[name].name
                refs = self.source(op, self.segment.arrives_with(source), lane)
                if not refs:
                    continue  # the tokens come from the host
                one = tensor(refs[0], self.local_B(source))
            found.setdefault(one.name, one)
        if before := self.done.get((op.name, lane), ()):  # a sum goes on
            found.setdefault((one := tensor(before[0], self.local_B(op.name))).name, one)
        return tuple(found.values())

    def collective(self, op: Op, lane: int, data: Refs) -> TraceNode:
        result = self.program.placed
        hole: Hole = ("group", *self.program.ranks.group(op))
        size = comm_size(result, self.segment, op)
        attributes = schema.attribute("comm_type", "int64", schema.COLLECTIVE_TYPE[op.runtime_kind])
        attributes += schema.attribute("comm_size", "int64", size)
        attributes += self.kind_of(op)
        waits = tuple(dict.fromkeys((*data, *self.comm)))
        known = hole if hole in self.program.holes else None
        return TraceNode(
            self.name(op, lane), schema.COLL, "comm", waits, (), (self.segment.name, op.name), lane, attributes, known,
            layered=self.layered, batched=self.batched(op), reads=self.reads(op, lane), writes=(self.made(op),),
        )  # fmt: skip

    def permute(self, op: Op, lane: int, data: Refs) -> None:
        """Messages to and from the peers; the steps of a ring are so many in a row, each passing on what came."""
        cost = self.program.placed.costs.ops[self.segment.name, op.name]
        size = schema.attribute("comm_size", "int64", message_size(cost.payload_B))
        size += self.kind_of(op)
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
                        1 / steps, layered, self.batched(op), reads=reads,
                    )
                )  # fmt: skip
                index += 1
            if ("from", *key) in holes:
                hole, made = ("from", *key), self.made(op)
                came = self.add(
                    TraceNode(
                        joined(name, f".recv{mark}"), schema.RECV, "", waits, (), None, lane, size, hole, self.tags,
                        layered=layered, batched=self.batched(op), writes=(made,),
                    )
                )  # fmt: skip
                out += came
                reads = (made,)
            last = tuple(out) or last
            self.tags += 1  # on every rank, whether it takes part or not: both ends name the same one
        self.begun[op.name, lane] = data
        self.done[op.name, lane] = came
        self.comm = last


def comm_size(result: Placed, segment: Segment, op: Op) -> int:
    """Bytes of a collective's local buffer. Routed tokens: as many as the busiest rank has, on every rank, since there
    are no sizes for each peer, and as many copies in as many bits as are priced. What is cut into one part per rank divides by their number: nothing is lost, no part is empty."""
    cost = result.costs.ops[segment.name, op.name]
    size = message_size(cost.buffer_B or cost.payload_B * (result.costs.imbalance if op.is_token_exchange else 1.0))
    parts = result.graph.the_mesh.size(op.axes) if COLLECTIVES[op.runtime_kind].scatters else 1
    return -(-size // parts) * parts
