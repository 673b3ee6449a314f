"""zero: how the states of the optimizer, gradients and weights are split over ranks that have the same weights."""

from __future__ import annotations

from functools import reduce
from itertools import islice
from math import gcd
from typing import ClassVar

from dagc.base.axes import EXPERT_REPLICA
from dagc.base.dtypes import INDICES
from dagc.base.frozen import record, replace
from dagc.ir.cuts import Cuts, cut_graph
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.ir.mesh import Mesh
from dagc.ir.op import UPDATE, Op, Weight
from dagc.ir.ops.attributes.training import (
    AccumulateAttrs,
    AdamAttrs,
    FetchAttrs,
    QuantiseAttrs,
    StoreAttrs,
    WeightAttrs,
)
from dagc.ir.ops.op_set import OPS
from dagc.ir.segment import Segment
from dagc.ir.sharding import Axes

Layout = dict[str, Axes]
"""Dim -> axes that split it."""


@record
class ZeroRedundancy(GraphPass):
    """`stage` 0: every data-parallel rank updates all of its weights; 1: a part of them, which are gathered; 2: gradients are split,
    too, as soon as a micro-batch has them; 3: so are the weights themselves, which are gathered where they are used
    (arXiv 1910.02054). Then gradients gather them anew, but without `reshard_after_forward`."""

    name: ClassVar[str] = "zero"
    stage: int = 0
    reshard_after_forward: bool = True

    def run(self, graph: Graph) -> Graph:
        if all(op.cell != UPDATE for segment in graph.segments for op in segment.ops):
            return graph
        for weight in graph.head.weights:
            if weight.tied and as_used(graph.head, weight) != as_used(
                graph.embedding, graph.embedding.weight[weight.tied]
            ):
                raise PassError(
                    "a table that is tied is split in one way in the first layer, and in another in the head",
                    at="shard",
                )
        while self.stage and (cuts := cuts_that_help(graph)):
            graph = cut_graph(graph, cuts)
        return replace(graph, segments=tuple(self.annotated(segment, graph) for segment in graph.segments))

    def annotated(self, segment: Segment, graph: Graph) -> Segment:
        """A weight that is the first layer's, too, is split in the order of the dims there."""
        mesh, tables = graph.the_mesh, graph.embedding.weight
        used = {w.name: in_order(as_used(segment, w), tables.get(w.tied, w).dims) for w in segment.weights}
        trained = {w.name for w in segment.weights if w.dtype not in INDICES}  # a table of whole numbers stays as it is
        shared = {
            name: shared_out(segment, name, layout, mesh) if self.stage and name in trained else layout
            for name, layout in used.items()
        }

        def laid_out(op: Op) -> Op:
            if not isinstance(op.attrs, WeightAttrs):
                return op
            if op.attrs.weight:
                return with_layout(op, (shared if self.is_shared(op) else used)[f"@{op.attrs.weight}"])
            return with_layout(op, used[op.inputs[0]]) if op.inputs[0] in used else op

        ops = tuple(map(laid_out, segment.ops))
        found = segment.with_ops(ops)
        if self.stage < 3:
            return found
        for name, layout in shared.items():
            over = sharing(segment, name, used[name], mesh)
            taken = mesh.size(sum(layout.values(), ())) // mesh.size(sum(used[name].values(), ()))
            check_shared(graph, segment, segment.weight[name], over, taken)
            found = self.fetched(found, name, layout) if layout != used[name] else found
        return found

    def fetched(self, segment: Segment, name: str, layout: Layout) -> Segment:
        """The layer whose ops read a copy of the weight, which ranks store as `layout` says."""
        weight, plain = segment.weight[name], name.removeprefix("@")
        first = next(k for k, op in enumerate(segment.ops) if name in op.inputs)
        block = segment.ops[first].block
        fetch = Op(
            f"{plain}.fetch",
            "fetch",
            (name,),
            weight.dims,
            weight.dtype,
            block,
            weight.scope,
            FetchAttrs(kept=not self.reshard_after_forward),
        )
        ops = [
            replace(op, inputs=tuple(fetch.name if n == name else n for n in op.inputs)) if name in op.inputs else op
            for op in segment.ops
        ]
        return replace(segment, ops=(*ops[:first], with_layout(fetch, layout), *ops[first:]))

    def is_shared(self, op: Op) -> bool:
        """Whether this stage splits what the op makes over the ranks that have the same weight."""
        if isinstance(op.attrs, QuantiseAttrs):
            return self.stage >= 3 or op.attrs.moved
        first = {AdamAttrs: 1, AccumulateAttrs: 2, StoreAttrs: 3}[type(op.attrs)]
        return self.stage >= first


def as_used(segment: Segment, weight: Weight) -> Layout:
    """A weight as its first reader splits it, that of what is quantised of it."""
    reader = next(op for op in segment.ops if weight.name in op.inputs)
    if isinstance(reader.attrs, QuantiseAttrs):
        reader = next(segment.users(reader.name))
    return {dim: reader.loop(dim) for dim in weight.dims}


