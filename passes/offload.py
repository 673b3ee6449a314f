"""offload: what host memory keeps of a cache comes and goes by copies, on a stream of their own."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.frozen import record, replace
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.ir.op import Op
from dagc.ir.ops.attributes.attention import CacheAttrs
from dagc.ir.ops.attributes.copies import HostCacheAttrs
from dagc.ir.segment import Segment


@record
class Offload(GraphPass):
    """A copy behind every cache of which the host keeps a share: what reads the cache reads it with what came."""

    name: ClassVar[str] = "offload"
    levels: ClassVar[tuple[str, ...]] = ("sharded",)

    def run(self, graph: Graph) -> Graph:
        return graph.map_segments(with_copies)


def with_copies(segment: Segment) -> Segment:
    """The layer whose ops read caches that are partly the host's behind a copy. Raises PassError."""
    copied: dict[str, str] = {}
    ops: list[Op] = []
    for op in segment.ops:
        if not copied.keys().isdisjoint(op.inputs):
            op = replace(op, inputs=tuple(copied.get(name, name) for name in op.inputs))
        ops.append(op)
        if isinstance(op.attrs, CacheAttrs) and op.attrs.host:
            ops.append(copy_of(op, op.attrs))
            copied[op.name] = ops[-1].name
    for name, value in segment.handed:
        if value in copied:
            raise PassError(
                f"layer `{segment.name}` hands on a cache of which the host keeps a part (`{name}`)", at="kv_cache",
                because=("layers that read it would need copies of their own",), help=("leave out `offload`",),
            )  # fmt: skip
    return replace(segment, ops=tuple(ops)) if copied else segment


def copy_of(cache: Op, kept: CacheAttrs) -> Op:
    assert cache.sharding is not None
    loops = tuple((dim, axes) for dim, axes in zip(cache.dims, cache.sharding.dims, strict=True) if axes)
    return Op(
        f"{cache.name}.host",
        "host_cache",
        (cache.name,),
        cache.dims,
        cache.dtype,
        cache.block,
        cache.scope,
        HostCacheAttrs(share=kept.host, prefetch=kept.prefetch),
        loops,
        sharding=cache.sharding,
    )
