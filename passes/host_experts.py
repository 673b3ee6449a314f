"""host_experts: experts that GPUs do not hold come from their hosts by copies, on a stream of their own."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import record, replace
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass
from dagc.ir.op import Op, Weight
from dagc.ir.ops.attributes.copies import ExpertCopyAttrs
from dagc.ir.ops.attributes.experts import RouteAttrs
from dagc.ir.routed_dims import Rows, rows_with
from dagc.ir.segment import Segment


@record
class ResidentExperts(GraphPass):
    """GPUs hold `experts` of a layer, all together (0: all). Behind the router a copy brings what its choice needs and they lack; `ahead`: of
    what the layer behind will lack it brings what this layer names of it, the share `hit` of it rightly."""

    name: ClassVar[str] = "host_experts"
    levels: ClassVar[tuple[str, ...]] = ("sharded",)
    experts: int = 0
    ahead: bool = False
    hit: float = 0.0

    def run(self, graph: Graph) -> Graph:
        if not self.experts:
            return graph
        return replace(graph, segments=tuple(self.with_copies(s) for s in graph.segments))

    def with_copies(self, segment: Segment) -> Segment:
        """The layer whose products read experts behind a copy. Copies for the layer behind come after its own: first what is needed now."""
        lacking: dict[str, tuple[Weight, str]] = {}
        for weight in segment.weights:
            rows = next(rows_with(segment, weight), None)
            if weight.scope == "experts" and rows is not None:
                lacking[weight.name] = weight, router(segment, rows)
        if not lacking:
            return segment
        own = {name: self.copy(segment, weight, "host", route) for name, (weight, route) in lacking.items()}
        behind = [self.copy(segment, weight, "ahead") for weight, _ in lacking.values()] if self.ahead else []
        first = next(k for k, op in enumerate(segment.ops) if not own.keys().isdisjoint(op.inputs))
        ops = [
            replace(op, inputs=tuple(own[name].name if name in own else name for name in op.inputs))
            if not own.keys().isdisjoint(op.inputs)
            else op
            for op in segment.ops
        ]
        return replace(segment, ops=(*ops[:first], *own.values(), *behind, *ops[first:]))

    def copy(self, segment: Segment, weight: Weight, what: str, route: str = "") -> Op:
        assert weight.sharding is not None
        loops = tuple((dim, axes) for dim, axes in zip(weight.dims, weight.sharding.dims, strict=True) if axes)
        block = next(op.block for op in segment.ops if weight.name in op.inputs)
        share = round(1.0 - self.hit, 12) if self.ahead and route else 1.0
        return Op(
            f"{weight.name[1:]}.{what}",
            "expert_copy",
            (weight.name, route) if route else (weight.name,),
            weight.dims,
            weight.dtype,
            block,
            weight.scope,
            ExpertCopyAttrs(prefetch=not route, resident=self.experts, share=share),
            loops,
            sharding=weight.sharding,
        )


def router(segment: Segment, rows: Rows) -> str:
    """The choice that rows come from."""
    return next(op.name for op in segment.ops if isinstance(op.attrs, RouteAttrs) and rows.choice in op.dims)
