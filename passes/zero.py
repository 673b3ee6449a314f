"""zero: how the states of the optimizer, gradients and weights are split over ranks that have the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from dagc.base.axes import EXPERT_REPLICA
from dagc.base.frozen import record, replace
from dagc.ir.graph import UPDATE, Graph, Op, Segment, Weight
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.ir.mesh import Mesh
from dagc.ir.ops.attributes import AccumulateAttrs, AdamAttrs, FetchAttrs, StoreAttrs, WeightAttrs
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
        tables = graph.embedding.weight
        segments = tuple(self.annotated(segment, graph.the_mesh, tables) for segment in graph.segments)
        return replace(graph, segments=segments)

    def annotated(self, segment: Segment, mesh: Mesh, tables: Mapping[str, Weight]) -> Segment:
        """`tables`: weights of the first layer, which others may share: these are split in the order of its dims."""
        used = {w.name: in_order(as_used(segment, w), tables.get(w.tied, w).dims) for w in segment.weights}
        shared = (
            {name: shared_out(segment, name, layout, mesh) for name, layout in used.items()} if self.stage else used
        )
        ops = tuple(
            with_layout(op, (shared if self.is_shared(op) else used)[f"@{op.attrs.weight}"])
            if isinstance(op.attrs, WeightAttrs)
            else op
            for op in segment.ops
        )
        found = segment.with_ops(ops)
        if self.stage < 3:
            return found
        for name, layout in shared.items():
            whole(segment, name, used[name], mesh)
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
        first = {AdamAttrs: 1, AccumulateAttrs: 2, StoreAttrs: 3}[type(op.attrs)]
        return self.stage >= first


def as_used(segment: Segment, weight: Weight) -> Layout:
    """A weight as its first reader splits it."""
    reader = next(op for op in segment.ops if weight.name in op.inputs)
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
    longest part of what is left of them that divides it."""
    weight, left, found = segment.weight[name], sharing(segment, name, layout, mesh), dict(layout)
    sizes = {dim: segment.size(dim, weight.scope) / mesh.size(own) for dim, own in layout.items()}
    alone = next((dim for dim, size in sizes.items() if size % mesh.size(left) == 0), None)
    for dim in layout if alone is None else (alone,):
        taken = next(k for k in range(len(left), -1, -1) if sizes[dim] % mesh.size(left[:k]) == 0)
        found[dim], left = (*layout[dim], *left[:taken]), left[taken:]
    return found


def whole(segment: Segment, name: str, layout: Layout, mesh: Mesh) -> None:
    """Raises PassError where a matrix would stay on every rank. A gain or a bias may."""
    weight, over = segment.weight[name], mesh.size(sharing(segment, name, layout, mesh))
    sizes = {d: int(segment.size(d, weight.scope)) // mesh.size(axes) for d, axes in layout.items()}
    if len(weight.dims) < 2 or mesh.size(sum(shared_out(segment, name, layout, mesh).values(), ())) == over * mesh.size(
        sum(layout.values(), ())
    ):
        return
    divide = [k for k in range(2, over) if over % k == 0 and any(size % k == 0 for size in sizes.values())]
    listed = ", ".join(f"{dim} {size}" for dim, size in sizes.items())
    raise PassError(
        f"{over} ranks cannot share out the weight {name[1:]} of layer `{segment.name}`",
        at="zero",
        where=(segment.name, name[1:]),
        because=(f"none of its dimensions on a rank divides by {over}: {listed}",),
        help=(
            *((f"a dp x sp of {', '.join(map(str, divide))} divides one of them",) if divide else ()),
            "`zero = 2` shares out gradients and the optimizer's states alone",
        ),
    )
