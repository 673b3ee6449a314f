"""reshard: the one pass that inserts collectives, wherever producer and consumer disagree on a layout."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.dtypes import DTYPE_BYTES
from dagc.base.frozen import field, mutable, record, replace
from dagc.ir.chains import PLAIN_PRICES, Chains, Prices
from dagc.ir.cuts import Cuts, cut_graph
from dagc.ir.graph import Graph, StageEdge
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.ir.handed_on import carried
from dagc.ir.mesh import Mesh
from dagc.ir.moves import NoRoute, TensorSizes
from dagc.ir.op import BACKWARD, CELLS, FORWARD, RECOMPUTE, WEIGHT, Op, Value, Weight
from dagc.ir.ops.attributes.attrs import Attrs
from dagc.ir.ops.attributes.moves import MoveAttrs, RingTurnAttrs, SliceAttrs, SoftmaxMergeAttrs, SoftmaxScatterAttrs
from dagc.ir.ops.attributes.training import FetchAttrs
from dagc.ir.ops.further import further_results, moved_results
from dagc.ir.ops.op_set import OPS, input_layout, result_layout
from dagc.ir.ops.sizes import local_count
from dagc.ir.routed_dims import stem
from dagc.ir.segment import Segment
from dagc.ir.sharding import Axes, Move, Sharding

GOES_ON = dict.fromkeys((RECOMPUTE, BACKWARD, WEIGHT), BACKWARD)
"""Cells that follow each other: what is moved in one is there for the others."""


@record
class Reshard(GraphPass):
    """Every collective, the cheapest chain by `prices`. `sequence_parallel`: the residual stream is split over `tp` too."""

    name: ClassVar[str] = "reshard"
    sequence_parallel: bool = False
    prices: Prices = PLAIN_PRICES

    def run(self, graph: Graph) -> Graph:
        while True:
            done, cuts = self.once(graph)
            if not cuts:
                return done
            graph = cut_graph(graph, cuts)

    def once(self, graph: Graph) -> tuple[Graph, Cuts]:
        """The graph with its collectives; and cuts of axes that would make some of them cheaper."""
        mesh = graph.the_mesh
        chains = Chains(self.prices, mesh)
        residual = self.residual(graph)
        segments = []
        handed: dict[str, Sharding] = {}
        for segment in graph.segments:
            work = Resharder(segment, mesh, chains, residual, last=segment is graph.head, handed=handed)
            try:
                segments.append(work.run())
            except NoRoute as error:
                raise NoLayout(
                    f"the strategy splits layer `{segment.name}` in a way that cannot be computed",
                    where=(segment.name, work.visited),
                    because=(str(error),),
                ) from None
            if work.cuts:
                return graph, work.cuts
        done = replace(graph, segments=tuple(segments), level="sharded")
        return replace(done, sends=stage_edges(done)), {}

    def residual(self, graph: Graph) -> tuple[Axes, Axes]:
        """Layout of the residual stream between layers: that of its sequences and their tokens. The width of a token stays whole, and several
        streams are together."""
        mesh = graph.the_mesh
        if graph.generates:
            return (mesh.batch_axes, ())
        tensor = mesh.of("tp") if self.sequence_parallel else ()
        return (mesh.batch_axes, (*mesh.of("sp"), *tensor))


class NoLayout(PassError):
    """Loops are split in a way that no layout of the operands serves."""


def stage_edges(graph: Graph) -> tuple[StageEdge, ...]:
    """A change of stage sends each rank's shard of the residual stream, and of what layers behind take beside it, to its equal on the next
    stage."""
    edges = []
    for stage in graph.stages[1:]:
        segment = graph.segment(stage.layers[0][0])
        assert segment.entry is not None
        edges.append(
            StageEdge(
                stage.index - 1, stage.index, segment.input, segment.input_dims, segment.input_dtype, segment.entry,
                carried(graph, stage.index),
            )
        )  # fmt: skip
    return tuple(edges)


@mutable
class Resharder:
    """Rewrites one segment in program order; one reshard per (value, target). `partners`: of an op's first result the further
    ones, which move with it. `cuts`: those of axes that would make a chain cheaper. `handed`: the layout of each value that a segment before
    hands on beside the residual stream: a kind of layer takes what an earlier one has made, as it lies there."""

    segment: Segment
    mesh: Mesh
    chains: Chains
    residual: tuple[Axes, Axes]
    last: bool
    handed: dict[str, Sharding] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    layout: dict[str, Sharding] = field(default_factory=dict)
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    made: dict[tuple[str, Sharding, str], str] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    partners: dict[str, tuple[str, ...]] = field(default_factory=dict)
    visited: str = ""
    cell: str = FORWARD
    cuts: Cuts = field(default_factory=dict)

    def run(self) -> Segment:
        segment = self.segment
        entry = self.between(segment.input_dims)
        if segment.input == "tokens":
            entry = Sharding(tuple(self.first_use(d) for d in segment.input_dims))
        self.put(segment.input, segment.input_dims, entry)
        for one in segment.taken:
            self.put(one.name, one.dims, self.handed[one.name])
        forward = [op for op in segment.ops if op.cell == FORWARD]
        for op in forward:
            self.visit(op)
        want = self.handed_on()
        handed = tuple((name, self.beside(name, value)) for name, value in segment.handed)
        output = self.reach(segment.output, want)
        taken = tuple(replace(one, sharding=self.handed[one.name]) for one in segment.taken)
        weights = tuple(self.weights.get(w.name, w) for w in segment.weights)
        done = replace(segment, output=output, weights=weights, entry=entry, taken=taken, handed=handed)
        if len(forward) < len(segment.ops):
            done = self.back(done, segment.ops[len(forward) :], want)
        return replace(done, ops=tuple(self.ops))

    def beside(self, name: str, value: str) -> str:
        """A value that is handed on beside the output: as it is made, or as another kind of layer hands it on already."""
        want = self.handed.setdefault(name, self.layout[value].resolved())
        return self.reach(value, want)

    def handed_on(self) -> Sharding:
        """The layout of the output. Losses stay where their tokens are; what a last layer chooses is split over the batch alone."""
        segment, last = self.segment, self.last
        loss = last and len(segment.ops) > 0 and segment.ops[-1].cell != FORWARD
        if loss:
            return self.layout[segment.output].resolved()
        dims = segment.dims_of(segment.output)
        return Sharding(tuple(() if d != "batch" else self.residual[0] for d in dims)) if last else self.between(dims)

    def between(self, dims: tuple[str, ...]) -> Sharding:
        """The layout of what layers hand on, [sequences, tokens, ...]."""
        return Sharding((*self.residual, *((),) * (len(dims) - 2)))

    def back(self, done: Segment, ops: tuple[Op, ...], upstream: Sharding) -> Segment:
        """The ops of gradients. What is handed back has the layout of what was handed on."""
        segment = self.segment
        if segment.upstream is not None:
            self.put(segment.upstream.name, segment.upstream.dims, upstream)
            self.dtypes[segment.upstream.name] = segment.upstream.dtype
            done = replace(done, upstream=replace(segment.upstream, sharding=upstream))
        gets = tuple((name, replace(value, sharding=self.handed[name])) for name, value in segment.gets)
        for name, value in segment.gets:
            self.put(value.name, value.dims, self.handed[name])
            self.dtypes[value.name] = value.dtype
        downstream, gives = segment.downstream, segment.gives
        for cell in CELLS[1:]:
            self.cell = cell
            for op in ops:
                if op.cell == cell:
                    self.visit(op)
            if downstream and cell == BACKWARD:
                assert done.entry is not None
                gives = tuple((name, self.reach(value, self.handed[name])) for name, value in gives)
                downstream = self.reach(downstream, done.entry)
        return replace(done, downstream=downstream, gets=gets, gives=gives)

    def first_use(self, dim: str) -> Axes:
        """Token ids arrive as their first consumer wants them: the host sends each rank its own."""
        op = next(self.segment.users(self.segment.input))
        return op.loop(dim)

    def put(self, name: str, dims: tuple[str, ...], layout: Sharding) -> None:
        self.layout[name] = layout
        self.dims[name] = dims

    def visit(self, op: Op) -> None:
        """Bring every input to the layout the op needs, passing partial sums through where that is cheaper."""
        self.visited = op.name
        if op.cell in GOES_ON:
            op = self.where_they_are(op)
        carried = self.carried(op)
        inputs = []
        for name in op.inputs:
            need = input_layout(self.segment, op, name)
            if name.startswith("@"):
                self.place_weight(name, need, op.on)
                inputs.append(name)
                continue
            keep = carried if self.layout[name].partial and carried else ()
            want = Sharding(need, keep, "sum", op.on)
            inputs.append(self.reach(name, want))
        inputs = self.ring(op, inputs)
        own = result_layout(self.segment, op)
        partial = self.mesh.sort((*carried, *own.partial))
        layout = Sharding(own.dims, partial, own.reduce if own.partial else "sum", op.on)
        self.add(replace(op, inputs=tuple(inputs), sharding=layout, more=further_results(op, layout)), op.name)

    def where_they_are(self, op: Op) -> Op:
        """Contributions to a gradient are added up as they are before their sum is reduced: one move, not one for each."""
        layouts = {self.layout[name] for name in op.inputs if not name.startswith("@")}
        alike = OPS[op.kind].jointly and len(layouts) == 1 and all(self.dims.get(name) == op.dims for name in op.inputs)
        if not alike or not (have := next(iter(layouts))).partial:
            return op
        for dim, axes in zip(op.dims, have.dims, strict=True):
            op = op.annotate(dim, axes)
        return op

    def add(self, op: Op, origin: str) -> None:
        """An op whose results have their layouts. `origin`: the op whose value they are in another one."""
        self.ops.append(op)
        for value in op.results:
            assert value.sharding is not None
            self.put(value.name, value.dims, value.sharding)
            self.dtypes[value.name] = value.dtype
            self.origin[value.name] = origin
        self.partners[op.name] = tuple(value.name for value in op.more)

    def value(self, name: str) -> Value:
        return Value(name, self.dims[name], self.dtype(name), self.layout[name])

    def carried(self, op: Op) -> Axes:
        """Axes whose partial sum may pass through this op unreduced."""
        definition = OPS[op.kind]
        held = {i: self.layout[n] for i, n in enumerate(op.inputs) if not n.startswith("@") and self.layout[n].partial}
        if not held or any(s.reduce != "sum" or s.on != op.on for s in held.values()):
            return ()
        if any(i not in definition.linear for i in held):
            return ()
        first = next(iter(held.values())).partial
        if definition.jointly and (len(held) < len(op.inputs) or any(s.partial != first for s in held.values())):
            return ()  # a partial sum on one side only cannot be added to a whole value, nor to a weight
        if not definition.jointly and len(held) > 1:
            return ()
        own = result_layout(self.segment, op)
        if set(first) & (own.used | {a for _, axes in op.loops for a in axes}):
            return ()
        return first if self.no_larger(op, own) else ()

    def no_larger(self, op: Op, own: Sharding) -> bool:
        """Reduce where the tensor is smaller: before an op that widens it, after one that narrows it."""
        name = next(n for n in op.inputs if not n.startswith("@") and self.layout[n].partial)
        before = local_count(self.segment, self.dims[name], self.layout[name].dims, self.mesh, self.scope(name))
        after = local_count(self.segment, op.dims, own.dims, self.mesh, op.scope)
        return after <= before

    def scope(self, name: str) -> str:
        return self.segment.scope_of(self.origin.get(name, name))

    def place_weight(self, name: str, need: tuple[Axes, ...], on: str) -> None:
        """A weight is stored as, and where, its first consumer needs it; weights are never moved at run time."""
        known, layout = self.weights.get(name), Sharding(need, on=on)
        if known is not None and known.sharding not in (None, layout):
            raise NoRoute(f"weight {name[1:]} is needed in two layouts")
        self.weights[name] = replace(self.segment.weight[name], sharding=layout)

    def ring(self, op: Op, inputs: list[str]) -> list[str]:
        """Ring attention: keys and values travel round the ring, one op for all its steps."""
        if not op.ring:
            return inputs
        out = []
        for name in inputs:
            if name.startswith("@") or "context" not in self.dims[name]:
                out.append(name)
                continue
            key = (f"{name} ring", self.layout[name], GOES_ON.get(self.cell, self.cell))
            if key not in self.made:
                turn = RingTurnAttrs(self.mesh.size(op.ring) - 1)
                self.made[key] = self.emit((name,), "ring_turn", turn, op.ring, self.layout[name])
            out.append(self.made[key])
        return out

    def reach(self, name: str, want: Sharding) -> str:
        """The name under which `name` is available in the wanted layout."""
        have = self.layout[name]
        if have == want:
            return name
        key = (name, want, GOES_ON.get(self.cell, self.cell))
        if key not in self.made and self.cell in GOES_ON and self.is_kept(name, want):
            self.made[key] = self.made[name, want, FORWARD]
        if key not in self.made:
            if have.reduce == "sum" and not self.cuts:
                self.cuts = self.chains.cuts(have, want, self.shape(name))
            chain, current = self.chains.cheapest(have, want, self.shape(name)), name
            if have.reduce == "softmax":
                current, chain = self.merge_softmax(name, chain[0]), chain[1:]
            for move in chain:
                current = self.move(current, move)
            self.made[key] = current
            for partner, moved in zip(self.partners.get(name, ()), self.partners.get(current, ()), strict=False):
                self.made[partner, want, key[2]] = moved
        return self.made[key]

    def is_kept(self, name: str, want: Sharding) -> bool:
        """Whether a value that was moved in the forward cell is kept as it then was: where it takes no more room. What was gathered is
        gathered again, but a copy of a weight that is to be kept."""
        if (name, want, FORWARD) not in self.made:
            return False
        made = self.segment.by_name.get(name)
        if made is not None and isinstance(made.attrs, FetchAttrs):
            return made.attrs.kept
        sizes = [
            local_count(self.segment, self.dims[name], at.dims, self.mesh, self.scope(name))
            for at in (self.layout[name], want)
        ]
        return sizes[1] <= sizes[0]

    def merge_softmax(self, name: str, last: Move) -> str:
        """Attention over pieces of the context: all-reduce the row maxima, the row sums, then join the outputs as the last move
        says. The sums of a rank count as much as its maxima make them; its outputs as much as its share of the sums."""
        axes, whole = self.layout[name].partial, self.layout[name].resolved()
        rows = replace(whole, dims=whole.dims[:-1])
        maxima, sums = self.partners[name]
        peak = self.emit((maxima,), "all_reduce", MoveAttrs(reduce="max"), axes, rows)
        total = self.emit((sums, maxima, peak), "softmax_merge", SoftmaxMergeAttrs(), axes, rows)
        merged = name, *self.partners[total]
        if last.kind == "all_reduce":
            return self.emit(merged, "softmax_merge", SoftmaxMergeAttrs(), axes, whole)
        target = self.dims[name][last.target_dim]
        return self.emit(merged, "softmax_scatter", SoftmaxScatterAttrs(target), axes, last.result)

    def shape(self, name: str) -> TensorSizes:
        dims, scope = self.dims[name], self.scope(name)
        sizes = tuple(self.segment.size(d, scope) for d in dims)
        return TensorSizes(sizes, DTYPE_BYTES[self.dtype(name)], tuple(stem(d) == "slot" for d in dims))

    def dtype(self, name: str) -> str:
        return self.dtypes.get(name) or self.segment.dtype_of(name)

    def move(self, name: str, move: Move) -> str:
        """The op of a move between two layouts."""
        source, target = (self.dims[name][i] if i >= 0 else "" for i in (move.source_dim, move.target_dim))
        operands = (name, *self.partners.get(name, ()))
        if move.kind == "slice":  # no rank waits for another
            return self.emit(operands, move.kind, SliceAttrs(target, self.mesh.sort(move.axes)), (), move.result)
        largest = move.kind == "all_reduce" and self.layout[name].reduce == "max"
        attrs = MoveAttrs(source, target, "max" if largest else "sum")
        return self.emit(operands, move.kind, attrs, move.axes, move.result)

    def emit(self, operands: tuple[str, ...], kind: str, attrs: Attrs, axes: Axes, result: Sharding) -> str:
        """An op among the ranks of `axes`, whose first result is the first operand in another layout."""
        name = operands[0]
        origin = self.origin.get(name, name)
        stem = f"{origin}.{attrs.runtime_kind or kind}"
        self.counts[stem] = self.counts.get(stem, 0) + 1
        new = stem if self.counts[stem] == 1 else f"{stem}{self.counts[stem]}"
        made = self.segment.by_name.get(origin)
        block = "" if made is None else made.block
        group = self.mesh.sort(axes)
        typed = self.dims[name], self.dtype(name), block, self.scope(name)
        op = Op(new, kind, operands, *typed, attrs, (), group, result, on=result.on, cell=self.cell)
        self.add(replace(op, more=moved_results(op, result, list(map(self.value, operands)))), origin)
        return new