def in_order(layout: Layout, dims: tuple[str, ...]) -> Layout:
    return {dim: layout[dim] for dim in dims}


def with_layout(op: Op, layout: Layout) -> Op:
    for dim in op.dims:
        op = op.annotate(dim, layout.get(dim, ()))
    return op


def sharing(segment: Segment, name: str, layout: Layout, mesh: Mesh) -> Axes:
    """The axes over which ranks have the same part of a weight: of the batch and the sequence, of experts those of their copies."""
    used = {axis for axes in layout.values() for axis in axes}
    alike = (
        *mesh.batch_axes,
        *mesh.of("sp"),
        *(mesh.of(EXPERT_REPLICA) if segment.weight[name].scope == "experts" else ()),
    )
    return tuple(a for a in dict.fromkeys(alike) if a not in used)


def shared_out(segment: Segment, name: str, layout: Layout, mesh: Mesh) -> Layout:
    """The first dim that all of these axes divide takes them, so that one call moves it; without such a one each dim, in order, takes the
    longest part of what is left of them that divides it, until none takes any."""
    weight, left, found = segment.weight[name], sharing(segment, name, layout, mesh), dict(layout)
    sizes = {dim: int(segment.size(dim, weight.scope)) // mesh.size(own) for dim, own in layout.items()}
    alone = next((dim for dim, size in sizes.items() if size % mesh.size(left) == 0), None)
    before: Axes = ()
    while left and left != before:
        before = left
        for dim in layout if alone is None else (alone,):
            taken = next(k for k in range(len(left), -1, -1) if sizes[dim] % mesh.size(left[:k]) == 0)
            found[dim], sizes[dim] = (*found[dim], *left[:taken]), sizes[dim] // mesh.size(left[:taken])
            left = left[taken:]
    return found


def cuts_that_help(graph: Graph) -> Cuts:
    """A cut of an axis in two, so that another dim of a matrix takes what one does not divide by; none where nothing is to be gained."""
    mesh, tables = graph.the_mesh, graph.embedding.weight
    for segment in graph.segments:
        for weight in segment.weights:
            used = in_order(as_used(segment, weight), tables.get(weight.tied, weight).dims)
            shared = shared_out(segment, weight.name, used, mesh)
            left = sharing(segment, weight.name, shared, mesh)
            if not left or not is_matrix(segment, weight):
                continue
            sizes = (int(segment.size(dim, weight.scope)) // mesh.size(axes) for dim, axes in shared.items())
            outer = max(gcd(mesh.sizes[left[0]], size) for size in sizes)
            if 1 < outer < mesh.sizes[left[0]]:
                return {left[0]: outer}
    return {}


def sizes_used(segment: Segment, weight: Weight, mesh: Mesh) -> dict[str, int]:
    """Dim -> its size on a rank that uses a weight."""
    layout = as_used(segment, weight)
    return {dim: int(segment.size(dim, weight.scope)) // mesh.size(axes) for dim, axes in layout.items()}


def is_matrix(segment: Segment, weight: Weight) -> bool:
    """Whether a product or a lookup reads it. Gains, biases, taps and sinks are next to nothing beside these."""
    return any(OPS[op.kind].product or OPS[op.kind].reads_rows for op in segment.readers(weight.name))


def check_shared(graph: Graph, segment: Segment, weight: Weight, over: Axes, taken: int) -> None:
    """Raises PassError where ranks of the axes `over` have the same part of a matrix, of which `taken` share it out."""
    mesh = graph.the_mesh
    ranks = mesh.size(over)
    if taken == ranks or not is_matrix(segment, weight):
        return
    listed = ", ".join(f"{dim} {size}" for dim, size in sizes_used(segment, weight, mesh).items())
    divide = degrees(graph, weight.scope, ranks)
    axis = "edp" if weight.scope == "experts" else "dp x sp"
    raise PassError(
        f"{ranks} ranks cannot share out the weight {weight.name[1:]} of layer `{segment.name}`",
        at="zero",
        where=(segment.name, weight.name[1:]),
        because=(f"its dimensions on a rank do not divide by {ranks}: {listed}",),
        help=(
            *((f"{axis} of {', '.join(map(str, divide))} divide every matrix",) if divide else ()),
            "`zero = 2` shares out gradients and the optimizer's states alone",
        ),
    )


TRIED = 1000
"""Degrees on either side of one that does not divide."""


def degrees(graph: Graph, scope: str, ranks: int) -> list[int]:
    """The nearest ones, three below and one above, that divide every matrix of a scope, each dim by a part of them."""
    every = {
        tuple(sizes_used(segment, weight, graph.the_mesh).values())
        for segment in graph.segments
        for weight in segment.weights
        if weight.scope == scope and is_matrix(segment, weight)
    }

    def divides(degree: int) -> bool:
        return all(reduce(lambda left, size: left // gcd(left, size), sizes, degree) == 1 for sizes in every)

    below = list(islice(filter(divides, range(ranks - 1, max(1, ranks - TRIED), -1)), 3))
    return [*reversed(below), *islice(filter(divides, range(ranks + 1, ranks + TRIED)), 1)]
