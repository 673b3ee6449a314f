"""backward: after the ops of every layer those that hand gradients back, by the rule of each op (`dagc/ir/ops/transpose.py`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from dagc.base.dtypes import INDICES
from dagc.base.dtypes import dtype as dtype_named
from dagc.base.frozen import field, mutable, record, replace
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.ir.op import BACKWARD, CELLS, UPDATE, WEIGHT, Op, Value, Weight
from dagc.ir.ops.attributes.attrs import NONE, Attrs
from dagc.ir.ops.attributes.experts import CombineAttrs, ExchangeAttrs, RouteAttrs
from dagc.ir.ops.attributes.training import AccumulateAttrs, AdamAttrs, StoreAttrs
from dagc.ir.ops.transpose import NO_GRADIENT, TRANSPOSE, NoGradient
from dagc.ir.routed_dims import rows_of
from dagc.ir.segment import Segment
from dagc.ir.step_dropout import with_dropout
from dagc.ir.step_losses import ROOTS, RouterLosses, with_loss, with_router_losses


@record
class Backward(GraphPass):
    """The gradients of a training step. `gradients`: the dtype in which those of weights are added up;
    `optimizer`: the kind of op that makes new weights; `further`: what the loss of each further token that the head chooses counts;
    `balance`, `z`, `sequences`: losses of routers (see `RouterLosses`). `whole`: dtype of gradients and new weights where the weights that products
    read have 8 bits or fewer. `dropout`: share of what layers add to the residual stream that is put to nothing."""

    name: ClassVar[str] = "backward"
    levels: ClassVar[tuple[str, ...]] = ("model",)
    gradients: str = "fp32"
    optimizer: str = "adamw"
    further: float = 0.0
    balance: float = 0.0
    z: float = 0.0
    sequences: int = 0
    whole: str = ""
    dropout: float = 0.0

    def run(self, graph: Graph) -> Graph:
        head, losses = graph.head, RouterLosses(self.balance, self.z, self.sequences)
        if (self.balance or self.z) and not any(
            isinstance(op.attrs, RouteAttrs) for s in graph.segments for op in s.ops
        ):
            raise PassError("no layer has a router whose losses count", at="aux_loss" if self.balance else "z_loss")
        if (self.balance or self.z) and any(
            isinstance(op.attrs, RouteAttrs) and op.attrs.empty for s in graph.segments for op in s.ops
        ):
            raise PassError(
                "losses of routers are not there yet where some experts do nothing",
                at="aux_loss" if self.balance else "z_loss",
            )
        segments = []
        beside = {one.name for s in graph.segments for one in s.taken if one.dtype not in INDICES}
        for segment in graph.segments:
            try:
                own = with_loss(segment, graph, self.further) if segment is head else segment
                if self.dropout and segment is not head:
                    own = with_dropout(own, self.dropout, table=segment is graph.embedding)
                own = with_weighed_rows(with_router_losses(own, graph, losses))
                layer = Differentiated(own, self.gradients, self.optimizer, self.whole, graph.embedding.weight, beside)
                segments.append(layer.run(segment is graph.embedding))
            except NoGradient as error:
                raise PassError(
                    f"no gradient goes through {error}", at="kind", where=(segment.name, error.op.name)
                ) from None
        return replace(graph, segments=tuple(segments))


def with_weighed_rows(segment: Segment) -> Segment:
    """Rows of experts weighed before their last product instead of behind it, as training engines do: what the product is of is
    kept for the gradient of its weights, so that the rows themselves need not be."""
    for op in segment.ops:
        last = segment.by_name.get(op.inputs[0]) if isinstance(op.attrs, CombineAttrs) and op.attrs.weighted else None
        if last is None or last.kind != "contract" or len(list(segment.users(last.name))) > 1:
            continue
        rows, matrix = last.inputs
        made = rows_of(segment.dims_of(rows))
        if matrix not in segment.weight or made is None:
            continue
        choice, weights = op.inputs[1:]
        of_rows = Op(
            f"{last.name}.weights", "choice_rows", (weights, choice), (made.expert, made.slot), segment.dtype_of(weights), op.block,
            "experts", ExchangeAttrs(),
        )  # fmt: skip
        weighed = Op(
            f"{last.name}.weighed", "multiply", (rows, of_rows.name), segment.dims_of(rows), segment.dtype_of(rows), op.block, "experts",
        )  # fmt: skip
        changed = {
            last.name: (of_rows, weighed, replace(last, inputs=(weighed.name, matrix))),
            op.name: (replace(op, attrs=op.attrs.but(weighted=False)),),
        }
        ops = tuple(new for old in segment.ops for new in changed.get(old.name, (old,)))
        segment = replace(segment, ops=ops)
    return segment


@mutable
class Differentiated:
    """A layer and the ops of its gradients under construction. `tables`: weights of the first layer, which others may share; `beside`: names of
    numbers that layers take beside the residual stream; `pieces`: what has been contributed to the gradient of each value."""

    segment: Segment
    gradients: str
    optimizer: str
    whole: str = ""
    tables: Mapping[str, Weight] = field(default_factory=dict)
    beside: Collection[str] = ()
    ops: list[Op] = field(default_factory=list)
    pieces: dict[str, list[str]] = field(default_factory=dict)
    made: dict[str, Op] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    upstream: Value | None = None

    def run(self, first: bool) -> Segment:
        source, output = self.segment, self.segment.result(self.segment.output)
        if all(op.kind != "cross_entropy" for op in source.ops):  # not the head
            self.upstream = Value(f"{source.output}.grad", output.dims, output.dtype)
            self.pieces[source.output] = [self.upstream.name]
            self.segment = replace(source, upstream=self.upstream)
        taken = self.handed_back()
        for op in reversed(source.ops):
            self.back(op)
        for weight in source.weights:
            self.accumulated(weight.name)
        downstream = "" if first else self.total(source.input)
        gives = tuple((name, self.total(name)) for name in taken if name in self.pieces)
        done = replace(self.segment, ops=(*source.ops, *self.in_order()), downstream=downstream, gives=gives)
        return without_dead(done, len(source.ops))

    def handed_back(self) -> list[str]:
        """Takes in the gradients of what layers behind take beside the residual stream: of what this one hands on, and of what it takes itself
        as they do. Names of what it takes."""
        source, taken = self.segment, [one.name for one in self.segment.taken if one.name in self.beside]
        own = {name: value for name, value in source.handed if name in self.beside}
        gets = []
        for name, value in (own | {name: name for name in taken if name not in own}).items():
            found = Value(f"{name}.back", source.dims_of(value), source.dtype_of(value))
            gets.append((name, found))
            self.pieces.setdefault(value, []).append(found.name)
        self.segment = replace(source, gets=tuple(gets))
        return taken

    def back(self, op: Op) -> None:
        """The gradients of an op's operands, where that of its result is known."""
        upstream = ""
        if op.kind in ROOTS:
            upstream = op.name  # the loss is what gradients are of
        else:
            found = [value.name for value in op.results if value.name in self.pieces]
            if not found:
                return
            upstream = self.total(found[-1])
        if op.kind not in TRANSPOSE:
            raise NoGradient(op, NO_GRADIENT.get(op.kind, "it has no rule"))
        for of, piece in TRANSPOSE[op.kind](self, op, upstream):
            self.pieces.setdefault(of, []).append(piece)

    def total(self, name: str) -> str:
        """The gradient of a value: its contributions added up."""
        pieces = self.pieces.get(name)
        if not pieces:
            raise NoGradient(self.segment.ops[0], f"nothing reads %{name}")
        current, s = pieces[0], self.segment
        for piece in pieces[1:]:
            current = self.emit("add", (current, piece), s.dims_of(name), s.dtype_of(name), NONE, name)
        self.pieces[name] = [current]
        return current

    def accumulated(self, name: str) -> None:
        """The gradient of a weight, added to those of the micro-batches before; and the weight that it makes of the old one. That of
        a shared table is added to the table's own, whose layer makes the new one."""
        if name not in self.pieces:
            return
        total, weight, plain = self.total(name), self.segment.weight[name], name.removeprefix("@")
        dims = self.tables[weight.tied].dims if weight.tied else weight.dims
        found = self.emit("accumulate", (total,), dims, self.gradients, AccumulateAttrs(plain), name)
        if weight.tied:
            return
        new = self.emit(self.optimizer, (found,), weight.dims, weight.dtype, AdamAttrs(plain), name, f"{plain}.new")
        self.emit("store", (new,), weight.dims, weight.dtype, StoreAttrs(plain), name, f"{plain}.stored")

    def emit(
        self,
        kind: str,
        inputs: tuple[str, ...],
        dims: tuple[str, ...],
        dtype: str,
        attrs: Attrs,
        of: str,
        name: str = "",
    ) -> str:
        of_weight = of.startswith("@")
        if of_weight and kind != "store" and dtype_named(dtype).quantised:
            dtype = self.whole
        stem = name or f"{of.removeprefix('@')}.grad"
        self.counts[stem] = self.counts.get(stem, 0) + 1
        name = stem if self.counts[stem] == 1 else f"{stem}.{self.counts[stem]}"
        block = stem.partition(".")[0] if not self.segment.is_given(of) else ""
        scope = self.segment.weight[of].scope if of_weight else "dense" if rows_of(dims) is None else "experts"
        cell = BACKWARD if not of_weight else UPDATE if kind in (self.optimizer, "store") else WEIGHT
        op = Op(name, kind, inputs, dims, dtype, block, scope, attrs, cell=cell)
        self.ops.append(op)
        self.segment = replace(self.segment, ops=(*self.segment.ops, op))
        return name

    def in_order(self) -> list[Op]:
        """Gradients of values first: what other layers wait for."""
        return [op for cell in CELLS for op in self.ops if op.cell == cell]


def without_dead(segment: Segment, forward: int) -> Segment:
    """The layer without gradients that nothing reads."""
    alive = {segment.output, segment.downstream, *(value for _, value in segment.gives)}
    kept: list[Op] = []
    for place, op in reversed(list(enumerate(segment.ops))):
        stays = isinstance(op.attrs, (AccumulateAttrs, StoreAttrs))
        if place < forward or stays or any(value.name in alive for value in op.results):
            kept.append(op)
            alive.update(op.inputs)
    return replace(segment, ops=tuple(reversed(kept)))
