"""backward: after the ops of every layer those that hand gradients back, by the rule of each op (`dagc/ir/ops/transpose.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from dagc.base.frozen import field, mutable, record, replace
from dagc.ir.graph import BACKWARD, CELLS, UPDATE, WEIGHT, Graph, Op, Segment, Value, Weight
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.ir.ops.attributes import (
    NONE,
    AccumulateAttrs,
    AdamAttrs,
    Attrs,
    CombineAttrs,
    ExchangeAttrs,
    LabelsAttrs,
    LossAttrs,
    RowMaxAttrs,
    StoreAttrs,
)
from dagc.ir.ops.further import further_results
from dagc.ir.ops.transpose import NO_GRADIENT, TRANSPOSE, NoGradient
from dagc.ir.routed_dims import rows_of

LABELS = "labels"
ROWS = ("batch", "seq")


@record
class Backward(GraphPass):
    """The gradients of a training step. `gradients`: the dtype in which those of weights are added up;
    `optimizer`: the kind of op that makes new weights; `further`: what the loss of each further token that the head chooses counts."""

    name: ClassVar[str] = "backward"
    levels: ClassVar[tuple[str, ...]] = ("model",)
    gradients: str = "fp32"
    optimizer: str = "adamw"
    further: float = 0.0

    def run(self, graph: Graph) -> Graph:
        head = graph.head
        segments = []
        for segment in graph.segments:
            try:
                own = with_weighed_rows(with_loss(segment, graph, self.further) if segment is head else segment)
                layer = Differentiated(own, self.gradients, self.optimizer, graph.embedding.weight)
                segments.append(layer.run(segment is graph.embedding))
            except NoGradient as error:
                raise PassError(
                    f"no gradient goes through {error}", at="kind", where=(segment.name, error.op.name)
                ) from None
        return replace(graph, segments=tuple(segments))


def with_loss(head: Segment, graph: Graph, further: float = 0.0) -> Segment:
    """The head with the cross entropy of its logits in place of the choice of a token; and of those of each further token, the next but
    one first."""
    last = head.by_name[head.output]
    if last.kind != "argmax":
        raise PassError(
            "a training step needs a head that ends with `argmax(logits)`", at="kind", where=(head.name, last.name)
        )
    choices = [last, *(op for op in head.ops if op.kind == "argmax" and op is not last)]
    if len(head.dims_of(last.inputs[0])) != 3 or last.dims != ROWS:
        raise PassError("a training step needs logits [batch, seq, vocab]", at="kind", where=(head.name, last.name))
    tokens = int(head.size("batch") * head.size("seq") * graph.microbatches * graph.lanes)
    kept = tuple(op for op in head.ops if all(op is not one for one in choices))
    losses = [loss_of(op, head, k, tokens, 1.0 if op is last else further) for k, op in enumerate(choices, start=1)]
    total = losses[0][-1]
    made = [op for ops in losses for op in ops]
    for ops in losses[1:]:
        total = Op(f"{ops[-1].name}.total", "add", (total.name, ops[-1].name), ROWS, "fp32", ops[-1].block)
        made.append(total)
    return replace(head, ops=(*kept, *made), output=total.name)


def loss_of(choice: Op, head: Segment, ahead: int, tokens: int, factor: float) -> tuple[Op, ...]:
    """The ops of the cross entropy of logits, in place of their largest; the loss is the last of them."""
    logits, block = choice.inputs[0], choice.block
    stem = f"{choice.name.rpartition('.')[0]}." if block else ""

    def row(name: str, kind: str, inputs: tuple[str, ...], attrs: Attrs = NONE, dtype: str = "fp32") -> Op:
        op = Op(f"{stem}{name}", kind, inputs, ROWS, dtype, block, attrs=attrs)
        return replace(op, more=further_results(op, None))

    labels = row(LABELS, LABELS, (), LabelsAttrs(ahead), dtype="int32")
    largest = row("largest", "row_max", (logits,), RowMaxAttrs())
    total = row("total", "row_exp_sum", (logits, largest.name))
    picked = row("picked", "pick", (logits, labels.name))
    found = (largest.name, total.name, picked.name)
    loss = row("loss", "cross_entropy", found, LossAttrs(tokens, factor))
    return labels, largest, total, picked, loss


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
    """A layer and the ops of its gradients under construction. `tables`: weights of the first layer, which others may share;
    `pieces`: what has been contributed to the gradient of each value."""

    segment: Segment
    gradients: str
    optimizer: str
    tables: Mapping[str, Weight] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    pieces: dict[str, list[str]] = field(default_factory=dict)
    made: dict[str, Op] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    upstream: Value | None = None

    def run(self, first: bool) -> Segment:
        source, output = self.segment, self.segment.result(self.segment.output)
        if all(op.kind != "cross_entropy" for op in source.ops):
            self.upstream = Value(f"{source.output}.grad", output.dims, output.dtype)
            self.pieces[source.output] = [self.upstream.name]
            self.segment = replace(source, upstream=self.upstream)
        for op in reversed(source.ops):
            self.back(op)
        for weight in source.weights:
            self.accumulated(weight.name)
        downstream = "" if first else self.total(source.input)
        done = replace(self.segment, ops=(*source.ops, *self.in_order()), downstream=downstream)
        return without_dead(done, len(source.ops))

    def back(self, op: Op) -> None:
        """The gradients of an op's operands, where that of its result is known."""
        upstream = ""
        if op.kind == "cross_entropy":
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
        stem = name or f"{of.removeprefix('@')}.grad"
        self.counts[stem] = self.counts.get(stem, 0) + 1
        name = stem if self.counts[stem] == 1 else f"{stem}.{self.counts[stem]}"
        block = stem.partition(".")[0] if of != self.segment.input else ""
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
    alive = {segment.output, segment.downstream}
    kept: list[Op] = []
    for place, op in reversed(list(enumerate(segment.ops))):
        stays = isinstance(op.attrs, (AccumulateAttrs, StoreAttrs))
        if place < forward or stays or any(value.name in alive for value in op.results):
            kept.append(op)
            alive.update(op.inputs)
    return replace(segment, ops=tuple(reversed(kept)))
