"""quantise: what products with weights of 8 or 4 bits read, forward and backward, is put into their dtype by ops of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from dagc.base.dtypes import dtype as dtype_named
from dagc.base.frozen import mutable, record, replace
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass
from dagc.ir.op import FORWARD, UPDATE, WEIGHT, Op
from dagc.ir.ops.attributes.training import AccumulateAttrs, QuantiseAttrs, StoreAttrs
from dagc.ir.ops.op_set import OPS
from dagc.ir.routed_dims import rows_of
from dagc.ir.segment import Segment

from ..ir.ops.attributes.experts import DispatchAttrs


@record
class Quantise(GraphPass):
    """Of a product x W all three products compute so: the product itself, the gradient of x and that of W (Transformer Engine's default, and DeepSeek-V3's,
    arXiv 2412.19437, section 3.3). A value is quantised once for all that read it; gradients pass straight through. New weights are quantised once a
    step. `moved`: before they are gathered, where ranks share them out. `dispatched`: tokens on their way to experts are, too, and gradients on their way
    back (arXiv 2412.19437, section 3.3.3). `each`: the dtype in which weights are stored, where every cell quantises those that it has gathered."""

    name: ClassVar[str] = "quantise"
    levels: ClassVar[tuple[str, ...]] = ("model",)
    moved: bool = False
    dispatched: bool = False
    each: str = ""

    def run(self, graph: Graph) -> Graph:
        return replace(graph, segments=tuple(self.quantised(segment) for segment in graph.segments))

    def quantised(self, segment: Segment) -> Segment:
        weights = {w.name: w.dtype for w in segment.weights if dtype_named(w.dtype).quantised}
        if not weights or all(op.cell == FORWARD for op in segment.ops):
            return segment
        of = dict(products(segment, weights))
        layer = Layer(segment, of, dict(dispatched(segment, of)) if self.dispatched else {}, {}, [])
        for op in segment.ops:
            layer.add(op, self, weights)
        stored = (replace(w, dtype=self.each or w.dtype) if w.name in weights else w for w in segment.weights)
        return replace(segment, ops=tuple(layer.ops), weights=tuple(stored))


def products(segment: Segment, weights: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Ops that multiply such a weight, and those whose result is a part of its gradient, each with the dtype."""
    for op in segment.ops:
        own = [weights[name] for name in op.inputs if name in weights]
        if OPS[op.kind].product and own:
            yield op.name, own[0]
        if isinstance(op.attrs, AccumulateAttrs) and f"@{op.attrs.weight}" in weights:
            parts = list(op.inputs)
            while parts:
                part = segment.by_name.get(parts.pop())
                if part is None or part.cell != WEIGHT:
                    continue
                if OPS[part.kind].product:
                    yield part.name, weights[f"@{op.attrs.weight}"]
                elif part.kind == "add":
                    parts += part.inputs


def dispatched(segment: Segment, of: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Ops that bring tokens, or gradients of what experts made of them, to experts whose products alone read them, each with the dtype of these."""
    for op in segment.ops:
        if isinstance(op.attrs, DispatchAttrs):
            read = {of.get(user.name, "") for user in segment.users(op.name)}
            if len(read) == 1 and "" not in read:
                yield op.name, read.pop()


@mutable
class Layer:
    """The ops of a layer anew. `of`: product -> dtype; `sent`: op that brings tokens -> dtype; `known`: (value, dtype, the
    cell where each has its own) -> the value quantised."""

    source: Segment
    of: dict[str, str]
    sent: dict[str, str]
    known: dict[tuple[str, str, str], str]
    ops: list[Op]

    def add(self, op: Op, how: Quantise, weights: dict[str, str]) -> None:
        dtype = self.of.get(op.name)
        if dtype is not None:
            stored = set() if how.each else weights.keys()
            read = tuple(name if name in stored else self.value(name, dtype, op) for name in op.inputs)
            op = replace(op, inputs=read)
        elif op.name in self.sent:
            dtype = self.sent[op.name]
            op = replace(op, inputs=(self.value(op.inputs[0], dtype, op), *op.inputs[1:]), dtype=dtype)
            self.known[op.name, dtype, ""] = op.name
        elif isinstance(op.attrs, StoreAttrs) and f"@{op.attrs.weight}" in weights:
            op = replace(op, dtype=how.each) if how.each else self.stored(op, op.attrs.weight, moved=how.moved)
        self.ops.append(op)

    def stored(self, op: Op, weight: str, *, moved: bool) -> Op:
        """What puts a new weight where the old one was, behind one that quantises it."""
        attrs = QuantiseAttrs(weight=weight, moved=moved)
        new = Op(
            f"{weight}.quantised", "quantise", op.inputs, op.dims, op.dtype, op.block, op.scope, attrs, cell=UPDATE
        )
        self.ops.append(new)
        return replace(op, inputs=(new.name,))

    def value(self, name: str, dtype: str, reader: Op) -> str:
        """Quantised: a weight, which is gathered for a cell, in each cell that reads it."""
        weight = self.source.is_weight(name)
        key = name, dtype, reader.cell if weight else ""
        if key not in self.known:
            dims, plain = self.source.dims_of(name), name.removeprefix("@")
            scope = "dense" if rows_of(dims) is None else "experts"
            scope = self.source.weight[name].scope if weight else scope
            again = "" if not weight or reader.cell == FORWARD else "2"
            found = Op(
                f"{plain}.quantised{again}", "quantise", (name,), dims, dtype, reader.block, scope, QuantiseAttrs(), cell=reader.cell
            )  # fmt: skip
            self.ops.append(found)
            self.known[key] = found.name
        return self.known[key]
